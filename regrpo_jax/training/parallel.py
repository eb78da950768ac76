"""Data parallelism and gradient accumulation, both exact: every part divides by the denominator of the whole batch.

Rows are split over the mesh axes "data" and "fsdp". How weights are split over "fsdp" and "model" is
`models.sharding`'s business; devices along "model" see the same rows.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from regrpo_jax.errors import UserError
from regrpo_jax.models.process_arrays import from_own_rows, own_rows
from regrpo_jax.models.sharding import DATA_AXIS, FSDP_AXIS, MODEL_AXIS, fsdp_specs

Tree = Any
_AXES = (DATA_AXIS, FSDP_AXIS, MODEL_AXIS)
ROWS = P((DATA_AXIS, FSDP_AXIS))  # of a batch: the leading axis of every array
# (trainable, frozen, rows, denominator, dropout key) -> (scalar, metric sums)
Loss = Callable[[Tree, Tree, Tree, jax.Array, jax.Array | None], tuple[jax.Array, dict[str, jax.Array]]]


def device_mesh(devices: list[jax.Device] | None = None, *, fsdp: int = 1, model: int = 1) -> Mesh:
    """All devices as ("data", "fsdp", "model").

    Where a process has whole copies of the weights on its devices, these are neighbours along all axes.

    Args:
      devices: None takes all there are.
      fsdp: devices that have a part of the weights each, and rows of their own.
      model: devices that have a part of the weights each, and the same rows.
    Raises:
      UserError: the devices do not divide by `fsdp` times `model`.
    """
    devices = devices if devices is not None else jax.devices()
    if len(devices) % (fsdp * model):
        raise UserError(
            f"config.mesh.fsdp={fsdp} times config.mesh.model={model} does not divide the number of devices, "
            f"{len(devices)}"
        )
    processes = sorted({device.process_index for device in devices})
    own = len(devices) // len(processes)
    if len(processes) == 1 or own % (fsdp * model):
        return _mesh(devices, fsdp, model)
    parts = [
        _mesh([device for device in devices if device.process_index == process], fsdp, model) for process in processes
    ]
    return Mesh(np.concatenate([part.devices for part in parts]), _AXES, axis_types=(AxisType.Auto,) * 3)


def _mesh(devices: list[jax.Device], fsdp: int, model: int) -> Mesh:
    shape = (len(devices) // (fsdp * model), fsdp, model)
    return jax.make_mesh(shape, _AXES, axis_types=(AxisType.Auto,) * 3, devices=devices)


def own_mesh(mesh: Mesh) -> Mesh | None:
    """The devices of this process, as the mesh has them; None where no copy of the weights is whole on them."""
    own = {device for device in mesh.devices.flat if device.process_index == jax.process_index()}
    copies = [copy for copy in mesh.devices if own.issuperset(copy.flat)]
    if sum(copy.size for copy in copies) != len(own):
        return None
    return Mesh(np.stack(copies), _AXES, axis_types=(AxisType.Auto,) * 3)


@contextlib.contextmanager
def mesh_in_context(mesh: Mesh) -> Iterator[None]:
    """Tells kernels outside of updates what rows and weights are split over; of one device there is nothing to tell."""
    with jax.set_mesh(mesh) if mesh.size > 1 else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def own_mesh_in_context(mesh: Mesh) -> Iterator[None]:
    """Of several processes, tells those kernels of this one's devices alone; in one process nothing changes."""
    own = own_mesh(mesh) if mesh.is_multi_process else None
    with contextlib.nullcontext() if own is None else jax.set_mesh(own):
        yield


def row_shards(mesh: Mesh) -> int:
    """Parts that the rows of a batch are split into."""
    return mesh.shape[DATA_AXIS] * mesh.shape[FSDP_AXIS]


def shard_batch(batch: Tree, mesh: Mesh) -> Tree:
    """Puts a host batch on the devices, its leading axis split over "data" and "fsdp".

    Args:
      batch: of numpy arrays, in one process of all rows, in several of those that `rows_here` says.
    """
    sharding = NamedSharding(mesh, ROWS)
    if sharding.is_fully_addressable:
        return jax.device_put(batch, sharding)
    here = len(jax.tree.leaves(batch)[0])
    shards = len(own_rows(sharding, row_shards(mesh)))
    return from_own_rows(batch, sharding, here * row_shards(mesh) // shards)


def rows_here(mesh: Mesh, rows: int) -> list[int] | None:
    """Which of so many rows of a batch this process makes; None for all of them, in one process."""
    sharding = NamedSharding(mesh, ROWS)
    return None if sharding.is_fully_addressable else own_rows(sharding, rows)


def check_divisible(rows: int, microbatches: int, mesh: Mesh, *, key: str) -> None:
    """Raises UserError when a batch of `rows` does not split evenly over the devices and microbatches."""
    shards = row_shards(mesh)
    if rows % (shards * microbatches):
        raise UserError(
            f"{key}={rows} does not split over {shards} data-parallel device(s) times {microbatches} microbatch(es); "
            f"make it a multiple of {shards * microbatches}"
        )


def over_rows(function: Callable[..., Tree], mesh: Mesh, *, in_specs: Tree, out_specs: Tree) -> Callable[..., Tree]:
    """`function` on each device's rows and part of the weights, as `jax.shard_map`; "model" is left to the compiler.

    With an axis "model" of one device there is nothing to leave, and the function may hold kernels that the compiler
    cannot split.
    """
    axes = set(mesh.axis_names) - ({MODEL_AXIS} if mesh.shape[MODEL_AXIS] > 1 else set())
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names=axes, check_vma=False)


def parallel_gradient(loss: Loss, mesh: Mesh, *, microbatches: int) -> Callable[..., tuple[Tree, dict]]:
    """Gradient of a loss that is a sum over rows divided by a given denominator.

    Args:
      loss: (trainable, frozen, batch, denominator, dropout key) -> (scalar, metric sums), rows along every leading
        axis; the key, where there is one, is another for each part of the batch.
      mesh: see `device_mesh`.
      microbatches: each device's rows are further split into this many parts, visited one after another.
    Returns:
      (trainable, frozen, batch, denominator, dropout key | None) -> (gradient, metric sums), equal for every mesh and
      split where nothing is dropped.
    """

    def of_part(trainable: Tree, frozen: Tree, part: tuple, denominator: jax.Array, key: Any) -> tuple[Tree, dict]:
        rows, number = part
        key = None if key is None else jax.random.fold_in(key, number)
        gradient, sums = jax.grad(loss, has_aux=True)(trainable, frozen, rows, denominator, key)
        return gradient, sums

    def of_shard(trainable: Tree, frozen: Tree, rows: Tree, denominator: jax.Array, key: Any) -> tuple[Tree, dict]:
        first_part = jax.lax.axis_index((DATA_AXIS, FSDP_AXIS)) * microbatches
        parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), rows)
        parts = (parts, first_part + jnp.arange(microbatches))
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(of_part, trainable, frozen, first, denominator, key)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def add(totals: tuple[Tree, dict], part: tuple) -> tuple[tuple[Tree, dict], None]:
            return jax.tree.map(jnp.add, totals, of_part(trainable, frozen, part, denominator, key)), None

        (gradient, sums), _ = jax.lax.scan(add, nothing, parts)
        return gradient, sums

    def gradient_of(trainable: Tree, frozen: Tree, rows: Tree, denominator: jax.Array, key: Any) -> tuple[Tree, dict]:
        specs = fsdp_specs((trainable, frozen), mesh)

        def summed(*parts: Any) -> tuple[Tree, dict]:
            gradient, sums = of_shard(*parts)
            sums = jax.tree.map(lambda array: _summed(array, P(), mesh), sums)
            return jax.tree.map(lambda array, spec: _summed(array, spec, mesh), gradient, specs[0]), sums

        split = over_rows(summed, mesh, in_specs=(*specs, ROWS, P(), P()), out_specs=(specs[0], P()))
        return split(trainable, frozen, rows, denominator, key)

    return gradient_of


def _summed(array: jax.Array, spec: P, mesh: Mesh) -> jax.Array:
    """The sum over devices with other rows. What is split over "fsdp" was summed over it when it was scattered."""
    others = (DATA_AXIS,) if FSDP_AXIS in spec else (DATA_AXIS, FSDP_AXIS)
    # The compiler refuses a sum over the one device of an axis next to an axis that it splits itself.
    axes = tuple(axis for axis in others if mesh.shape[axis] > 1)
    return jax.lax.psum(array, axes) if axes else array
