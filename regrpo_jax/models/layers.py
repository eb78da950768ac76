"""What both towers are made of: norms, rotary embedding, projections with an optional adapter."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from regrpo_jax.models.config import Llama3Rope, RematPolicy
from regrpo_jax.models.matmul import matmul
from regrpo_jax.models.play_sharding import product as product_in_play
from regrpo_jax.models.quantization import dequantized
from regrpo_jax.models.sharding import GATHERED, gathers, whole

Array = jax.Array
Initializer = Callable[..., Array]

fan_in_normal: Initializer = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """float32 for half precision, the dtype itself otherwise (float64 stays float64 in equivalence tests)."""
    return jnp.promote_types(dtype, jnp.float32)


def product(inputs: Array, weight: Array, shape: tuple[int, int], path: str) -> Array:
    """inputs @ weight, of which a device may have a part; `path` and `shape` are those of the whole weight."""
    outputs = product_in_play(inputs, weight, path)
    return matmul(inputs, whole(weight, shape, path)) if outputs is None else outputs


class RMSNorm(nn.Module):
    """y = x / sqrt(mean(x^2) + eps) * scale, computed in at least float32."""

    epsilon: float
    param_dtype: str

    @nn.compact
    def __call__(self, hidden: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (hidden.shape[-1],), self.param_dtype)
        wide = hidden.astype(at_least_float32(hidden.dtype))
        normed = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + self.epsilon)
        return (normed * scale).astype(hidden.dtype)


class LayerNorm(nn.Module):
    """LayerNorm in at least float32, as the reference implementation computes it."""

    epsilon: float
    param_dtype: str

    @nn.compact
    def __call__(self, hidden: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (hidden.shape[-1],), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (hidden.shape[-1],), self.param_dtype)
        wide = hidden.astype(at_least_float32(hidden.dtype))
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + self.epsilon)
        return (normed * scale + bias).astype(hidden.dtype)


def rematerialised(module: type[nn.Module], policy: RematPolicy) -> type[nn.Module]:
    """The module with its backward pass recomputing what `PolicyConfig.remat` says."""
    if policy == "none" and not gathers():
        return module
    kept = {
        "full": None,
        "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
        # The weights of other devices are gathered again: kept, they would be those of all layers.
        "none": jax.checkpoint_policies.save_anything_except_these_names(GATHERED),
    }
    return nn.remat(module, prevent_cse=False, policy=kept[policy])


def parameter(module: nn.Module, name: str, init: Initializer, shape: tuple[int, ...], dtype: str) -> Any:
    """As `module.param`, but that a device may have a part of it, as `sharding` splits it, or an array in few bits."""
    if module.has_variable("params", name):
        return module.get_variable("params", name)
    return module.param(name, init, shape, dtype)


class Projection(nn.Module):
    """y = x W + b, plus the adapter's x A B * alpha / rank when the `lora` collection holds one for this layer.

    The adapter's arrays are not created here but by `lora.init_adapter`: a policy applied without the collection
    is the frozen reference. The kernel may be quantised (`quantization.quantize`). Dropout, of the adapter's inputs
    alone, happens only where a "dropout" key is given.

    Attributes:
      stack: names before this layer's own, where the layer is applied by itself, as in decoding.
    """

    features: int
    use_bias: bool
    param_dtype: str
    lora_alpha: float
    lora_dropout: float
    kernel_init: Initializer = fan_in_normal
    stack: tuple[str, ...] = ()

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        shape, path = (inputs.shape[-1], self.features), "/".join((*self.stack, *self.path))
        kernel = dequantized(parameter(self, "kernel", self.kernel_init, shape, self.param_dtype))
        outputs = product(inputs, kernel.astype(inputs.dtype), shape, f"{path}/kernel")  # [.., features]
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
            outputs = outputs + bias.astype(inputs.dtype)
        if self.has_variable("lora", "down"):
            down: Array = self.get_variable("lora", "down").astype(inputs.dtype)  # [in_features, rank]
            up: Array = self.get_variable("lora", "up").astype(inputs.dtype)  # [rank, features]
            rank = max(down.shape[1], up.shape[0])  # one of them may be split by it
            if self.lora_dropout and self.has_rng("dropout"):
                inputs = nn.Dropout(self.lora_dropout, deterministic=False)(inputs)
            inner = product(inputs, down, (inputs.shape[-1], rank), f"{path}/down")  # [.., rank]
            outputs = outputs + product(inner, up, (rank, self.features), f"{path}/up") * (self.lora_alpha / rank)
        return outputs


def rotary_angles(positions: Array, theta: float, axes: tuple[int, ...], scaling: Llama3Rope | None = None) -> Array:
    """Rotation angle of each frequency pair: pair i turns by position[axes[i]] * theta^(-i / pairs).

    M-RoPE (Qwen2-VL, arXiv 2409.12191, section 2.1) gives some pairs to time, some to rows, some to columns; text has
    three equal positions, for which it is plain rotary embedding.

    Args:
      positions: int32 (time, row, column).  # [.., token, 3]
      axes: which of the three positions each pair turns with, of length head_dim / 2.
      scaling: how the frequencies are made slower.
    Returns:
      float32 angles.  # [.., token, head_dim / 2]
    """
    pairs = len(axes)
    frequencies = theta ** (-jnp.arange(pairs, dtype=jnp.float32) / pairs)  # [head_dim / 2]
    if scaling is not None:
        frequencies = _slower(frequencies, scaling)
    return positions.astype(jnp.float32)[..., jnp.array(axes)] * frequencies


def _slower(frequencies: Array, scaling: Llama3Rope) -> Array:
    """f / factor where the original context holds few turns, f where it holds many, a straight line in between.

    With t = original_length f / 2 pi turns in the original context and s = (t - low) / (high - low) within [0, 1], the
    frequency is (1 - s) f / factor + s f.
    """
    turns = scaling.original_length * frequencies / (2 * jnp.pi)  # [head_dim / 2]
    span = scaling.high_freq_factor - scaling.low_freq_factor
    kept = jnp.clip((turns - scaling.low_freq_factor) / span, 0, 1)
    return frequencies * ((1 - kept) / scaling.factor + kept)


def rotate(vectors: Array, angles: Array) -> Array:
    """Applies rotary embedding in the half-split layout of Hugging Face.

    Args:
      vectors: # [.., token, head, head_dim]
      angles: # [.., token, head_dim / 2]
    """
    wide = vectors.astype(at_least_float32(vectors.dtype))
    cosine, sine = jnp.cos(angles)[..., None, :], jnp.sin(angles)[..., None, :]
    first, second = jnp.split(wide, 2, axis=-1)
    rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return rotated.astype(vectors.dtype)
