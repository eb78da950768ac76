"""The loop that draws a turn, token by token, all branches at once."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regrpo_jax.models.decoding_state import APART, Decoding, Samples, Turn, check_room, last_place, on_their_rows
from regrpo_jax.models.inputs import Array, BranchCache, TokenBlock
from regrpo_jax.models.layers import at_least_float32
from regrpo_jax.models.play_sharding import rows_apart, to_vocabulary
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.token_choice import Sampling, choose_tokens

Variables = dict[str, Any]

FEWEST_SLOTS = 64  # slots that drawing looks at even when fewer are in use


def new_turn(decoding: Decoding, sampling: Sampling, budget: Array | None) -> Turn:
    """A turn with nothing drawn.

    Raises:
      ValueError: `sampling.max_tokens` tokens do not fit into the cache.
    """
    check_room(decoding, sampling.max_tokens, "drawing")
    given = sampling.max_tokens if budget is None else np.minimum(budget, sampling.max_tokens)
    limit = np.broadcast_to(np.asarray(given, np.int32), decoding.fed.shape)  # [group, branch]
    return empty_turn(limit, sampling, dtype=at_least_float32(decoding.prefix.keys[0].dtype))


@functools.partial(jax.jit, static_argnames="dtype")
def empty_turn(budget: Array, sampling: Sampling, *, dtype: jnp.dtype) -> Turn:
    """A turn with nothing drawn, of branches with such budgets.  # [group, branch]"""
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
    """Goes on with a turn until no branch runs any more or `until` tokens are drawn.

    Compiled once per shape and number of slots in sight, which is a power of two: a branch with room for a long session
    does not look at thousands of empty slots in its first turn.
    """
    rest = dataclasses.replace(decoding, cache=APART)
    needed = int(decoding.cache.length) + until - int(turn.time)
    slots = min(max(1 << (needed - 1).bit_length(), FEWEST_SLOTS), decoding.cache.valid.shape[-1])
    end = jnp.asarray(until, jnp.int32)
    return draw_compiled(functions, variables, decoding.cache, rest, turn, sampling, end, slots=slots)


def finished_samples(turn: Turn, sampling: Sampling) -> Samples:
    """The samples without the room in front."""
    return dataclasses.replace(turn.samples, tokens=turn.samples.tokens[..., sampling.longest_stop - 1 :])


def running(done: Array, turn: Turn) -> Array:
    """Which branches draw a token next.  # [group, branch]"""
    return ~done & (turn.time < turn.budget)


@functools.partial(jax.jit, static_argnames=("functions", "slots"), donate_argnames="cache")
def draw_compiled(
    functions: PolicyFunctions,
    variables: Variables,
    cache: BranchCache,
    rest: Decoding,
    turn: Turn,
    sampling: Sampling,
    until: Array,
    *,
    slots: int,
) -> tuple[Turn, Decoding]:
    """`draw` with its cache, which it uses up, apart; only the first `slots` slots of it are looked at."""
    head = functions.head(variables).T.astype(rest.prefix.keys[0].dtype)  # [hidden, vocab]; once, not at every step
    prefix = rest.prefix  # constant in the loop
    weights = functions.layer_weights(variables, prefix.runs)  # before the loop, which would copy them at every step

    def goes_on(loop: tuple[Turn, Decoding]) -> Array:
        turn, decoding = loop
        return (turn.time < until) & jnp.any(running(decoding.done, turn))

    def step(loop: tuple[Turn, Decoding]) -> tuple[Turn, Decoding]:
        turn, decoding = loop
        live = running(decoding.done, turn)  # [group, branch]
        fed, position = decoding.fed[..., None], decoding.position[..., None, :]
        block = TokenBlock(fed, live[..., None].astype(jnp.int32), position, decoding.fed_image[..., None])
        hidden, cache = functions.decode_branches(variables, block, prefix, decoding.cache, weights)
        logits = _logits(hidden[:, :, 0], head)  # [group, branch, vocab]
        token = choose_tokens(decoding.keys, last_place(decoding.position), logits, sampling)  # [group, branch]
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
            position=decoding.position + live[..., None],
            done=decoding.done | stopped,
        )
        return dataclasses.replace(turn, time=turn.time + 1, samples=samples), decoding

    begin = dataclasses.replace(rest, prefix=APART, cache=_first_slots(cache, slots))
    turn, decoding = jax.lax.while_loop(goes_on, step, (turn, begin))
    cache = _with_first_slots(cache, decoding.cache)
    return rows_apart(turn), on_their_rows(dataclasses.replace(decoding, prefix=prefix, cache=cache))


def _first_slots(cache: BranchCache, slots: int) -> BranchCache:
    return dataclasses.replace(
        cache,
        keys=tuple(run[..., :slots] for run in cache.keys),
        values=tuple(run[..., :slots, :] for run in cache.values),
        valid=cache.valid[..., :slots],
    )


def _with_first_slots(cache: BranchCache, first: BranchCache) -> BranchCache:
    def placed(whole: Array, part: Array) -> Array:
        return jax.lax.dynamic_update_slice(whole, part, (0,) * whole.ndim)

    names = ("keys", "values", "valid")
    slots = {name: jax.tree.map(placed, getattr(cache, name), getattr(first, name)) for name in names}
    return dataclasses.replace(first, **slots)


def _logits(hidden: Array, head: Array) -> Array:
    flat = to_vocabulary(hidden).reshape(-1, hidden.shape[-1])  # [group * branch, hidden]
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
