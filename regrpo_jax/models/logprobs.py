"""Log-probs of given tokens without ever holding `[token, vocab]`: only chunks of scored tokens meet the vocabulary.

A group has thousands of positions and a vocabulary of 150,000; the loss needs one number per reflection or action
token. Unscored tokens are sorted out of the way first and chunks with no scored token are skipped.
"""

import functools

import jax
import jax.numpy as jnp

from regrpo_jax.models.layers import at_least_float32

Array = jax.Array


def token_logprobs(hidden: Array, head: Array, targets: Array, mask: Array, *, chunk_size: int) -> Array:
    """log pi(target_t | before t) where `mask`, 0 elsewhere.

    log pi = h.w_target - logsumexp_v(h.w_v), in at least float32; peak memory is one `[chunk, vocab]` block, and
    the backward pass recomputes it instead of keeping it.

    Args:
      hidden: final normalised hidden state at the position that predicts each target.  # [.., token, hidden]
      head: output embedding.  # [vocab, hidden]
      targets: int32 token ids.  # [.., token]
      mask: bool, which tokens are scored.  # [.., token]
      chunk_size: tokens per vocabulary block.
    Returns:
      float array.  # [.., token]
    """
    flat_mask = mask.reshape(-1).astype(bool)
    count = flat_mask.shape[0]
    chunk_size = min(chunk_size, count)
    order = jnp.argsort(~flat_mask, stable=True)  # scored tokens first
    padding = -count % chunk_size
    order = jnp.concatenate([order, jnp.full(padding, order[-1], order.dtype)])
    sorted_mask = flat_mask[order] & (jnp.arange(count + padding) < count)
    sorted_hidden = hidden.reshape(count, -1)[order]
    sorted_logprobs = _chunked(sorted_hidden, head, targets.reshape(-1)[order], sorted_mask, chunk_size)
    scattered = jnp.zeros(count, sorted_logprobs.dtype).at[order[:count]].set(sorted_logprobs[:count])
    return scattered.reshape(mask.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def _chunked(hidden: Array, head: Array, targets: Array, mask: Array, chunk_size: int) -> Array:
    return _chunked_forward(hidden, head, targets, mask, chunk_size)[0]


def _chunked_forward(hidden: Array, head: Array, targets: Array, mask: Array, chunk_size: int) -> tuple[Array, tuple]:
    wide = at_least_float32(hidden.dtype)

    def score(chunk: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        chunk_hidden, chunk_targets, chunk_mask = chunk
        logits = _logits(chunk_hidden, head)  # [chunk, vocab]
        normaliser = jax.nn.logsumexp(logits, axis=-1)
        chosen = jnp.take_along_axis(logits, chunk_targets[:, None], axis=-1)[:, 0]
        return jnp.where(chunk_mask, chosen - normaliser, 0), normaliser

    def skip(chunk: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        nothing = jnp.zeros(chunk_size, wide)
        return nothing, nothing

    def visit(chunk: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        return jax.lax.cond(jnp.any(chunk[2]), score, skip, chunk)

    chunks = (_split(hidden, chunk_size), _split(targets, chunk_size), _split(mask, chunk_size))
    logprobs, normalisers = jax.lax.map(visit, chunks)
    return logprobs.reshape(-1), (hidden, head, targets, mask, normalisers)


def _chunked_backward(chunk_size: int, residuals: tuple, cotangent: Array) -> tuple[Array, Array, None, None]:
    """d log pi / d logits = onehot(target) - softmax(logits), contracted at once with hidden and head."""
    hidden, head, targets, mask, normalisers = residuals
    wide = at_least_float32(hidden.dtype)
    vocabulary = jnp.arange(head.shape[0])

    def pull_back(head_gradient: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        chunk_hidden, chunk_targets, chunk_cotangent, chunk_normaliser = chunk
        probabilities = jnp.exp(_logits(chunk_hidden, head) - chunk_normaliser[:, None])
        onehot = chunk_targets[:, None] == vocabulary
        logit_gradient = ((onehot - probabilities) * chunk_cotangent[:, None]).astype(hidden.dtype)
        head_gradient = head_gradient + (logit_gradient.T @ chunk_hidden).astype(wide)
        return head_gradient, logit_gradient @ head.astype(hidden.dtype)

    def skip(head_gradient: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        return head_gradient, jnp.zeros_like(chunk[0])

    def visit(head_gradient: Array, chunk: tuple[Array, ...]) -> tuple[Array, Array]:
        *values, chunk_mask = chunk
        return jax.lax.cond(jnp.any(chunk_mask), pull_back, skip, head_gradient, tuple(values))

    masked = jnp.where(mask, cotangent, 0)
    chunks = tuple(_split(array, chunk_size) for array in (hidden, targets, masked))
    head_gradient, hidden_gradient = jax.lax.scan(
        visit, jnp.zeros(head.shape, wide), (*chunks, normalisers, _split(mask, chunk_size))
    )
    return hidden_gradient.reshape(hidden.shape), head_gradient.astype(head.dtype), None, None


_chunked.defvjp(_chunked_forward, _chunked_backward)


def _logits(hidden: Array, head: Array) -> Array:
    wide = at_least_float32(hidden.dtype)
    return jnp.einsum("td,vd->tv", hidden, head.astype(hidden.dtype), preferred_element_type=wide)


def _split(array: Array, chunk_size: int) -> Array:
    return array.reshape(-1, chunk_size, *array.shape[1:])
