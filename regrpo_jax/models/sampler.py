"""Batched decoding on the same prefix cache that training uses: forced opening tokens, then the policy's own."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from regrpo_jax.models.inputs import Array, BranchCache, ImagePatches, PrefixCache, TokenBlock
from regrpo_jax.models.layers import at_least_float32
from regrpo_jax.models.policy import PolicyFunctions, empty_branch_cache


@struct.dataclass
class Samples:
    """What came out, forced opening included.

    Attributes:
      tokens: int32.  # [group, branch, token]
      logprobs: float, log pi of each token at temperature 1, nothing banned, as a scoring pass gives it.
        # [group, branch, token]
      lengths: int32 number of tokens, the stop token included.  # [group, branch]
      stopped: bool, whether the stop token was reached within the budget.  # [group, branch]
    """

    tokens: Array
    logprobs: Array
    lengths: Array
    stopped: Array


@struct.dataclass
class Prompt:
    """Where decoding starts.

    Attributes:
      prefix: without its last token.  # [group, prefix]
      images: patches of the prefixes, or None.
      last_token: int32, the last prompt token, which every branch is fed first.  # [group]
      next_position: int32 rotary position of the first new token.  # [group]
      forced: int32 opening tokens of each branch, right-padded.  # [group, branch, forced]
      forced_lengths: int32.  # [group, branch]
    """

    prefix: TokenBlock
    images: ImagePatches | None
    last_token: Array
    next_position: Array
    forced: Array
    forced_lengths: Array


@functools.partial(jax.jit, static_argnames=("functions", "max_tokens", "stop_id", "banned_ids"))
def sample(
    functions: PolicyFunctions,
    variables: dict[str, Any],
    prompt: Prompt,
    key: Array,
    temperature: Array,
    *,
    max_tokens: int,
    stop_id: int,
    banned_ids: tuple[int, ...],
) -> Samples:
    """Decodes every branch until the stop token or `max_tokens` tokens, forced ones included.

    Args:
      temperature: float scalar; 0 takes the likeliest token.
      max_tokens: length of the token buffers.
      stop_id: token that ends a branch.
      banned_ids: tokens that can't be sampled (image markers).
    """
    _, prefix = functions.run_prefix(variables, prompt.prefix, prompt.images)
    groups, branches, forced_width = prompt.forced.shape
    head = functions.head(variables)
    banned = jnp.zeros(head.shape[0], bool).at[jnp.array(banned_ids, jnp.int32)].set(True)
    forced = jnp.pad(prompt.forced, ((0, 0), (0, 0), (0, max_tokens - forced_width)))

    def unfinished(loop: dict[str, Any]) -> Array:
        return (loop["time"] < max_tokens) & ~jnp.all(loop["done"])

    def advance(loop: dict[str, Any]) -> dict[str, Any]:
        time = loop["time"]
        logits, cache = _next_logits(
            functions, variables, head, prefix, loop["cache"], loop["fed"], prompt.next_position - 1 + time
        )
        chosen = _choose(jax.random.fold_in(key, time), jnp.where(banned, -jnp.inf, logits), temperature)
        is_forced = time < prompt.forced_lengths  # [group, branch]
        token = jnp.where(is_forced, forced[:, :, time], chosen)
        logprob = jnp.take_along_axis(jax.nn.log_softmax(logits), token[..., None], axis=-1)[..., 0]
        live = ~loop["done"]
        return {
            "time": time + 1,
            "cache": cache,
            "fed": token,
            "tokens": loop["tokens"].at[:, :, time].set(jnp.where(live, token, 0)),
            "logprobs": loop["logprobs"].at[:, :, time].set(jnp.where(live, logprob, 0)),
            "lengths": loop["lengths"] + live,
            "done": loop["done"] | (~is_forced & (token == stop_id)),
        }

    shape = (groups, branches)
    loop: dict[str, Any] = {
        "time": jnp.zeros((), jnp.int32),
        "cache": empty_branch_cache(prefix, branches, max_tokens),
        "fed": jnp.broadcast_to(prompt.last_token[:, None], shape),
        "tokens": jnp.zeros((*shape, max_tokens), jnp.int32),
        "logprobs": jnp.zeros((*shape, max_tokens), at_least_float32(prefix.keys.dtype)),
        "lengths": jnp.zeros(shape, jnp.int32),
        "done": jnp.zeros(shape, bool),
    }
    loop = jax.lax.while_loop(unfinished, advance, loop)
    return Samples(loop["tokens"], loop["logprobs"], loop["lengths"], loop["done"])


def _next_logits(
    functions: PolicyFunctions,
    variables: dict[str, Any],
    head: Array,
    prefix: PrefixCache,
    cache: BranchCache,
    fed: Array,
    position: Array,
) -> tuple[Array, BranchCache]:
    """Logits [group, branch, vocab] after feeding one token per branch at `position` [group]."""
    tokens = fed[..., None]
    positions = jnp.broadcast_to(position[:, None, None, None], (*tokens.shape, 3))
    block = TokenBlock(tokens, jnp.ones_like(tokens), positions, jnp.full_like(tokens, -1))
    hidden, cache = functions.decode_branches(variables, block, prefix, cache)
    wide = at_least_float32(hidden.dtype)
    logits = jnp.einsum("gkd,vd->gkv", hidden[:, :, 0], head.astype(hidden.dtype), preferred_element_type=wide)
    return logits, cache


def _choose(key: Array, logits: Array, temperature: Array) -> Array:
    sampled = jax.random.categorical(key, logits / jnp.maximum(temperature, 1e-6))
    return jnp.where(temperature > 0, sampled, jnp.argmax(logits, axis=-1)).astype(jnp.int32)
