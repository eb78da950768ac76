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
        outputs = inputs @ kernel.astype(inputs.dtype)  # [.., features]
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
            outputs = outputs + bias.astype(inputs.dtype)
        if self.has_variable("lora", "down"):
            down = self.get_variable("lora", "down").astype(inputs.dtype)  # [in_features, rank]
            up = self.get_variable("lora", "up").astype(inputs.dtype)  # [rank, features]
            outputs = outputs + (inputs @ down) @ up * (self.lora_alpha / down.shape[-1])
        return outputs


def rotary_angles(positions: Array, head_dim: int, theta: float, sections: tuple[int, int, int] | None) -> Array:
    """Rotation angle of each frequency pair.

    With M-RoPE (Qwen2-VL, arXiv 2409.12191, section 2.1) the first `sections[0]` pairs turn with time, the next
    with the row, the rest with the column; text has three equal positions, so it is plain rotary embedding.

    Args:
      positions: int32.  # [.., token, 3]
    Returns:
      float32 angles.  # [.., token, head_dim / 2]
    """
    frequencies = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)  # [head_dim / 2]
    if sections is None:
        axis_of_pair = jnp.zeros(head_dim // 2, jnp.int32)
    else:
        axis_of_pair = jnp.repeat(jnp.arange(3), jnp.array(sections), total_repeat_length=head_dim // 2)
    return positions.astype(jnp.float32)[..., axis_of_pair] * frequencies


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
    queries = queries.reshape(group, branch, token, kv_heads, heads // kv_heads, head_dim)
    wide = at_least_float32(queries.dtype)
    lowest = jnp.finfo(wide).min / 2
    scores = jnp.einsum("gktnrh,gksnh->gknrts", queries, keys).astype(wide)
    scores = jnp.where(mask[:, :, None, None], scores, lowest)  # [group, branch, kv_head, repeat, token, source]
    if prefix is not None:
        prefix_keys, prefix_values, prefix_valid = prefix
        prefix_scores = jnp.einsum("gktnrh,gpnh->gknrtp", queries, prefix_keys).astype(wide)
        prefix_scores = jnp.where(prefix_valid[:, None, None, None, None], prefix_scores, lowest)
        scores = jnp.concatenate([prefix_scores, scores], axis=-1)
    weights = jax.nn.softmax(scores * head_dim**-0.5, axis=-1).astype(queries.dtype)
    if prefix is None:
        mixed = jnp.einsum("gknrts,gksnh->gktnrh", weights, values)
    else:
        split = prefix_keys.shape[1]
        mixed = jnp.einsum("gknrtp,gpnh->gktnrh", weights[..., :split], prefix_values)
        mixed = mixed + jnp.einsum("gknrts,gksnh->gktnrh", weights[..., split:], values)
    return mixed.reshape(group, branch, token, heads * head_dim)
