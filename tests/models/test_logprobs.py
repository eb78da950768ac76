"""Chunked log-probs and entropies are those of a whole log_softmax, gradients too, in a fraction of the memory."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.models.logprobs import token_logprobs, token_scores

HIDDEN, VOCAB = 5, 17


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def naive_logprobs(hidden: jax.Array, head: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    logprobs = jax.nn.log_softmax(hidden @ head.T)  # [.., token, vocab]
    return jnp.where(mask, jnp.take_along_axis(logprobs, targets[..., None], axis=-1)[..., 0], 0)


def naive_scores(
    hidden: jax.Array, head: jax.Array, targets: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    logprobs = jax.nn.log_softmax(hidden @ head.T)  # [.., token, vocab]
    entropies = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)  # [.., token]
    return naive_logprobs(hidden, head, targets, mask), jnp.where(mask, entropies, 0)


def inputs(shape: tuple[int, ...], scored: str) -> tuple[jax.Array, ...]:
    """Hidden states, head, targets, mask, weights of the log-probs and of the entropies in a loss."""
    random = np.random.default_rng(len(shape))
    mask = {"none": np.zeros(shape, bool), "all": np.ones(shape, bool), "random": random.random(shape) < 0.4}[scored]
    hidden = random.normal(size=(*shape, HIDDEN))
    head = random.normal(scale=3, size=(VOCAB, HIDDEN))
    arrays = (hidden, head, random.integers(0, VOCAB, shape), mask, *random.normal(size=(2, *shape)))
    return tuple(jnp.asarray(array) for array in arrays)


@pytest.mark.parametrize("shape", [(13,), (2, 7), (2, 3, 4)])
@pytest.mark.parametrize("chunk_size", [1, 5, 1000])
def test_values_and_gradients_are_those_of_log_softmax(shape: tuple[int, ...], chunk_size: int) -> None:
    chunked = functools.partial(token_scores, chunk_size=chunk_size)

    def both(hidden: jax.Array, head: jax.Array, targets: jax.Array, mask: jax.Array, *weights: jax.Array) -> list:
        results = []
        for function in (chunked, naive_scores):
            scores, pull_back = jax.vjp(lambda h, w: tuple(function(h, w, targets, mask)), hidden, head)  # noqa: B023
            results.append((*scores, *pull_back(weights)))
        return results

    run = jax.jit(both)
    for scored in ("random", "all", "none"):
        ours, theirs = run(*inputs(shape, scored))
        for mine, expected in zip(ours, theirs, strict=True):
            assert mine.dtype == jnp.float64
            assert mine.shape == expected.shape
            np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-12)
        assert all(np.any(array) == (scored != "none") for array in ours)


def test_half_precision_hidden_states_are_scored_in_float32() -> None:
    hidden, head, targets, mask, *_ = inputs((2, 7), "random")
    half, single = jnp.asarray(hidden, jnp.bfloat16), jnp.asarray(head, jnp.float32)

    @jax.jit
    def run(half: jax.Array, single: jax.Array) -> tuple[jax.Array, ...]:
        logprobs, pull_back = jax.vjp(lambda h, w: token_logprobs(h, w, targets, mask, chunk_size=4), half, single)
        expected = naive_logprobs(half.astype(jnp.float64), single.astype(jnp.bfloat16), targets, mask)
        return logprobs, expected, *pull_back(jnp.ones_like(logprobs))

    logprobs, expected, hidden_gradient, head_gradient = run(half, single)
    assert logprobs.dtype == jnp.float32
    assert (hidden_gradient.dtype, head_gradient.dtype) == (jnp.bfloat16, jnp.float32)
    np.testing.assert_allclose(logprobs, expected, atol=1e-4)


def test_large_logits_stay_finite() -> None:
    head = jnp.array([[1e4], [-1e4], [0.0]])
    scores = token_scores(jnp.ones((3, 1)), head, jnp.arange(3), jnp.ones(3, bool), chunk_size=2)
    np.testing.assert_allclose(scores.logprobs, [0.0, -2e4, -1e4])
    np.testing.assert_array_equal(scores.entropies, np.zeros(3))


def test_entropy_of_equal_logits_is_the_log_of_the_vocabulary() -> None:
    scores = token_scores(
        jnp.ones((3, 2)), jnp.ones((VOCAB, 2)), jnp.arange(3), jnp.array([True, False, True]), chunk_size=2
    )
    np.testing.assert_allclose(scores.entropies, [np.log(VOCAB), 0, np.log(VOCAB)], rtol=1e-12)


def test_memory_of_value_and_gradient_is_a_fifth_of_log_softmax_at_most() -> None:
    """By XLA's own plan, at Qwen2's vocabulary: nothing is allocated or run here."""
    tokens, hidden_size, vocabulary = 1024, 256, 151_936
    shapes = (
        jax.ShapeDtypeStruct((tokens, hidden_size), jnp.float32),
        jax.ShapeDtypeStruct((vocabulary, hidden_size), jnp.float32),
        jax.ShapeDtypeStruct((tokens,), jnp.int32),
        jax.ShapeDtypeStruct((tokens,), bool),
    )

    def planned_bytes(function: Callable[..., jax.Array]) -> int:
        def loss(hidden: jax.Array, head: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
            return jnp.sum(function(hidden, head, targets, mask))

        gradient = jax.jit(jax.value_and_grad(loss, argnums=(0, 1)))
        plan = gradient.lower(*shapes).compile().memory_analysis()
        assert plan is not None
        return plan.temp_size_in_bytes

    chunked, naive = planned_bytes(functools.partial(token_logprobs, chunk_size=128)), planned_bytes(naive_logprobs)
    assert naive >= 4 * tokens * vocabulary, "the naive form should hold at least one [token, vocab] array"
    assert chunked < naive / 5
