"""Arrays whose devices belong to several processes, of which each can look at its own devices only.

In one process these functions do what jax's own do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

Tree = Any


def put(tree: Tree, shardings: Tree) -> Tree:
    """`jax.device_put`, without asking the other processes whether they have the same numbers: all have read them."""
    return jax.tree.map(_put, tree, shardings)


def _put(array: Any, sharding: Sharding) -> jax.Array:
    moves_alone = isinstance(array, jax.Array) and not array.is_fully_addressable
    if sharding.is_fully_addressable or moves_alone:
        return jax.device_put(array, sharding)
    on_host = np.asarray(array)
    return jax.make_array_from_callback(on_host.shape, sharding, lambda index: on_host[index])


def fetched(array: Any) -> np.ndarray:
    """The whole array on every host. All processes have to ask, in the same order; it is whole on each device then."""
    if not isinstance(array, jax.Array) or array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return multihost_utils.process_allgather(array, tiled=True)


def own_rows(sharding: NamedSharding, rows: int) -> list[int]:
    """Rows, of so many along the leading axis, that devices of this process hold; ascending."""
    found: set[int] = set()
    for index in sharding.addressable_devices_indices_map((rows,)).values():
        assert index is not None
        found.update(range(rows)[index[0]])
    return sorted(found)


def from_own_rows(tree: Tree, sharding: NamedSharding, rows: int) -> Tree:
    """Arrays of all rows, of which this process has its own.

    Args:
      tree: of numpy arrays with those of `own_rows` alone.  # [own row, ..]
      rows: of all processes.
    """
    place = {row: number for number, row in enumerate(own_rows(sharding, rows))}

    def made(array: Any) -> jax.Array:
        shape = (rows, *array.shape[1:])

        def part(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # only arrays without axes have none
            wanted: Sequence[int] = range(rows)[index[0]]
            return array[place[wanted[0]] : place[wanted[-1]] + 1][(slice(None), *index[1:])]

        return jax.make_array_from_callback(shape, sharding, part)

    return jax.tree.map(made, tree)


def own_copy(tree: Tree, mesh: Mesh) -> Tree:
    """What the devices of this process hold of arrays, as arrays of this process alone; nothing is copied.

    Args:
      tree: of arrays that are whole on these devices.
      mesh: of these devices, its axes named as those that the arrays are split over.
    """

    def own(array: Any) -> Any:
        if not isinstance(array, jax.Array) or array.is_fully_addressable:
            return array
        spec = array.sharding.spec if isinstance(array.sharding, NamedSharding) else PartitionSpec()
        parts = [shard.data for shard in array.addressable_shards]
        return jax.make_array_from_single_device_arrays(array.shape, NamedSharding(mesh, spec), parts)

    return jax.tree.map(own, tree)
