"""Attention in the two shapes a policy needs: a sequence to itself, and branches to `[prefix | themselves]`.

A sequence may be long, so it has a choice of back-ends that all compute the same; `xla` is the reference. Branches are
short, and what they share must not be copied, so they have one form.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from regrpo_jax.models.config import AttentionBackend
from regrpo_jax.models.layers import at_least_float32
from regrpo_jax.models.play_sharding import row_axes
from regrpo_jax.models.sharding import DATA_AXIS, MODEL_AXIS

Array = jax.Array

QUERY_CHUNK = 1024  # queries whose scores exist at once in the reference
CAUSAL_BLOCK = 256  # of them, in a sequence that is no longer, those that meet the same keys
SPLASH_BLOCK = 128  # splash attention takes heads and sequences in multiples of this


def self_attention(
    queries: Array, keys: Array, values: Array, segment_ids: Array, *, causal: bool, backend: AttentionBackend
) -> Array:
    """softmax(q k / sqrt(head_dim)) v, every token to the tokens of its own segment.

    Padding is a segment like any other, so no softmax is ever empty.

    Args:
      queries: # [row, token, head, head_dim]
      keys: # [row, token, kv_head, head_dim]
      values: # [row, token, kv_head, head_dim]
      segment_ids: int32.  # [row, token]
      causal: whether a token sees only tokens before it and itself.
      backend: "xla" anywhere; "cudnn" on a GPU in half precision; "splash" (Pallas) on a TPU.
    Returns:
      # [row, token, head * head_dim]
    """
    fused = {"cudnn": _cudnn, "splash": _splash}
    attend = _over_heads(fused[backend]) if backend in fused else _xla
    mixed = attend(queries, keys, values, segment_ids, causal)
    return mixed.reshape(*queries.shape[:2], -1)


def _over_heads(attend: Callable[..., Array]) -> Callable[..., Array]:
    """A kernel that the compiler cannot split, on each device's heads, and in play, outside of updates, on its rows."""
    mesh = jax.sharding.get_abstract_mesh()
    free = {name for name in mesh.axis_names if name not in mesh.manual_axes}
    if math.prod(mesh.shape[name] for name in free) == 1:
        return attend

    def on_own_part(queries: Array, keys: Array, values: Array, segment_ids: Array, causal: bool) -> Array:
        rows = row_axes(len(queries), mesh) if DATA_AXIS in free else ()
        heads = MODEL_AXIS if MODEL_AXIS in free else None
        of_heads = P(rows or None, None, heads)
        split = jax.shard_map(
            functools.partial(attend, causal=causal),
            in_specs=(of_heads, of_heads, of_heads, P(rows or None)),
            out_specs=of_heads,
            axis_names=free,
            check_vma=False,
        )
        return split(queries, keys, values, segment_ids)

    return on_own_part


def best_backend(dtype: str, platform: str) -> AttentionBackend:
    """The fastest back-end of devices of a platform ("tpu", "gpu", "cpu"), for activations of `dtype`."""
    if platform == "gpu" and dtype in ("bfloat16", "float16"):
        return "cudnn"
    return "splash" if platform == "tpu" else "xla"


def _xla(queries: Array, keys: Array, values: Array, segment_ids: Array, causal: bool) -> Array:
    """The reference: scores of `QUERY_CHUNK` queries at a time, recomputed in the backward pass."""
    if causal and queries.shape[1] <= QUERY_CHUNK:
        return _in_causal_blocks(queries, keys, values, segment_ids)
    order = jnp.arange(queries.shape[1])

    def attend(chunk: tuple[Array, Array, Array]) -> Array:
        chunk_queries, chunk_segments, chunk_order = chunk
        mask = chunk_segments[:, :, None] == segment_ids[:, None, :]  # [row, token, source]
        if causal:
            mask &= chunk_order[:, None] >= order
        return branch_attention(chunk_queries[:, None], keys[:, None], values[:, None], mask[:, None], None)[:, 0]

    token = queries.shape[1]
    if token <= QUERY_CHUNK:
        return attend((queries, segment_ids, order))
    padding = -token % QUERY_CHUNK

    def split(array: Array, axis: int) -> Array:
        widths = [(0, padding if i == axis else 0) for i in range(array.ndim)]
        shape = (*array.shape[:axis], -1, QUERY_CHUNK, *array.shape[axis + 1 :])
        return jnp.moveaxis(jnp.pad(array, widths).reshape(shape), axis, 0)

    chunks = (split(queries, 1), split(segment_ids, 1), split(order, 0))
    mixed = jax.lax.map(jax.checkpoint(attend), chunks)  # [chunk, row, token, head * head_dim]
    return jnp.moveaxis(mixed, 0, 1).reshape(queries.shape[0], -1, mixed.shape[-1])[:, :token]


def _in_causal_blocks(queries: Array, keys: Array, values: Array, segment_ids: Array) -> Array:
    """Blocks of queries, each against the keys up to its last: those behind it would only be masked."""
    token, mixed = queries.shape[1], []
    for first in range(0, token, CAUSAL_BLOCK):
        end = min(first + CAUSAL_BLOCK, token)
        own, seen = slice(first, end), slice(end)
        order = jnp.arange(end)
        mask = segment_ids[:, own, None] == segment_ids[:, None, seen]  # [row, token, source]
        mask &= order[own, None] >= order
        block = branch_attention(queries[:, None, own], keys[:, None, seen], values[:, None, seen], mask[:, None], None)
        mixed.append(block[:, 0])
    return jnp.concatenate(mixed, axis=1)  # [row, token, head * head_dim]


def _cudnn(queries: Array, keys: Array, values: Array, segment_ids: Array, causal: bool) -> Array:
    """cuDNN's fused kernel, which takes the segments as a mask."""
    return masked_dot_product_attention(queries, keys, values, segment_ids, causal, implementation="cudnn")


def masked_dot_product_attention(
    queries: Array, keys: Array, values: Array, segment_ids: Array, causal: bool, *, implementation: str
) -> Array:
    """`jax.nn.dot_product_attention` over segments; with implementation="xla" it runs anywhere."""
    mask = (segment_ids[:, :, None] == segment_ids[:, None, :])[:, None]  # [row, 1, token, source]
    attend: Callable[..., Array] = jax.nn.dot_product_attention
    return attend(queries, keys, values, mask=mask, is_causal=causal, implementation=implementation)


def _splash(queries: Array, keys: Array, values: Array, segment_ids: Array, causal: bool) -> Array:
    return splash_attention(queries, keys, values, segment_ids, causal)


def splash_attention(
    queries: Array, keys: Array, values: Array, segment_ids: Array, causal: bool, *, interpret: bool = False
) -> Array:
    """JAX's Pallas kernel for TPUs, padded to its block sizes.

    Args:
      interpret: run it as plain JAX, for tests where there is no TPU.
    """
    from jax.experimental.pallas.ops.tpu import splash_attention as splash  # jaxlib without TPU support may lack it

    _, token, heads, head_dim = queries.shape
    token_padding, dim_padding = -token % SPLASH_BLOCK, -head_dim % SPLASH_BLOCK

    def padded(array: Array) -> Array:
        array = jnp.pad(array, ((0, 0), (0, token_padding), (0, 0), (0, dim_padding)))
        return array.transpose(0, 2, 1, 3)  # [row, head, token, head_dim]

    length = token + token_padding
    shape = (length, length)
    mask = splash.CausalMask(shape) if causal else splash.FullMask(shape)
    kernel = splash.make_splash_mha(
        splash.MultiHeadMask([mask] * heads), head_shards=1, q_seq_shards=1, interpret=interpret
    )
    # What is padded here is a segment of its own, so that no real token sees it.
    segments = jnp.pad(segment_ids, ((0, 0), (0, token_padding)), constant_values=-1)
    mixed = jax.vmap(lambda q, k, v, s: kernel(q, k, v, segment_ids=splash.SegmentIds(s, s)))(
        padded(queries * head_dim**-0.5), padded(keys), padded(values), segments
    )
    return mixed.transpose(0, 2, 1, 3)[:, :token, :, :head_dim]


def branch_attention(
    queries: Array, keys: Array, values: Array, mask: Array, prefix: tuple[Array, Array, Array] | None
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
    branches, token = queries.shape[1:3]
    if branches == 1 or branches * token <= QUERY_CHUNK:
        return _attend_to_both(queries, keys, values, mask, prefix)
    one_branch = jax.checkpoint(functools.partial(_one_branch, prefix))
    by_branch = tuple(jnp.moveaxis(array, 1, 0) for array in (queries, keys, values, mask))
    return jnp.moveaxis(jax.lax.map(one_branch, by_branch), 0, 1)


def _one_branch(prefix: tuple[Array, Array, Array] | None, branch: tuple[Array, ...]) -> Array:
    queries, keys, values, mask = (array[:, None] for array in branch)
    return _attend_to_both(queries, keys, values, mask, prefix)[:, 0]


def _attend_to_both(
    queries: Array, keys: Array, values: Array, mask: Array, prefix: tuple[Array, Array, Array] | None
) -> Array:
    group, branch, token, heads, head_dim = queries.shape
    kv_heads = keys.shape[3]
    wide = at_least_float32(queries.dtype)
    lowest = np.finfo(wide).min / 2
    # Heads in front and (repeat, token) together, so that no [token, source] array is ever transposed.
    queries = queries.reshape(group, branch, token, kv_heads, heads // kv_heads, head_dim) * head_dim**-0.5
    queries = queries.transpose(0, 3, 1, 4, 2, 5)  # [group, kv_head, branch, repeat, token, head_dim]
    by_branch = queries.reshape(group, kv_heads, branch, -1, head_dim)
    keys, values = keys.transpose(0, 3, 1, 2, 4), values.transpose(0, 3, 1, 2, 4)
    scores = jnp.einsum("gnkqh,gnksh->gnkqs", by_branch, keys, preferred_element_type=wide)
    scores = scores.reshape(*queries.shape[:-1], -1)  # [group, kv_head, branch, repeat, token, source]
    scores = jnp.where(mask[:, None, :, None], scores, lowest)
    highest = jnp.max(scores, axis=-1, keepdims=True)
    if prefix is not None:
        prefix_keys, prefix_values, prefix_valid = prefix
        by_group = queries.reshape(group, kv_heads, -1, head_dim)
        prefix_keys, prefix_values = prefix_keys.transpose(0, 2, 1, 3), prefix_values.transpose(0, 2, 1, 3)
        prefix_scores = jnp.einsum("gnqh,gnph->gnqp", by_group, prefix_keys, preferred_element_type=wide)
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
    mixed = (mixed / total.astype(mixed.dtype)).transpose(0, 2, 4, 1, 3, 5)
    return mixed.reshape(group, branch, token, heads * head_dim)  # from [group, branch, token, kv_head, repeat, ..]
