"""Log-prob and entropy of given tokens, without ever holding `[token, vocab]`.

A group has thousands of positions and a vocabulary of 150,000; the loss needs one number per reflection or action
token. Unscored tokens are sorted out of the way, the others meet the vocabulary in chunks, and chunks with no scored
token are skipped. Where the rows of the head are split over devices, each one meets its own rows only, with the tokens
of all devices of "fsdp", and a few numbers per token are combined at the end.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from regrpo_jax.models.layers import at_least_float32
from regrpo_jax.models.sharding import FSDP_AXIS, MODEL_AXIS, left_to_compiler

Array = jax.Array


class TokenScores(NamedTuple):
    """What one pass over the vocabulary tells of each token; float, at least float32, 0 where it is not scored.

    Attributes:
      logprobs: log pi(target_t | before t).  # [.., token]
      entropies: H_t = -sum_v pi_v log pi_v of the whole distribution, in nats.  # [.., token]
    """

    logprobs: Array
    entropies: Array


def default_chunk(vocab_size: int) -> int:
    """Tokens a block for about 16 million logits (64 MiB in float32), within reason."""
    return min(1024, max(32, 2**24 // vocab_size))


def token_logprobs(hidden: Array, head: Array, targets: Array, mask: Array, *, chunk_size: int) -> Array:
    """The log-probs of `token_scores` alone.  # [.., token]"""
    return token_scores(hidden, head, targets, mask, chunk_size=chunk_size).logprobs


def token_scores(
    hidden: Array, head: Array, targets: Array, mask: Array, *, chunk_size: int, vocab_size: int | None = None
) -> TokenScores:
    """log pi(target_t | before t) and the entropy at t where `mask`, 0 elsewhere; both can be differentiated.

    With logits l_v = h.w_v:  log pi = l_target - logsumexp_v(l_v) and H = logsumexp_v(l_v) - sum_v pi_v l_v, in at
    least float32. Peak memory is one `[chunk, vocab]` block; the backward pass recomputes it instead of keeping it.

    Args:
      hidden: final normalised hidden state at the position that predicts each target.  # [.., token, hidden]
      head: output embedding; a device of "fsdp" may have a part of its rows, see `sharding`.  # [vocab, hidden]
      targets: int32 token ids.  # [.., token]
      mask: bool, which tokens are scored.  # [.., token]
      chunk_size: tokens per vocabulary block.
      vocab_size: rows of the whole head; None where it is here.
    """
    flat_mask = mask.reshape(-1).astype(bool)
    count = flat_mask.shape[0]
    chunk_size = min(chunk_size, count)
    order = jnp.argsort(~flat_mask, stable=True)  # scored tokens first
    padding = -count % chunk_size
    order = jnp.concatenate([order, jnp.full(padding, order[-1], order.dtype)])
    sorted_mask = flat_mask[order] & (jnp.arange(count + padding) < count)
    sorted_hidden = hidden.reshape(count, -1)[order]
    scores = _sorted_scores(
        sorted_hidden, head, targets.reshape(-1)[order], sorted_mask, chunk_size, _head_axes(head, vocab_size)
    )  # each [token]
    return TokenScores(
        *(jnp.zeros(count, x.dtype).at[order[:count]].set(x[:count]).reshape(mask.shape) for x in scores)
    )


def _head_axes(head: Array, vocab_size: int | None) -> tuple[str, ...]:
    """The mesh axes in context that the head's rows are split over, which is as `sharding.partition_spec` says."""
    split = (FSDP_AXIS,) if vocab_size is not None and len(head) < vocab_size else ()
    devices = left_to_compiler()
    return (*split, MODEL_AXIS) if devices > 1 and len(head) % devices == 0 else split


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _sorted_scores(
    hidden: Array, head: Array, targets: Array, mask: Array, chunk_size: int, axes: tuple[str, ...]
) -> tuple[Array, Array]:
    return _scores_forward(hidden, head, targets, mask, chunk_size, axes)[0]


def _scores_forward(
    hidden: Array, head: Array, targets: Array, mask: Array, chunk_size: int, axes: tuple[str, ...]
) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    local = functools.partial(_forward_of_rows, chunk_size=chunk_size, axes=axes)
    forward = _on_every_shard(local, axes, in_specs=(P(), _rows_of(axes), P(), P()), out_specs=P())
    measured = forward(*_everyones((hidden,), axes), head, *_everyones((targets, mask), axes))
    logprobs, entropies, normalisers = (_own(array, len(mask), axes) for array in measured)
    return (logprobs, entropies), (hidden, head, targets, mask, normalisers, entropies)


def _scores_backward(
    chunk_size: int, axes: tuple[str, ...], residuals: tuple[Array, ...], cotangents: tuple[Array, Array]
) -> tuple[Array, Array, None, None]:
    hidden, head, *per_token = residuals
    local = functools.partial(_backward_of_rows, chunk_size=chunk_size, axes=axes)
    rows = _rows_of(axes)
    backward = _on_every_shard(local, axes, in_specs=(P(), rows, *(P(),) * 6), out_specs=(P(), rows))
    hidden_gradient, head_gradient = backward(
        *_everyones((hidden,), axes), head, *_everyones((*per_token, *cotangents), axes)
    )
    if FSDP_AXIS in axes:
        hidden_gradient = jax.lax.psum_scatter(hidden_gradient, FSDP_AXIS, tiled=True)
    return hidden_gradient.astype(hidden.dtype), head_gradient, None, None


# The rules wrap `shard_map` and not the other way round, so that nothing is ever differentiated through one.
_sorted_scores.defvjp(_scores_forward, _scores_backward)


def _forward_of_rows(
    hidden: Array, head: Array, targets: Array, mask: Array, *, chunk_size: int, axes: tuple[str, ...]
) -> tuple[Array, Array, Array]:
    """Log-probs, entropies and logsumexps from this shard's rows of the head and everyone's sums, each [token].

    Shard i has m_i = max_v l_v, s_i = sum_v e^(l_v - m_i) and u_i = sum_v e^(l_v - m_i) (l_v - m_i). With m = max m_i:

        s = sum_i e^(m_i - m) s_i      u = sum_i e^(m_i - m) (u_i + s_i (m_i - m))      H = log s - u / s

    The loop over chunks has no collective in it, because devices with other rows of the batch skip other chunks.
    """
    targets = targets - _first_row(head, axes)  # own rows are 0 .. rows - 1

    def measure(chunk: tuple[Array, Array]) -> tuple[Array, Array, Array, Array]:
        chunk_hidden, chunk_targets = chunk
        logits = _logits(chunk_hidden, head)  # [chunk, rows]
        highest = jnp.max(logits, axis=-1)  # [chunk]
        shifted = logits - highest[:, None]  # [chunk, rows]
        weights = jnp.exp(shifted)  # [chunk, rows]
        is_here = (chunk_targets >= 0) & (chunk_targets < head.shape[0])  # [chunk]
        row = jnp.where(is_here, chunk_targets, 0)  # [chunk]
        chosen = jnp.where(is_here, jnp.take_along_axis(logits, row[:, None], axis=-1)[:, 0], 0)  # [chunk]
        return highest, jnp.sum(weights, axis=-1), jnp.sum(weights * shifted, axis=-1), chosen

    def skip(chunk: tuple[Array, Array]) -> tuple[Array, Array, Array, Array]:
        nothing = jnp.zeros(chunk_size, at_least_float32(hidden.dtype))
        return nothing, nothing + 1, nothing, nothing

    def visit(chunk: tuple[Array, Array, Array]) -> tuple[Array, Array, Array, Array]:
        return jax.lax.cond(jnp.any(chunk[2]), measure, skip, chunk[:2])

    measured = jax.lax.map(visit, tuple(_split(array, chunk_size) for array in (hidden, targets, mask)))
    highest, total, weighted, chosen = (array.reshape(-1) for array in measured)  # each [token]
    if axes:
        below = highest - jax.lax.pmax(highest, axes)  # [token]
        highest = highest - below
        scaled = (jnp.exp(below) * total, jnp.exp(below) * (weighted + total * below), chosen)
        total, weighted, chosen = jax.lax.psum(scaled, axes)
    normalisers = jnp.log(total) + highest  # [token]
    entropies = jnp.log(total) - weighted / total  # [token]
    return jnp.where(mask, chosen - normalisers, 0), jnp.where(mask, entropies, 0), normalisers


def _backward_of_rows(
    hidden: Array,
    head: Array,
    targets: Array,
    mask: Array,
    normalisers: Array,
    entropies: Array,
    *cotangents: Array,
    chunk_size: int,
    axes: tuple[str, ...],
) -> tuple[Array, Array]:
    """Gradients of hidden [token, hidden] and of this shard's rows of the head, contracted chunk by chunk.

    d log pi / d l = onehot(target) - p        d H / d l = -p (log p + H)
    """
    wide = at_least_float32(hidden.dtype)
    rows = _first_row(head, axes) + jnp.arange(head.shape[0])  # [rows]

    def pull_back(head_gradient: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        chunk_hidden, chunk_targets, chunk_normalisers, chunk_entropies, of_logprob, of_entropy = chunk
        logprobs = _logits(chunk_hidden, head) - chunk_normalisers[:, None]  # [chunk, rows]
        probabilities = jnp.exp(logprobs)  # [chunk, rows]
        onehot = chunk_targets[:, None] == rows  # [chunk, rows]
        logit_gradient = (onehot - probabilities) * of_logprob[:, None]  # [chunk, rows]
        logit_gradient -= probabilities * (logprobs + chunk_entropies[:, None]) * of_entropy[:, None]
        logit_gradient = logit_gradient.astype(hidden.dtype)
        head_gradient += jnp.matmul(logit_gradient.T, chunk_hidden, preferred_element_type=wide)  # [rows, hidden]
        return head_gradient, jnp.matmul(logit_gradient, head.astype(hidden.dtype), preferred_element_type=wide)

    def skip(head_gradient: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        return head_gradient, jnp.zeros(chunk[0].shape, wide)

    def visit(head_gradient: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        *values, chunk_mask = chunk
        return jax.lax.cond(jnp.any(chunk_mask), pull_back, skip, head_gradient, tuple(values))

    masked = (jnp.where(mask, cotangent, 0) for cotangent in cotangents)
    per_token = (hidden, targets, normalisers, entropies, *masked, mask)
    head_gradient, hidden_gradient = jax.lax.scan(
        visit, jnp.zeros(head.shape, wide), tuple(_split(array, chunk_size) for array in per_token)
    )
    hidden_gradient = hidden_gradient.reshape(hidden.shape)
    if MODEL_AXIS in axes:
        hidden_gradient = jax.lax.psum(hidden_gradient, MODEL_AXIS)
    return hidden_gradient, head_gradient.astype(head.dtype)


def _on_every_shard(function: Callable[..., Any], axes: tuple[str, ...], *, in_specs: Any, out_specs: Any) -> Any:
    """Over "model"; of "fsdp" whoever calls is one device already."""
    if MODEL_AXIS not in axes:
        return function
    return jax.shard_map(function, in_specs=in_specs, out_specs=out_specs, axis_names={MODEL_AXIS}, check_vma=False)


def _rows_of(axes: tuple[str, ...]) -> P:
    return P(MODEL_AXIS) if MODEL_AXIS in axes else P()


def _everyones(arrays: tuple[Array, ...], axes: tuple[str, ...]) -> tuple[Array, ...]:
    """The tokens of all devices of "fsdp", one device's after the other's."""
    if FSDP_AXIS not in axes:
        return arrays
    return tuple(jax.lax.all_gather(array, FSDP_AXIS, tiled=True) for array in arrays)


def _own(array: Array, count: int, axes: tuple[str, ...]) -> Array:
    """This device's tokens of `_everyones`."""
    if FSDP_AXIS not in axes:
        return array
    return jax.lax.dynamic_slice_in_dim(array, jax.lax.axis_index(FSDP_AXIS) * count, count)


def _first_row(head: Array, axes: tuple[str, ...]) -> Array | int:
    """Token id of the first row that this shard has of the head."""
    return jax.lax.axis_index(axes) * head.shape[0] if axes else 0


def _logits(hidden: Array, head: Array) -> Array:
    wide = at_least_float32(hidden.dtype)
    return jnp.einsum("td,vd->tv", hidden, head.astype(hidden.dtype), preferred_element_type=wide)


def _split(array: Array, chunk_size: int) -> Array:
    return array.reshape(-1, chunk_size, *array.shape[1:])
