"""Attention of the few tokens that decoding adds to a branch, to caches that lie as its matrix products read them.

The same as `attention.branch_attention`, which takes keys and values as the projections give them: with a prefix of
thousands of tokens and one new token, bringing the caches into order would cost more than the attention itself.
"""

import jax
import jax.numpy as jnp
import numpy as np

from regrpo_jax.models.inputs import PrefixCache, PrefixLayers
from regrpo_jax.models.layers import at_least_float32

Array = jax.Array


def prefix_layers(prefix: PrefixCache, *, layers_together: bool) -> PrefixLayers:
    """A prefix laid out for decoding.

    Args:
      layers_together: whether all layers are one run, see `PrefixLayers`.
    """
    count = len(prefix.keys)
    runs = [slice(count)] if layers_together else [slice(layer, layer + 1) for layer in range(count)]
    keys = tuple(prefix.keys[run].transpose(0, 1, 3, 4, 2) for run in runs)
    values = tuple(prefix.values[run].transpose(0, 1, 3, 2, 4) for run in runs)
    return PrefixLayers(keys, values, prefix.valid, prefix.last_tokens)


def cached_attention(
    queries: Array, keys: Array, values: Array, mask: Array, prefix: tuple[Array, Array, Array]
) -> Array:
    """Attention of every branch to `[prefix | its own tokens]`.

    Args:
      queries: # [group, branch, token, head, head_dim]
      keys: of the branch's own tokens.  # [group * branch, kv_head, head_dim, slot]
      values: # [group * branch, kv_head, slot, head_dim]
      mask: bool, which new token sees which slot.  # [group, branch, token, slot]
      prefix: keys [group, kv_head, head_dim, prefix], values [group, kv_head, prefix, head_dim], valid [group, prefix].
    Returns:
      # [group, branch, token, head * head_dim]
    """
    group, branch, token, heads, head_dim = queries.shape
    kv_heads = keys.shape[1]
    wide = at_least_float32(queries.dtype)
    lowest = np.finfo(wide).min / 2
    prefix_keys, prefix_values, prefix_valid = prefix
    queries = queries.reshape(group, branch, token, kv_heads, -1, head_dim) * head_dim**-0.5
    queries = queries.transpose(0, 1, 3, 4, 2, 5)  # [group, branch, kv_head, repeat, token, head_dim]

    def by_branch(array: Array) -> Array:
        return array.reshape(group * branch, kv_heads, -1, array.shape[-1])

    def by_group(array: Array) -> Array:
        return array.swapaxes(1, 2).reshape(group, kv_heads, -1, array.shape[-1])

    def from_group(array: Array) -> Array:
        split = array.reshape(group, kv_heads, branch, *queries.shape[3:5], -1)
        return split.swapaxes(1, 2)  # [group, branch, kv_head, repeat, token, ..]

    scores = jnp.einsum("rnqh,rnhs->rnqs", by_branch(queries), keys, preferred_element_type=wide)
    scores = scores.reshape(*queries.shape[:-1], -1)  # [group, branch, kv_head, repeat, token, slot]
    scores = jnp.where(mask[:, :, None, None], scores, lowest)
    prefix_scores = jnp.einsum("gnqh,gnhp->gnqp", by_group(queries), prefix_keys, preferred_element_type=wide)
    prefix_scores = jnp.where(prefix_valid[:, None, None, None, None], from_group(prefix_scores), lowest)
    highest = jnp.maximum(jnp.max(scores, -1, keepdims=True), jnp.max(prefix_scores, -1, keepdims=True))
    weights, prefix_weights = jnp.exp(scores - highest), jnp.exp(prefix_scores - highest)
    total = jnp.sum(weights, -1, keepdims=True) + jnp.sum(prefix_weights, -1, keepdims=True)
    weights, prefix_weights = weights.astype(values.dtype), prefix_weights.astype(values.dtype)
    mixed = jnp.einsum("rnqs,rnsh->rnqh", by_branch(weights), values).reshape(queries.shape)
    mixed += from_group(jnp.einsum("gnqp,gnph->gnqh", by_group(prefix_weights), prefix_values))
    mixed = (mixed / total.astype(mixed.dtype)).transpose(0, 1, 4, 2, 3, 5)
    return mixed.reshape(group, branch, token, heads * head_dim)  # from [group, branch, token, kv_head, repeat, ..]
