"""Batched decoding on the prefix cache that training uses: a conversation that tokens are appended to and drawn from.

    decoding = start(functions, variables, prompt, key, branches=8, capacity=512)
    decoding, _ = append(functions, variables, decoding, tokens, lengths)     # an opening, a tool's observation
    samples, decoding = generate(functions, variables, decoding, sampling)    # the policy's own turn

The prefix is run once per group and its branches share it. The last token of a branch is always kept back (`fed`), so
that every log-prob, the first one after an append included, comes from a branch position as it does in a scoring pass.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from regrpo_jax.models.decode_attention import prefix_layers
from regrpo_jax.models.inputs import Array, BranchCache, ImagePatches, PrefixLayers, TokenBlock
from regrpo_jax.models.layers import at_least_float32
from regrpo_jax.models.logprobs import token_logprobs
from regrpo_jax.models.policy import PolicyFunctions, empty_branch_cache
from regrpo_jax.models.token_choice import Sampling, choose_tokens

Variables = dict[str, Any]

SCORED_CHUNK = 256  # appended tokens that meet the vocabulary at once
_APART: Any = None  # stands where an argument of its own was taken out: one that is donated, or constant in a loop


@struct.dataclass
class Prompt:
    """Where decoding starts.

    Attributes:
      prefix: without its last token.  # [group, prefix]
      images: patches of the prefixes, or None.
      last_token: int32, the last prompt token, which every branch is fed first.  # [group]
      next_position: int32 rotary position of the first new token.  # [group]
      draw_ids: int32, what tells a group's random draws from those of others with the same key, so that they do not
        depend on the batch that the group is in.  # [group]
    """

    prefix: TokenBlock
    images: ImagePatches | None
    last_token: Array
    next_position: Array
    draw_ids: Array


@struct.dataclass
class Decoding:
    """Branches between two turns. `append` and `generate` use up the branch cache of the one that they are given.

    Attributes:
      prefix: shared by the branches of a group.
      cache: what each branch holds so far, its last token excepted.
      fed: int32, the last token of each branch, which is run next.  # [group, branch]
      position: int32 rotary position of `fed`.  # [group, branch]
      done: bool, whether the branch drew a stop sequence and nothing was appended since.  # [group, branch]
      keys: random keys, one a branch.  # [group, branch]
    """

    prefix: PrefixLayers
    cache: BranchCache
    fed: Array
    position: Array
    done: Array
    keys: Array


@struct.dataclass
class Samples:
    """What was drawn.

    Attributes:
      tokens: int32, 0 after the end.  # [group, branch, token]
      logprobs: float, log pi of each token at temperature 1 with nothing banned or filtered, as a scoring pass gives
        it; 0 after the end.  # [group, branch, token]
      lengths: int32 number of tokens, a stop sequence included.  # [group, branch]
      stopped: bool, whether a stop sequence was drawn within the budget.  # [group, branch]
    """

    tokens: Array
    logprobs: Array
    lengths: Array
    stopped: Array


@struct.dataclass
class Turn:
    """A turn while it is drawn.

    Attributes:
      time: int32 scalar, tokens that each running branch has drawn.
      budget: int32, tokens that a branch may draw.  # [group, branch]
      samples: so far; `tokens` has room in front for the comparison with stop sequences.
    """

    time: Array
    budget: Array
    samples: Samples


@functools.partial(jax.jit, static_argnames=("functions", "branches", "capacity"))
def start(
    functions: PolicyFunctions, variables: Variables, prompt: Prompt, key: Array, *, branches: int, capacity: int
) -> Decoding:
    """Runs the prefixes; every group gets `branches` branches with room for `capacity` tokens each.

    Args:
      key: random key of all draws.
      capacity: slots of the branch cache: the sum of the widths of all appends and the `max_tokens` of all turns.
    """
    _, cache = functions.run_prefix(variables, prompt.prefix, prompt.images)
    prefix = prefix_layers(cache)
    shape = (prompt.last_token.shape[0], branches)
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    keys = jax.vmap(fold, in_axes=(0, None))(fold(key, prompt.draw_ids), jnp.arange(branches))
    return Decoding(
        prefix=prefix,
        cache=empty_branch_cache(prefix, branches, capacity),
        fed=jnp.broadcast_to(prompt.last_token[:, None], shape).astype(jnp.int32),
        position=jnp.broadcast_to(prompt.next_position[:, None] - 1, shape).astype(jnp.int32),
        done=jnp.zeros(shape, bool),
        keys=keys,
    )


def append(
    functions: PolicyFunctions,
    variables: Variables,
    decoding: Decoding,
    tokens: Array,
    lengths: Array,
    *,
    scored: bool = False,
) -> tuple[Decoding, Array]:
    """Puts given tokens at the end of the branches, as one block; a branch that gets any is no longer done.

    Args:
      tokens: int32, right-padded.  # [group, branch, token]
      lengths: int32, how many of them are real; a branch may get none.  # [group, branch]
      scored: whether log-probs are wanted; without, nothing meets the vocabulary.
    Returns:
      the longer branches, and log pi of the appended tokens, 0 at padding or where not scored.
        # [group, branch, token]
    Raises:
      ValueError: the block does not fit into the cache, or a length is longer than the block.
    """
    width = tokens.shape[-1]
    check_room(decoding, width, "appending")
    if np.min(lengths) < 0 or np.max(lengths) > width:
        raise ValueError(f"the lengths to append go from {np.min(lengths)} to {np.max(lengths)}; the width is {width}")
    return _append(
        functions,
        variables,
        decoding.cache,
        dataclasses.replace(decoding, cache=_APART),
        tokens,
        lengths,
        jnp.asarray(scored),
    )


def generate(
    functions: PolicyFunctions,
    variables: Variables,
    decoding: Decoding,
    sampling: Sampling,
    budget: Array | None = None,
) -> tuple[Samples, Decoding]:
    """Draws until every branch has stopped or spent its budget, all at the shape that they have.

    `decode_driver.decode` gives the same and drops finished branches on the way.

    Args:
      budget: int32, tokens that each branch may draw, `sampling.max_tokens` when None.  # [group, branch]
    Raises:
      ValueError: `sampling.max_tokens` tokens do not fit into the cache.
    """
    turn = new_turn(decoding, sampling, budget)
    turn, decoding = draw(functions, variables, decoding, turn, sampling, sampling.max_tokens)
    return finished_samples(turn, sampling), decoding


def new_turn(decoding: Decoding, sampling: Sampling, budget: Array | None) -> Turn:
    """A turn with nothing drawn.

    Raises:
      ValueError: `sampling.max_tokens` tokens do not fit into the cache.
    """
    check_room(decoding, sampling.max_tokens, "drawing")
    given = sampling.max_tokens if budget is None else np.minimum(budget, sampling.max_tokens)
    limit = np.broadcast_to(np.asarray(given, np.int32), decoding.fed.shape)  # [group, branch]
    return _empty_turn(limit, sampling, dtype=at_least_float32(decoding.prefix.keys[0].dtype))


@functools.partial(jax.jit, static_argnames="dtype")
def _empty_turn(budget: Array, sampling: Sampling, *, dtype: jnp.dtype) -> Turn:
    shape, room = budget.shape, sampling.longest_stop - 1
    samples = Samples(
        tokens=jnp.concatenate(
            [jnp.full((*shape, room), -1, jnp.int32), jnp.zeros((*shape, sampling.max_tokens), jnp.int32)], axis=-1
        ),
        logprobs=jnp.zeros((*shape, sampling.max_tokens), dtype),
        lengths=jnp.zeros(shape, jnp.int32),
        stopped=jnp.zeros(shape, bool),
    )
    return Turn(jnp.zeros((), jnp.int32), budget, samples)


def draw(
    functions: PolicyFunctions, variables: Variables, decoding: Decoding, turn: Turn, sampling: Sampling, until: int
) -> tuple[Turn, Decoding]:
    """Goes on with a turn until no branch runs any more or `until` tokens are drawn; compiled once per shape."""
    rest = dataclasses.replace(decoding, cache=_APART)
    return draw_compiled(functions, variables, decoding.cache, rest, turn, sampling, jnp.asarray(until, jnp.int32))


def finished_samples(turn: Turn, sampling: Sampling) -> Samples:
    """The samples without the room in front."""
    return dataclasses.replace(turn.samples, tokens=turn.samples.tokens[..., sampling.longest_stop - 1 :])


def running(done: Array, turn: Turn) -> Array:
    """Which branches draw a token next.  # [group, branch]"""
    return ~done & (turn.time < turn.budget)


def check_room(decoding: Decoding, slots: int, doing: str) -> None:
    """Raises ValueError where `slots` more tokens do not fit: a write beyond the end would move to another place."""
    capacity, used = decoding.cache.valid.shape[-1], int(decoding.cache.length)
    if used + slots > capacity:
        raise ValueError(
            f"{doing} up to {slots} tokens after the {used} slots in use exceeds the capacity of {capacity} slots "
            "that decoding was started with; start it with more"
        )


@functools.partial(jax.jit, static_argnames="functions", donate_argnames="cache")
def _append(
    functions: PolicyFunctions,
    variables: Variables,
    cache: BranchCache,
    rest: Decoding,
    tokens: Array,
    lengths: Array,
    scored: Array,
) -> tuple[Decoding, Array]:
    order = jnp.arange(tokens.shape[-1])
    real = order < lengths[..., None]  # [group, branch, token]
    fed = jnp.concatenate([rest.fed[..., None], tokens[..., :-1]], axis=-1)  # [group, branch, token]
    hidden, cache = functions.decode_branches(
        variables,
        _text_block(fed, real, rest.position[..., None] + order),
        rest.prefix,
        cache,
        functions.layer_weights(variables),
    )
    logprobs = token_logprobs(hidden, functions.head(variables), tokens, real & scored, chunk_size=SCORED_CHUNK)
    last = jnp.take_along_axis(tokens, jnp.maximum(lengths - 1, 0)[..., None], axis=-1)[..., 0]  # [group, branch]
    given = lengths > 0  # [group, branch]
    longer = dataclasses.replace(
        rest,
        cache=cache,
        fed=jnp.where(given, last, rest.fed),
        position=rest.position + lengths,
        done=rest.done & ~given,
    )
    return longer, logprobs


@functools.partial(jax.jit, static_argnames="functions", donate_argnames="cache")
def draw_compiled(
    functions: PolicyFunctions,
    variables: Variables,
    cache: BranchCache,
    rest: Decoding,
    turn: Turn,
    sampling: Sampling,
    until: Array,
) -> tuple[Turn, Decoding]:
    """`draw` with its cache, which it uses up, apart."""
    head = functions.head(variables).T.astype(rest.prefix.keys[0].dtype)  # [hidden, vocab]; once, not at every step
    prefix = rest.prefix  # constant in the loop
    # An accelerator reads a layer where it lies among the others. A CPU would copy it at every step.
    weights = functions.layer_weights(variables) if jax.default_backend() == "cpu" else None

    def goes_on(loop: tuple[Turn, Decoding]) -> Array:
        turn, decoding = loop
        return (turn.time < until) & jnp.any(running(decoding.done, turn))

    def step(loop: tuple[Turn, Decoding]) -> tuple[Turn, Decoding]:
        turn, decoding = loop
        live = running(decoding.done, turn)  # [group, branch]
        block = _text_block(decoding.fed[..., None], live[..., None], decoding.position[..., None])
        layers = weights or functions.layer_weights(variables)
        hidden, cache = functions.decode_branches(variables, block, prefix, decoding.cache, layers)
        logits = _logits(hidden[:, :, 0], head)  # [group, branch, vocab]
        token = choose_tokens(decoding.keys, decoding.position, logits, sampling)  # [group, branch]
        chosen = jnp.take_along_axis(logits, token[..., None], axis=-1)[..., 0]
        logprob = chosen - jax.nn.logsumexp(logits, axis=-1)  # [group, branch]
        samples = turn.samples
        tokens = samples.tokens.at[:, :, sampling.longest_stop - 1 + turn.time].set(jnp.where(live, token, 0))
        stopped = live & _ends_in_stop(tokens, turn.time, sampling)  # [group, branch]
        samples = Samples(
            tokens,
            samples.logprobs.at[:, :, turn.time].set(jnp.where(live, logprob, 0)),
            samples.lengths + live,
            samples.stopped | stopped,
        )
        decoding = dataclasses.replace(
            decoding,
            cache=cache,
            fed=jnp.where(live, token, decoding.fed),
            position=decoding.position + live,
            done=decoding.done | stopped,
        )
        return dataclasses.replace(turn, time=turn.time + 1, samples=samples), decoding

    turn, decoding = jax.lax.while_loop(goes_on, step, (turn, dataclasses.replace(rest, prefix=_APART, cache=cache)))
    return turn, dataclasses.replace(decoding, prefix=prefix)


def _text_block(tokens: Array, real: Array, order: Array) -> TokenBlock:
    positions = jnp.broadcast_to(order[..., None], (*tokens.shape, 3))
    return TokenBlock(tokens, real.astype(jnp.int32), positions, jnp.full_like(tokens, -1))


def _logits(hidden: Array, head: Array) -> Array:
    flat = hidden.reshape(-1, hidden.shape[-1])  # [group * branch, hidden]
    logits = jnp.matmul(flat, head, preferred_element_type=at_least_float32(hidden.dtype))
    return logits.reshape(*hidden.shape[:-1], -1)


def _ends_in_stop(tokens: Array, time: Array, sampling: Sampling) -> Array:
    """Whether what was drawn last is one of the stop sequences.  # [group, branch]"""
    longest = sampling.longest_stop
    tail = jax.lax.dynamic_slice_in_dim(tokens, time, longest, axis=-1)  # [group, branch, longest]
    ends = jnp.zeros(tail.shape[:-1], bool)
    for stop in sampling.stops:
        ends |= jnp.all(tail[..., longest - len(stop) :] == jnp.array(stop, jnp.int32), axis=-1)
    return ends
