"""Building blocks of the decoder: norm, rotary embedding, projections with an optional adapter, attention."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

Array = jax.Array
Initializer = Callable[..., Array]

fan_in_normal: Initializer = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """float32 for half precision, the dtype itself otherwise (float64 stays float64 in equivalence tests)."""
    return jnp.promote_types(dtype, jnp.float32)


def matmul(inputs: Array, kernel: Array) -> Array:
    """inputs @ kernel over flattened leading axes: the CPU's gradient of the many-axis form is three times slower.

    Args:
      inputs: # [.., in_features]
      kernel: # [in_features, out_features]
    """
    flat = inputs.reshape(-1, inputs.shape[-1]) @ kernel.astype(inputs.dtype)
    return flat.reshape(*inputs.shape[:-1], kernel.shape[-1])


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


class Projection(nn.Module):
    """y = x W + b, plus the adapter's x A B * alpha / rank when the `lora` collection holds one for this layer.

    The adapter's arrays are not created here but by `lora.init_adapter`: a policy applied without the collection
    is the frozen reference.
    """

    features: int
    use_bias: bool
    param_dtype: str
    lora_alpha: float
    kernel_init: Initializer = fan_in_normal

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        kernel = self.param("kernel", self.kernel_init, (inputs.shape[-1], self.features), self.param_dtype)
        outputs = matmul(inputs, kernel)  # [.., features]
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
            outputs = outputs + bias.astype(inputs.dtype)
        if self.has_variable("lora", "down"):
            down: Array = self.get_variable("lora", "down")  # [in_features, rank]
            up: Array = self.get_variable("lora", "up")  # [rank, features]
            outputs = outputs + matmul(matmul(inputs, down), up) * (self.lora_alpha / down.shape[-1])
        return outputs


def rotary_angles(positions: Array, theta: float, axes: tuple[int, ...]) -> Array:
    """Rotation angle of each frequency pair: pair i turns by position[axes[i]] * theta^(-i / pairs).

    M-RoPE (Qwen2-VL, arXiv 2409.12191, section 2.1) gives some pairs to time, some to rows, some to columns; text has
    three equal positions, for which it is plain rotary embedding.

    Args:
      positions: int32 (time, row, column).  # [.., token, 3]
      axes: which of the three positions each pair turns with, of length head_dim / 2.
    Returns:
      float32 angles.  # [.., token, head_dim / 2]
    """
    pairs = len(axes)
    frequencies = theta ** (-jnp.arange(pairs, dtype=jnp.float32) / pairs)  # [head_dim / 2]
    return positions.astype(jnp.float32)[..., jnp.array(axes)] * frequencies


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


def grouped_query_attention(
    queries: Array,
    keys: Array,
    values: Array,
    mask: Array,
    prefix: tuple[Array, Array, Array] | None,
) -> Array:
    """Attention of every branch to `[prefix | its own tokens]`, without copying the prefix per branch.

    Args:
      queries: # [group, branch, token, head, head_dim]
      keys: own keys.  # [group, branch, source, kv_head, head_dim]
      values: own values.  # [group, branch, source, kv_head, head_dim]
      mask: bool, which own token sees which.  # [group, branch, token, source]
      prefix: keys and values [group, prefix, kv_head, head_dim] and valid [group, prefix], or None.
    Returns:
      # [group, branch, token, head * head_dim]
    """
    group, branch, token, heads, head_dim = queries.shape
    kv_heads = keys.shape[3]
    wide = at_least_float32(queries.dtype)
    lowest = jnp.finfo(wide).min / 2
    # Heads in front and (repeat, token) together, so that no [token, source] array is ever transposed.
    queries = queries.reshape(group, branch, token, kv_heads, heads // kv_heads, head_dim) * head_dim**-0.5
    queries = queries.transpose(0, 3, 1, 4, 2, 5)  # [group, kv_head, branch, repeat, token, head_dim]
    by_branch = queries.reshape(group, kv_heads, branch, -1, head_dim)
    keys, values = keys.transpose(0, 3, 1, 2, 4), values.transpose(0, 3, 1, 2, 4)
    scores = jnp.einsum("gnkqh,gnksh->gnkqs", by_branch, keys).astype(wide)
    scores = scores.reshape(*queries.shape[:-1], -1)  # [group, kv_head, branch, repeat, token, source]
    scores = jnp.where(mask[:, None, :, None], scores, lowest)
    highest = jnp.max(scores, axis=-1, keepdims=True)
    if prefix is not None:
        prefix_keys, prefix_values, prefix_valid = prefix
        by_group = queries.reshape(group, kv_heads, -1, head_dim)
        prefix_keys, prefix_values = prefix_keys.transpose(0, 2, 1, 3), prefix_values.transpose(0, 2, 1, 3)
        prefix_scores = jnp.einsum("gnqh,gnph->gnqp", by_group, prefix_keys).astype(wide)
        prefix_scores = prefix_scores.reshape(*queries.shape[:-1], -1)  # [.., token, prefix]
        prefix_scores = jnp.where(prefix_valid[:, None, None, None, None], prefix_scores, lowest)
        highest = jnp.maximum(highest, jnp.max(prefix_scores, axis=-1, keepdims=True))
    highest = jax.lax.stop_gradient(highest)
    weights = jnp.exp(scores - highest)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(values.dtype).reshape(*by_branch.shape[:-1], -1)
    mixed = jnp.einsum("gnkqs,gnksh->gnkqh", weights, values).reshape(queries.shape)
    if prefix is not None:
        prefix_weights = jnp.exp(prefix_scores - highest)
        total = total + jnp.sum(prefix_weights, axis=-1, keepdims=True)
        prefix_weights = prefix_weights.astype(values.dtype).reshape(*by_group.shape[:-1], -1)
        mixed = mixed + jnp.einsum("gnqp,gnph->gnqh", prefix_weights, prefix_values).reshape(queries.shape)
    mixed = (mixed / total.astype(mixed.dtype)).transpose(
        0, 2, 4, 1, 3, 5
    )  # [group, branch, token, kv_head, repeat, ..]
    return mixed.reshape(group, branch, token, heads * head_dim)
