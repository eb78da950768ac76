"""Drawing a turn in segments, so that branches which have finished stop costing anything.

Between two segments the host looks at which branches still run. When they fit into half of the groups or of the
branches per group, they move into smaller arrays, whose sizes are powers of two so that few shapes are ever compiled.
A branch draws the same tokens wherever it stands, because its random key moves with it.
"""

import dataclasses
import functools
import operator
from typing import Any

import jax
import numpy as np

from regrpo_jax.models.decoding_state import Decoding, Samples, Turn
from regrpo_jax.models.drawing import Variables, draw, finished_samples, new_turn, running
from regrpo_jax.models.inputs import Array
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.token_choice import Sampling

SEGMENT = 64  # tokens between two looks at which branches still run


def decode(
    functions: PolicyFunctions,
    variables: Variables,
    decoding: Decoding,
    sampling: Sampling,
    budget: Array | None = None,
    *,
    segment: int = SEGMENT,
) -> tuple[Samples, Decoding]:
    """What `sampler.generate` gives, at less cost where branches finish early.

    Args:
      budget: int32, tokens that each branch may draw, `sampling.max_tokens` when None.  # [group, branch]
      segment: tokens between two looks at which branches still run.
    Raises:
      ValueError: `sampling.max_tokens` tokens do not fit into the cache.
    """
    turn = new_turn(decoding, sampling, budget)
    left: list[_Left] = []
    for start in range(0, sampling.max_tokens, segment):
        live = np.asarray(running(decoding.done, turn))  # [group, branch]
        if not live.any():
            break
        size = _fitting_size(live)
        if size != live.shape:
            places = _places(live, size)
            left.append(_Left(turn, decoding, places))
            turn, decoding = _moved_out(turn, decoding, places)
        until = min(start + segment, sampling.max_tokens)
        turn, decoding = draw(functions, variables, decoding, turn, sampling, until)
    for earlier in reversed(left):
        turn, decoding = _moved_back(earlier, turn, decoding)
    return finished_samples(turn, sampling), decoding


@dataclasses.dataclass(frozen=True)
class _Places:
    """Which rows of larger arrays make up smaller ones.

    Attributes:
      groups: int32.  # [small group]
      branches: int32.  # [small group, small branch]
      taken: bool, False where a row is there only to fill the array.  # [small group, small branch]
    """

    groups: np.ndarray
    branches: np.ndarray
    taken: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Left:
    """What a move into smaller arrays left behind: the branches that have finished wait here."""

    turn: Turn
    decoding: Decoding
    places: _Places


def _fitting_size(live: np.ndarray) -> tuple[int, int]:
    """Groups and branches to go on with: the smallest power of two that holds the live ones if it at least halves."""
    needed = (int(live.any(axis=1).sum()), int(live.sum(axis=1).max()))
    buckets = [1 << (count - 1).bit_length() for count in needed]
    groups, branches = (
        bucket if 2 * bucket <= size else size for bucket, size in zip(buckets, live.shape, strict=True)
    )
    return groups, branches


def _places(live: np.ndarray, size: tuple[int, int]) -> _Places:
    """Live groups and branches in front, in their order; what fills the rest is not taken."""
    # Groups that do not become fewer keep their places, so that their prefixes need not move.
    first = np.arange(len(live)) if size[0] == len(live) else np.argsort(~live.any(axis=1), stable=True)
    groups = first[: size[0]]
    branches = np.argsort(~live[groups], axis=1, stable=True)[:, : size[1]]
    taken = np.take_along_axis(live[groups], branches, axis=1)
    return _Places(groups.astype(np.int32), branches.astype(np.int32), taken)


def _moved_out(turn: Turn, decoding: Decoding, places: _Places) -> tuple[Turn, Decoding]:
    prefix = decoding.prefix
    if len(places.groups) < len(decoding.fed):
        prefix = jax.tree.map(operator.itemgetter(places.groups), prefix)
    turn, decoding = _with_rows(turn, decoding, _gathered(_rows(turn, decoding), places.groups, places.branches))
    keys = decoding.keys[places.groups[:, None], places.branches]
    done = decoding.done | ~places.taken
    return turn, dataclasses.replace(decoding, prefix=prefix, keys=keys, done=done)


def _moved_back(left: _Left, turn: Turn, decoding: Decoding) -> tuple[Turn, Decoding]:
    """The branches of smaller arrays to where they came from."""
    groups = np.where(left.places.taken, left.places.groups[:, None], len(left.decoding.fed))  # beyond: not written
    rows = _scattered(_rows(left.turn, left.decoding), _rows(turn, decoding), groups, left.places.branches)
    cache = dataclasses.replace(left.decoding.cache, length=decoding.cache.length)
    return _with_rows(
        dataclasses.replace(left.turn, time=turn.time), dataclasses.replace(left.decoding, cache=cache), rows
    )


def _rows(turn: Turn, decoding: Decoding) -> dict[str, Any]:
    """All arrays [group, branch, ..] but the random keys, which never change."""
    cache, shape = decoding.cache, decoding.fed.shape

    def apart(layers: tuple[Array, ...]) -> list[Array]:
        return [layer.reshape(*shape, *layer.shape[1:]) for layer in layers]

    return {
        "turn": {"budget": turn.budget, "samples": turn.samples},
        "decoding": {"fed": decoding.fed, "position": decoding.position, "done": decoding.done},
        "cache": {
            "keys": apart(cache.keys),
            "values": apart(cache.values),
            "valid": cache.valid,
            "last_tokens": cache.last_tokens,
        },
    }


def _with_rows(turn: Turn, decoding: Decoding, rows: dict[str, Any]) -> tuple[Turn, Decoding]:
    def together(layers: list[Array]) -> tuple[Array, ...]:
        return tuple(layer.reshape(-1, *layer.shape[2:]) for layer in layers)

    cache = dataclasses.replace(
        decoding.cache,
        keys=together(rows["cache"]["keys"]),
        values=together(rows["cache"]["values"]),
        valid=rows["cache"]["valid"],
        last_tokens=rows["cache"]["last_tokens"],
    )
    return dataclasses.replace(turn, **rows["turn"]), dataclasses.replace(decoding, **rows["decoding"], cache=cache)


@jax.jit
def _gathered(rows: Any, groups: Array, branches: Array) -> Any:
    return jax.tree.map(lambda array: array[groups[:, None], branches], rows)


@functools.partial(jax.jit, donate_argnames="rows")
def _scattered(rows: Any, smaller: Any, groups: Array, branches: Array) -> Any:
    """`groups` has one number per branch here.  # [small group, small branch]"""
    return jax.tree.map(lambda array, new: array.at[groups, branches].set(new, mode="drop"), rows, smaller)
