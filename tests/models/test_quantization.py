"""Base weights in few bits: how far off, how small, and that under an adapter they are never touched."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import qwix
from flax import traverse_util

from regrpo_jax.models.config import PolicyConfig, VisionConfig
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.lora import AdapterSettings, init_adapter
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.quantization import Quantization, dequantized, quantize, quantize_params

KINDS: tuple[Quantization, ...] = ("int8", "nf4")
# Half of the widest gap between neighbouring values, in units of the largest magnitude of a tile: int8 steps by 1/127;
# nf4's widest gap is from -1 to -0.6962 (QLoRA, arXiv 2305.14314, appendix E).
HALF_GAP = {"int8": 0.5 / 127, "nf4": 0.5 * (1 - 0.6961928)}
CONFIG = PolicyConfig(
    vocab_size=40,
    hidden_size=64,
    intermediate_size=128,
    num_layers=3,
    num_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    vision=VisionConfig(depth=2, embed_dim=64, num_heads=2, intermediate_size=128, patch_size=2),
    remat="full",
)


@pytest.fixture(scope="module")
def params(random_variables: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """Kernels of the blocks keep activations of one size, so that what quantising changes is seen in the logits."""
    tree = random_variables(CONFIG, 0)["params"]
    return jax.tree.map(lambda array: array / (0.3 * array.shape[-2] ** 0.5) if array.ndim > 2 else array, tree)


def logits(variables: dict[str, Any]) -> jax.Array:
    """Of a row of twelve tokens, the second of which is an image.  # [1, token, vocab]"""
    functions = policy_functions(CONFIG)
    tokens = jnp.arange(12)[None]
    block = TokenBlock(
        tokens, jnp.ones_like(tokens), jnp.repeat(tokens[..., None], 3, -1), jnp.where(tokens == 1, 0, -1)
    )
    assert CONFIG.vision is not None
    pixels = jax.random.normal(jax.random.key(1), (1, 4, CONFIG.vision.patch_dim))
    one = jnp.ones((1, 4), jnp.int32)
    images = ImagePatches(pixels, one, jnp.array([[[0, 0], [0, 1], [1, 0], [1, 1]]]), one)
    return functions.run_prefix(variables, block, images)[0] @ functions.head(variables).T


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("in_features", [64, 128, 24])
def test_a_kernel_is_off_by_at_most_half_a_gap_of_its_tile(kind: Quantization, in_features: int) -> None:
    kernel = jax.random.normal(jax.random.key(0), (2, in_features, 5))  # [layer, in_features, out_features]
    kernel = kernel * jnp.array([1.0, 100.0])[:, None, None]  # layers must not share a scale
    tile = 64 if kind == "nf4" and in_features % 64 == 0 else in_features
    largest = jnp.max(jnp.abs(kernel.reshape(2, -1, tile, 5)), axis=2, keepdims=True)  # [layer, tile, 1, out_features]
    error = jnp.abs(dequantized(quantize(kernel, kind)) - kernel).reshape(2, -1, tile, 5)
    assert jnp.all(error <= 1.01 * HALF_GAP[kind] * largest)
    assert jnp.max(error / largest) > 0.5 * HALF_GAP[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_quantised_as_if_it_were_alone(kind: Quantization) -> None:
    kernel = jax.random.normal(jax.random.key(0), (3, 64, 5))
    alone = quantize(kernel[1], kind)
    jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda array: array[1], quantize(kernel, kind)), alone)


def test_kernels_of_blocks_are_quantised_and_nothing_else(params: dict[str, Any]) -> None:
    kept = traverse_util.flatten_dict(quantize_params(params, "int8"), sep="/")
    quantised = {path for path, leaf in kept.items() if isinstance(leaf, qwix.QArray)}
    decoder = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    tower = ("qkv", "proj", "fc1", "fc2")
    assert quantised == {f"layers/{n}/kernel" for n in decoder} | {f"vision/blocks/{n}/kernel" for n in tower}
    for path, array in traverse_util.flatten_dict(params, sep="/").items():
        assert kept[path].shape == array.shape
        assert path in quantised or kept[path] is array


@pytest.mark.parametrize(("kind", "dtype", "bits"), [("int8", jnp.int8, 8), ("nf4", jnp.uint4, 4)])
def test_values_take_a_quarter_or_an_eighth_of_float32(kind: Quantization, dtype: Any, bits: int) -> None:
    kernel = jnp.ones((2, 1024, 512))
    stored = quantize(kernel, kind)
    assert isinstance(stored, qwix.QArray) and stored.qvalue.dtype == dtype
    values, scales = (array.size * jnp.iinfo(dtype).bits if array.dtype == dtype else array.nbytes * 8
                      for array in (stored.qvalue, stored.scale))  # fmt: skip
    assert values == kernel.size * bits
    assert scales <= kernel.size * (0.5 if kind == "nf4" else 0.04)  # bits: one float32 per 64 inputs, or per output


# A random weight is off by 0.6 % in int8 and by 9 % in nf4; ten products of such weights add their errors in squares.
@pytest.mark.parametrize(("kind", "tolerance"), [("int8", 0.03), ("nf4", 0.35)])
def test_logits_stay_close_to_those_of_dense_weights(
    params: dict[str, Any], kind: Quantization, tolerance: float
) -> None:
    run = jax.jit(logits)
    dense, quantised = run({"params": params}), run({"params": quantize_params(params, kind)})
    difference = jnp.linalg.norm(quantised - dense) / jnp.linalg.norm(dense)
    assert 0 < difference < tolerance


@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_learns_over_weights_that_stay_as_they_are(params: dict[str, Any], kind: Quantization) -> None:
    frozen = quantize_params(params, kind)
    settings = AdapterSettings(2, vision_rank=2, vision_targets=("qkv", "fc2"))
    adapter = init_adapter(jax.random.key(0), params, settings)
    optimizer = optax.adam(3e-2)

    def loss(adapter: dict[str, Any], frozen: dict[str, Any]) -> jax.Array:
        logprobs = jax.nn.log_softmax(logits({"params": frozen, "lora": adapter}))
        return -jnp.mean(logprobs[..., 7])

    @jax.jit
    def update(adapter: dict[str, Any], state: Any, frozen: dict[str, Any]) -> tuple[dict[str, Any], Any, jax.Array]:
        value, gradient = jax.value_and_grad(loss)(adapter, frozen)
        changes, state = optimizer.update(gradient, state, adapter)
        return optax.apply_updates(adapter, changes), state, value

    before = jax.tree.map(np.array, frozen)
    trained, state, values = adapter, optimizer.init(adapter), []
    for _ in range(3):
        trained, state, value = update(trained, state, frozen)
        values.append(float(value))
    assert values[2] < values[1] < values[0]
    assert all(np.any(a != b) for a, b in zip(jax.tree.leaves(adapter), jax.tree.leaves(trained), strict=True))
    jax.tree.map(np.testing.assert_array_equal, frozen, before)
