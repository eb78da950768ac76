"""Which branches stand in which rows while they decode: those that are over leave, so that they cost nothing.

A row holds a few branches of one group (`lanes`) beside a copy of its prefix. Rows and slots come in few sizes, because
every size is compiled: rows in powers of four, slots in powers of two.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from regrpo_jax.agent.policy import Branch
from regrpo_jax.models.decoding_state import Decoding, on_their_rows
from regrpo_jax.models.inputs import Array, BranchCache, PrefixLayers
from regrpo_jax.models.play_sharding import rows_apart

FEWEST_SLOTS = 64
SHRINKING = 4


@dataclasses.dataclass(frozen=True)
class Rows:
    """The branches of each row; [] where a row only fills the array."""

    branches: tuple[tuple[Branch, ...], ...]
    lanes: int

    @functools.cached_property
    def places(self) -> dict[Branch, tuple[int, int]]:
        """Row and lane of each branch."""
        return {branch: (row, lane) for row, group in enumerate(self.branches) for lane, branch in enumerate(group)}


def row_count(needed: int, most: int) -> int:
    """Rows of the arrays that hold as many, of arrays that began with `most`."""
    rows = most
    while rows % SHRINKING == 0 and rows // SHRINKING >= needed:
        rows //= SHRINKING
    return rows


def slot_count(needed: int) -> int:
    """Slots of the cache that hold as many tokens."""
    return max(FEWEST_SLOTS, 1 << (needed - 1).bit_length())


def arranged(live: Sequence[Branch], lanes: int, most: int = 0) -> Rows:
    """Live branches in as few rows as their groups allow; most: rows that the arrays began with, 0 to begin."""
    by_group: dict[int, list[Branch]] = {}
    for branch in live:
        by_group.setdefault(branch[0], []).append(branch)
    rows = [tuple(group[first : first + lanes]) for group in by_group.values() for first in range(0, len(group), lanes)]
    count = row_count(len(rows), most) if most else 1 << (len(rows) - 1).bit_length()
    return Rows((*rows, *[()] * (count - len(rows))), lanes)


def moved(decoding: Decoding, old: dict[Branch, tuple[int, int]], new: Rows, slots: int) -> Decoding:
    """The branches in their new rows, the slots in use in front; `slots` must hold the longest of them."""
    rows = np.zeros((len(new.branches), new.lanes), np.int32)
    lanes, taken = np.zeros_like(rows), np.zeros(rows.shape, bool)
    for branch, place in new.places.items():
        (rows[place], lanes[place]), taken[place] = old[branch], True
    # A lane that is not taken holds a copy of its row's first, so that it belongs to the same group.
    rows = np.where(taken, rows, rows[:, :1])
    return moved_compiled(decoding, rows, lanes, taken, slots=slots)


@functools.partial(jax.jit, static_argnames="slots")
def moved_compiled(decoding: Decoding, rows: Array, lanes: Array, taken: Array, *, slots: int) -> Decoding:
    cache, prefix = decoding.cache, decoding.prefix
    flat = (rows * decoding.fed.shape[1] + lanes).reshape(-1)  # [row * lane]
    valid = cache.valid[rows, lanes] & taken[..., None]  # [row, lane, old slot]
    valid = jnp.pad(valid, ((0, 0), (0, 0), (0, max(0, slots - valid.shape[-1]))))
    order = jnp.argsort(~valid, axis=-1, stable=True)[..., :slots]  # [row, lane, slot]
    old_slots = jnp.minimum(order, cache.valid.shape[-1] - 1).reshape(len(flat), 1, slots)

    def keys(layer: Array) -> Array:  # [row * lane, kv_head, head_dim, slot]
        return rows_apart(jnp.take_along_axis(layer[flat], old_slots[:, :, None], axis=3))

    def values(layer: Array) -> Array:  # [row * lane, kv_head, slot, head_dim]
        return rows_apart(jnp.take_along_axis(layer[flat], old_slots[..., None], axis=2))

    def of_row(layer: Array) -> Array:
        return rows_apart(layer[rows[:, 0]])

    kept = jnp.take_along_axis(valid, order, axis=-1)  # [row, lane, slot]
    decoding = Decoding(
        prefix=PrefixLayers(
            keys=tuple(_by_layer(of_row, run) for run in prefix.keys),
            values=tuple(_by_layer(of_row, run) for run in prefix.values),
            valid=of_row(prefix.valid),
            last_tokens=of_row(prefix.last_tokens),
        ),
        cache=BranchCache(
            keys=tuple(_by_layer(keys, run) for run in cache.keys),
            values=tuple(_by_layer(values, run) for run in cache.values),
            valid=kept,
            last_tokens=cache.last_tokens[rows, lanes],
            length=jnp.max(jnp.sum(kept, axis=-1)).astype(jnp.int32),
        ),
        fed=decoding.fed[rows, lanes],
        fed_image=decoding.fed_image[rows, lanes],
        position=decoding.position[rows, lanes],
        done=decoding.done[rows, lanes] | ~taken,
        keys=decoding.keys[rows, lanes],
    )
    return on_their_rows(decoding)


def _by_layer(function: Callable[[Array], Array], run: Array) -> Array:
    """function of each layer of a run, one after the other: rows may come from other devices."""
    return function(run[0])[None] if len(run) == 1 else jax.lax.map(function, run)
