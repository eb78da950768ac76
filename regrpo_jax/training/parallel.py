"""Data parallelism and gradient accumulation, both exact: every part divides by the denominator of the whole batch.

Weights split over the second mesh axis are `models.sharding`'s business; here every device along it sees the same rows.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from regrpo_jax.errors import UserError
from regrpo_jax.models.sharding import MODEL_AXIS

Tree = Any
DATA_AXIS = "data"
# (trainable, frozen, rows, denominator, dropout key) -> (scalar, metric sums)
Loss = Callable[[Tree, Tree, Tree, jax.Array, jax.Array | None], tuple[jax.Array, dict[str, jax.Array]]]


def device_mesh(devices: list[jax.Device] | None = None, *, model: int = 1) -> Mesh:
    """All devices as ("data", "model"): rows of a batch are split over the first axis, weights over the second.

    Args:
      devices: None takes all there are.
      model: devices that share one copy of the weights.
    Raises:
      UserError: the devices do not divide by `model`.
    """
    devices = devices if devices is not None else jax.devices()
    if len(devices) % model:
        raise UserError(f"config.mesh.model={model} does not divide the number of devices, {len(devices)}")
    shape = (len(devices) // model, model)
    return jax.make_mesh(shape, (DATA_AXIS, MODEL_AXIS), axis_types=(AxisType.Auto,) * 2, devices=devices)


def weight_axis(mesh: Mesh) -> str | None:
    """The axis that weights are split over; None where every device has them whole."""
    return MODEL_AXIS if mesh.shape[MODEL_AXIS] > 1 else None


def shard_batch(batch: Tree, mesh: Mesh) -> Tree:
    """Puts a host batch on the devices, its leading axis split over "data"."""
    return jax.device_put(batch, NamedSharding(mesh, P(DATA_AXIS)))


def check_divisible(rows: int, microbatches: int, mesh: Mesh, *, key: str) -> None:
    """Raises UserError when a batch of `rows` does not split evenly over the "data" axis and microbatches."""
    shards = mesh.shape[DATA_AXIS]
    if rows % (shards * microbatches):
        raise UserError(
            f"{key}={rows} does not split over {shards} data-parallel device(s) times {microbatches} microbatch(es); "
            f"make it a multiple of {shards * microbatches}"
        )


def over_rows(function: Callable[..., Tree], mesh: Mesh, *, in_specs: tuple[P, ...], out_specs: P) -> Callable:
    """`function` on each device's rows, as `jax.shard_map` over "data"; "model" is left to the compiler.

    With an axis "model" of one device there is nothing to leave, and the function may hold kernels that the compiler
    cannot split.
    """
    axes = {DATA_AXIS} if weight_axis(mesh) else {DATA_AXIS, MODEL_AXIS}
    return jax.shard_map(function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, axis_names=axes, check_vma=False)


def parallel_gradient(loss: Loss, mesh: Mesh, *, microbatches: int) -> Callable[..., tuple[Tree, dict]]:
    """Gradient of a loss that is a sum over rows divided by a given denominator.

    Args:
      loss: (trainable, frozen, batch, denominator, dropout key) -> (scalar, metric sums), rows along every leading
        axis; the key, where there is one, is another for each part of the batch.
      mesh: the rows are split over its "data" axis.
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
        first_part = jax.lax.axis_index(DATA_AXIS) * microbatches
        parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), rows)
        parts = (parts, first_part + jnp.arange(microbatches))
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(of_part, trainable, frozen, first, denominator, key)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def add(totals: tuple[Tree, dict], part: tuple) -> tuple[tuple[Tree, dict], None]:
            return jax.tree.map(jnp.add, totals, of_part(trainable, frozen, part, denominator, key)), None

        totals, _ = jax.lax.scan(add, nothing, parts)
        # The compiler refuses a sum over the one device of an axis next to an axis that it splits itself.
        return jax.lax.psum(totals, DATA_AXIS) if mesh.shape[DATA_AXIS] > 1 else totals

    return over_rows(of_shard, mesh, in_specs=(P(), P(), P(DATA_AXIS), P(), P()), out_specs=P())
