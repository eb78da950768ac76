"""What is counted against what XLA counts of its own programs, and laws that any count obeys.

XLA counts the body of a loop once, so that a policy of three layers is compared with the count of one layer; and it
counts element-wise operations too, which are one or two per cent here.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.models.config import PolicyConfig, RematPolicy, VisionConfig
from regrpo_jax.models.decode_attention import prefix_layers
from regrpo_jax.models.flops import (
    Trained,
    Work,
    branch,
    forward_flops,
    pictures,
    recomputed_flops,
    sequence,
    training_flops,
)
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.logprobs import token_logprobs
from regrpo_jax.models.lora import AdapterSettings, init_adapter
from regrpo_jax.models.policy import empty_branch_cache, policy_functions

CONFIG = PolicyConfig(
    vocab_size=1000,
    hidden_size=192,
    intermediate_size=448,
    num_layers=3,
    num_heads=4,
    num_key_value_heads=2,
    head_dim=48,
    remat="none",
)
TOWER = VisionConfig(depth=3, embed_dim=96, num_heads=2, intermediate_size=224)
PREFIX, BRANCHES, LENGTH = 96, 3, 24
CLOSE = 0.03


def counted_by_xla(function: Callable[..., Any], *inputs: Any) -> float:
    cost = jax.jit(function).lower(*inputs).compile().cost_analysis()
    return float(cost["flops"])


def block(*shape: int) -> TokenBlock:
    ones = jnp.ones(shape, jnp.int32)
    positions = jnp.broadcast_to(jnp.arange(shape[-1])[:, None], (*shape, 3))
    return TokenBlock(ones, ones, positions, -ones)


@pytest.mark.parametrize(("remat", "lora"), [("none", False), ("full", True), ("dots", False)])
def test_an_update_has_as_many_as_xla_counts(remat: RematPolicy, lora: bool) -> None:
    config = dataclasses.replace(CONFIG, remat=remat)
    one_layer = dataclasses.replace(config, num_layers=1)
    functions = policy_functions(config)
    weights = jax.eval_shape(functions.init, jax.random.key(0))
    prefix, branches = block(1, PREFIX), block(1, BRANCHES, LENGTH)

    def loss(trainable: Any, frozen: Any, prefix: TokenBlock, branches: TokenBlock) -> jax.Array:
        variables = {**frozen, **trainable}
        hidden, cache = functions.run_prefix(variables, prefix, None)
        outputs = functions.run_branches(variables, branches, cache)
        scored = branches.tokens > 0
        head = functions.head(variables)
        return jnp.sum(hidden) + jnp.sum(token_logprobs(outputs, head, branches.tokens, scored, chunk_size=scored.size))

    trainable, frozen, trained = weights, {}, Trained()
    if lora:
        settings = AdapterSettings(rank=8)
        adapter = jax.eval_shape(lambda params: init_adapter(jax.random.key(0), params, settings), weights["params"])
        trainable, frozen = {"lora": adapter}, weights
        numbers = sum(int(np.prod(array.shape)) for array in jax.tree.leaves(adapter))
        trained = Trained(weights=False, adapter=numbers // config.num_layers)
    visited = Work(PREFIX, PREFIX**2) + Work(
        BRANCHES * LENGTH, BRANCHES * LENGTH * (PREFIX + LENGTH), BRANCHES * LENGTH
    )  # with the pairs that the mask removes
    model = training_flops(forward_flops(one_layer, visited, trained), trained)
    again = recomputed_flops(one_layer, visited, trained)
    measured = counted_by_xla(jax.grad(loss), trainable, frozen, prefix, branches)
    assert measured == pytest.approx(model + again, rel=CLOSE)
    assert again > CLOSE * model  # so that a count without it is not close


@pytest.mark.parametrize("gated", [False, True])
def test_pictures_have_as_many_as_xla_counts(gated: bool) -> None:
    config = dataclasses.replace(CONFIG, vision=dataclasses.replace(TOWER, gated=gated))
    assert config.vision is not None
    functions = policy_functions(config)
    weights = jax.eval_shape(functions.init, jax.random.key(0))
    patches = 64
    images = ImagePatches(
        jnp.zeros((1, patches, config.vision.patch_dim)),
        jnp.ones((1, patches), jnp.int32),
        jnp.zeros((1, patches, 2), jnp.int32),
        jnp.ones((1, patches), jnp.int32),
    )
    one_block = dataclasses.replace(config, vision=dataclasses.replace(config.vision, depth=1))
    found = forward_flops(one_block, pictures([patches])).total
    assert counted_by_xla(functions.encode_images, weights, images) == pytest.approx(found, rel=CLOSE)


def test_a_decoded_token_has_as_many_as_xla_counts() -> None:
    functions = policy_functions(CONFIG)
    weights = jax.eval_shape(functions.init, jax.random.key(0))
    slots = 32

    def decode(variables: Any, prefix: TokenBlock, token: TokenBlock) -> jax.Array:
        layers = prefix_layers(functions.run_prefix(variables, prefix, None)[1], layers_together=False)
        own = functions.layer_weights(variables, layers.runs)
        cache = empty_branch_cache(layers, BRANCHES, slots)
        hidden, _ = functions.decode_branches(variables, token, layers, cache, own)
        return hidden @ functions.head(variables).T

    def prefill(variables: Any, prefix: TokenBlock) -> Any:
        return prefix_layers(functions.run_prefix(variables, prefix, None)[1], layers_together=False)

    inputs = (weights, block(1, PREFIX))
    measured = counted_by_xla(decode, *inputs, block(1, BRANCHES, 1)) - counted_by_xla(prefill, *inputs)
    drawn = Work(BRANCHES, BRANCHES * (PREFIX + slots), BRANCHES)
    assert measured == pytest.approx(forward_flops(CONFIG, drawn).total, rel=0.06)


tokens = st.integers(0, 5000)
works = st.builds(Work, tokens, tokens, tokens, tokens.map(lambda patches: 4 * patches), tokens, tokens)
policies = st.builds(
    lambda vision, mixing: dataclasses.replace(CONFIG, vision=vision, token_mixing_width=mixing),
    st.none() | st.builds(lambda gated: dataclasses.replace(TOWER, gated=gated), st.booleans()),
    st.integers(0, 3),
)
parts = st.builds(Trained, st.booleans(), st.integers(0, 10_000), st.integers(0, 10_000))


@given(policies, works, works, parts)
def test_works_add_up(config: PolicyConfig, first: Work, second: Work, trained: Trained) -> None:
    def counts(work: Work) -> np.ndarray:
        forward = forward_flops(config, work, trained)
        again = recomputed_flops(dataclasses.replace(config, remat="full"), work, trained)
        return np.array([forward.total, training_flops(forward, trained), again], object)

    assert list(counts(first) + counts(second)) == list(counts(first + second))


@given(tokens, tokens)
def test_a_sequence_is_its_prefix_and_its_branch(prefix: int, length: int) -> None:
    assert sequence(prefix) + branch(length, prefix=prefix) == sequence(prefix + length)


@given(st.integers(0, 200), st.integers(0, 40))
def test_a_branch_is_its_tokens_one_by_one(prefix: int, length: int) -> None:
    drawn = (branch(1, prefix=prefix + before, scored=1) for before in range(length))
    assert sum(drawn, Work()) == branch(length, prefix=prefix, scored=length)


@given(policies, tokens, st.lists(tokens, min_size=1, max_size=8))
def test_a_group_saves_all_but_one_of_its_prefixes(config: PolicyConfig, prefix: int, lengths: list[int]) -> None:
    group = sum((branch(length, prefix=prefix) for length in lengths), sequence(prefix))
    apart = sum((sequence(prefix + length) for length in lengths), Work())
    saved = forward_flops(config, apart).total - forward_flops(config, group).total
    assert saved == (len(lengths) - 1) * forward_flops(config, sequence(prefix)).total


@given(policies, works, parts)
def test_training_costs_one_to_three_forward_passes(config: PolicyConfig, work: Work, trained: Trained) -> None:
    forward = forward_flops(config, work, trained)
    assert forward.total <= training_flops(forward, trained) <= 3 * forward.total
    assert training_flops(forward_flops(config, work), Trained()) >= training_flops(
        forward_flops(config, work), Trained(weights=False)
    )


def test_windows_leave_pairs_out() -> None:
    windowed = dataclasses.replace(TOWER, window_size=112, full_attention_blocks=(2,))
    work = pictures([256], [64] * 4)
    every = forward_flops(dataclasses.replace(CONFIG, vision=TOWER), work).tower_attention
    few = forward_flops(dataclasses.replace(CONFIG, vision=windowed), work).tower_attention
    assert few == every // 3 + 2 * every // 3 // 4
