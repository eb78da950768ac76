"""Preference loss against a plain loop over pairs, and its gradient as Rafailov et al. write it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.core.preference_loss import preference_loss

PAIRS, TOKENS = 5, 6
SHAPE = (PAIRS, 2, TOKENS)
seeds = st.integers(0, 10_000)
unhurried = settings(deadline=None, max_examples=25)


def arrays(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """log pi, log pi_ref and the mask."""
    random = np.random.default_rng(seed)
    return random.uniform(-4, 0, SHAPE), random.uniform(-4, 0, SHAPE), random.random(SHAPE) < 0.7


def loop_margins(logprobs: np.ndarray, reference: np.ndarray, mask: np.ndarray, beta: float) -> list[float]:
    margins = []
    for pair in range(PAIRS):
        sums = [0.0, 0.0]
        for side, token in np.ndindex(2, TOKENS):
            if mask[pair, side, token]:
                sums[side] += float(logprobs[pair, side, token]) - float(reference[pair, side, token])
        margins.append(beta * (sums[0] - sums[1]))
    return margins


@unhurried
@given(seed=seeds, beta=st.sampled_from([0.05, 0.1, 1.0]))
def test_loss_and_gradient_equal_definition(seed: int, beta: float) -> None:
    """dL/dlog pi(t) = -+ (beta / N) * sigmoid(-margin), down for the rejected side."""
    logprobs, reference, mask = arrays(seed)
    margins = loop_margins(logprobs, reference, mask, beta)
    loss, metrics = preference_loss(logprobs, reference, mask, beta=beta)
    np.testing.assert_allclose(loss, sum(math.log1p(math.exp(-margin)) for margin in margins) / PAIRS, rtol=1e-12)
    np.testing.assert_allclose(metrics["preference/margin"], np.mean(margins), rtol=1e-10)
    np.testing.assert_allclose(metrics["preference/accuracy"], np.mean([margin > 0 for margin in margins]), rtol=1e-12)
    difference = metrics["preference/chosen_reward"] - metrics["preference/rejected_reward"]
    np.testing.assert_allclose(difference, np.mean(margins), rtol=1e-10)
    gradient = jax.grad(lambda values: preference_loss(values, reference, mask, beta=beta)[0])(jnp.asarray(logprobs))
    pull = np.array([beta / PAIRS / (1 + math.exp(margin)) for margin in margins])[:, None]
    expected = np.where(mask, np.stack([-pull, pull], axis=1), 0.0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-15)


@unhurried
@given(seed=seeds, garbage=st.sampled_from([-math.inf, math.nan, 1e30]))
def test_what_is_masked_is_never_seen(seed: int, garbage: float) -> None:
    logprobs, reference, mask = arrays(seed)
    clean = jax.value_and_grad(lambda values: preference_loss(values, reference, mask, beta=0.1)[0])(logprobs)
    logprobs, reference = np.where(mask, logprobs, garbage), np.where(mask, reference, garbage)
    dirty = jax.value_and_grad(lambda values: preference_loss(values, reference, mask, beta=0.1)[0])(logprobs)
    for first, second in zip(clean, dirty, strict=True):
        np.testing.assert_array_equal(first, second)
        assert np.isfinite(first).all()


def test_parts_with_one_denominator_add_up() -> None:
    logprobs, reference, mask = arrays(3)
    whole = preference_loss(logprobs, reference, mask, beta=0.1)
    parts = [
        preference_loss(logprobs[part], reference[part], mask[part], beta=0.1, denominator=PAIRS)
        for part in (slice(0, 2), slice(2, PAIRS))
    ]
    for total, *added in zip(jax.tree.leaves(whole), *map(jax.tree.leaves, parts), strict=True):
        np.testing.assert_allclose(sum(added), total, rtol=1e-12)


def test_where_pi_is_the_reference_the_loss_is_log_2_and_nobody_is_right() -> None:
    logprobs, _, mask = arrays(4)
    loss, metrics = preference_loss(logprobs, logprobs, mask, beta=0.1)
    assert float(loss) == pytest.approx(math.log(2))
    assert float(metrics["preference/accuracy"]) == 0.0


def test_a_margin_beyond_what_exp_can_hold_stays_finite() -> None:
    logprobs, reference, mask = arrays(5)
    mask[:] = True
    logprobs[:, 0] -= 1e5
    value, gradient = jax.value_and_grad(lambda values: preference_loss(values, reference, mask, beta=1.0)[0])(logprobs)
    assert np.isfinite(value) and np.isfinite(gradient).all() and np.abs(gradient).max() > 0.1
