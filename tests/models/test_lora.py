"""Adapters: fresh ones change nothing, merged ones equal applied ones, only what is named gets one and learns."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.lora import ATTENTION_TARGETS, AdapterSettings, check_settings, init_adapter, merge_adapter
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.quantization import quantize_params

VariablesOf = Callable[..., dict[str, Any]]
BOTH = AdapterSettings(3, ("q_proj", "down_proj"), vision_rank=2, vision_targets=("qkv", "proj", "fc1", "fc2"))


def hidden_states(config: PolicyConfig, variables: dict[str, Any]) -> jax.Array:
    """Of eight fixed tokens, the third of which is an image.  # [1, token, hidden]"""
    tokens = np.arange(8, dtype=np.int32)[None]
    positions = np.repeat(tokens[..., None], 3, axis=-1)
    block = TokenBlock(tokens, np.ones_like(tokens), positions, np.where(tokens == 2, 0, -1).astype(np.int32))
    assert config.vision is not None
    pixels = np.random.default_rng(0).normal(size=(1, 4, config.vision.patch_dim)).astype(np.float32)
    places = np.array([[[0, 0], [0, 1], [1, 0], [1, 1]]], np.int32)
    one = np.ones((1, 4), np.int32)
    images = ImagePatches(pixels, one, places, one)
    block, images = jax.tree.map(jnp.asarray, (block, images))
    return policy_functions(config).run_prefix(variables, block, images)[0]


@functools.cache
def hidden_states_of(config: PolicyConfig) -> Callable[[dict[str, Any]], jax.Array]:
    return jax.jit(functools.partial(hidden_states, config))


def flat(tree: dict[str, Any]) -> dict[str, Any]:
    return traverse_util.flatten_dict(tree, sep="/")


@pytest.fixture
def params(small_config: PolicyConfig, random_variables: VariablesOf) -> dict[str, Any]:
    return random_variables(small_config, 1)["params"]


@pytest.fixture
def adapter(params: dict[str, Any]) -> dict[str, Any]:
    """On decoder and tower, with no zero in it."""
    random = np.random.default_rng(3)
    fresh = init_adapter(jax.random.key(0), params, BOTH)
    return jax.tree.map(lambda array: array + random.normal(scale=0.3, size=array.shape).astype("f4"), fresh)


def test_a_fresh_adapter_changes_nothing(small_config: PolicyConfig, params: dict[str, Any]) -> None:
    adapter = init_adapter(jax.random.key(0), params, BOTH)
    run = hidden_states_of(small_config)
    np.testing.assert_array_equal(run({"params": params, "lora": adapter}), run({"params": params}))
    for path, array in flat(adapter).items():
        assert np.any(array) == path.endswith("/down"), path


def test_down_is_within_the_bound_of_peft_and_differs_by_layer_and_key(
    small_config: PolicyConfig, params: dict[str, Any]
) -> None:
    first, second = (init_adapter(jax.random.key(seed), params, AdapterSettings(3)) for seed in (0, 1))
    down = np.asarray(first["layers"]["q_proj"]["down"])  # [layer, in_features, rank]
    assert np.max(np.abs(down)) <= small_config.hidden_size**-0.5
    assert np.all(down[0] != down[1])
    assert np.all(down != second["layers"]["q_proj"]["down"])
    assert np.all(down != first["layers"]["k_proj"]["down"])


@pytest.mark.parametrize("part", ["layers", "vision"])
def test_each_part_of_an_adapter_acts_and_equals_its_merged_weights(
    small_config: PolicyConfig, params: dict[str, Any], adapter: dict[str, Any], part: str
) -> None:
    run = hidden_states_of(small_config)
    lora = {part: adapter[part]}
    applied = run({"params": params, "lora": lora})
    merged = merge_adapter(params, lora, small_config)
    np.testing.assert_allclose(run({"params": merged}), applied, atol=2e-5)
    assert np.max(np.abs(run({"params": params}) - applied)) > 0.1
    assert jax.tree.map(np.shape, merged) == jax.tree.map(np.shape, params)


def test_merging_into_quantised_kernels_gives_dense_ones(
    small_config: PolicyConfig, params: dict[str, Any], adapter: dict[str, Any]
) -> None:
    run = hidden_states_of(small_config)
    quantised = quantize_params(params, "nf4")
    merged = merge_adapter(quantised, adapter, small_config)
    np.testing.assert_allclose(run({"params": merged}), run({"params": quantised, "lora": adapter}), atol=2e-5)
    assert all(isinstance(flat(merged)[f"{path.rsplit('/', 1)[0]}/kernel"], jax.Array) for path in flat(adapter))


def test_only_named_projections_get_an_adapter(small_config: PolicyConfig, params: dict[str, Any]) -> None:
    attention = init_adapter(jax.random.key(0), params, AdapterSettings(4))
    assert set(attention) == {"layers"}
    assert set(attention["layers"]) == set(ATTENTION_TARGETS)
    settings = AdapterSettings(4, ("up_proj",), vision_rank=2, vision_targets=("qkv",))
    layers, hidden, inner = small_config.num_layers, small_config.hidden_size, small_config.intermediate_size
    assert small_config.vision is not None
    depth, width = small_config.vision.depth, small_config.vision.embed_dim
    assert jax.tree.map(np.shape, init_adapter(jax.random.key(0), params, settings)) == {
        "layers": {"up_proj": {"down": (layers, hidden, 4), "up": (layers, 4, inner)}},
        "vision": {"blocks": {"qkv": {"down": (depth, width, 2), "up": (depth, 2, 3 * width)}}},
    }


def test_layers_before_the_last_stay_exactly_zero_under_adam_with_weight_decay(
    small_config: PolicyConfig, params: dict[str, Any]
) -> None:
    adapter = init_adapter(jax.random.key(0), params, AdapterSettings(2, last_layers=1, vision_rank=2))
    optimizer = optax.adamw(0.1, weight_decay=0.1)

    def loss(adapter: dict[str, Any]) -> jax.Array:
        return jnp.mean(jnp.sin(hidden_states(small_config, {"params": params, "lora": adapter})))

    @jax.jit
    def update(adapter: dict[str, Any], state: Any) -> tuple[dict[str, Any], Any]:
        changes, state = optimizer.update(jax.grad(loss)(adapter), state, adapter)
        return optax.apply_updates(adapter, changes), state

    trained, state = adapter, optimizer.init(adapter)
    for _ in range(4):
        trained, state = update(trained, state)
    for path, array in flat(trained).items():
        first, last = np.asarray(array)
        if path.startswith("layers/"):
            assert not np.any(first), path
        else:
            assert np.all(first != flat(adapter)[path][0]), path  # the tower learns as a whole
        assert np.all(last != flat(adapter)[path][1]), path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0}, "config.lora.rank is 0; it must be at least 1"),
        ({"rank": -1}, "config.lora.rank is -1; it must be at least 1"),
        ({"last_layers": 3}, "config.lora.last_layers is 3; the decoder has 2 layers"),
        ({"targets": ("query",)}, "config.lora.targets names query; this policy has down_proj, gate_proj, k_proj"),
        ({"targets": ("q_proj", "o_porj")}, "config.lora.targets names o_porj; this policy has"),
        ({"targets": ("qkv",)}, "config.lora.targets names qkv; this policy has"),
        ({"targets": ()}, "config.lora.targets is empty; this policy has"),
        ({"vision_rank": 2, "vision_targets": ("gate_proj",)}, "vision_targets names gate_proj; this policy has fc1"),
        ({"vision_rank": 2, "vision_targets": ()}, "config.lora.vision_targets is empty; this policy has fc1, fc2"),
    ],
)
def test_settings_that_the_policy_cannot_follow_are_named(
    params: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as error:
        check_settings(params, AdapterSettings(**{"rank": 2} | changes))
    assert message in str(error.value)


def test_an_adapter_on_the_tower_needs_a_tower(params: dict[str, Any]) -> None:
    text = {name: tree for name, tree in params.items() if name != "vision"}
    with pytest.raises(UserError, match="config.lora.vision_rank is set, but this policy has no vision tower"):
        check_settings(text, AdapterSettings(2, vision_rank=2))
