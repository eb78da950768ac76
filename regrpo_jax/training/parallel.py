"""Data parallelism and gradient accumulation, both exact: every part divides by the denominator of the whole batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from regrpo_jax.errors import UserError

Tree = Any
Loss = Callable[[Tree, Tree, Tree, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]


def data_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """All devices along one axis named "data"."""
    return Mesh(np.array(devices if devices is not None else jax.devices()), ("data",))


def shard_batch(batch: Tree, mesh: Mesh) -> Tree:
    """Puts a host batch on the devices, its leading axis split over "data"."""
    return jax.device_put(batch, NamedSharding(mesh, P("data")))


def replicate(tree: Tree, mesh: Mesh) -> Tree:
    """Puts a tree whole on every device."""
    return jax.device_put(tree, NamedSharding(mesh, P()))


def check_divisible(rows: int, microbatches: int, mesh: Mesh, *, key: str) -> None:
    """Raises UserError when a batch of `rows` does not split evenly over devices and microbatches."""
    parts = mesh.size * microbatches
    if rows % parts:
        raise UserError(
            f"{key}={rows} does not split over {mesh.size} device(s) times {microbatches} microbatch(es); "
            f"make it a multiple of {parts}"
        )


def parallel_gradient(loss: Loss, mesh: Mesh, *, microbatches: int) -> Callable[..., tuple[Tree, dict]]:
    """Gradient of a loss that is a sum over rows divided by a given denominator.

    Args:
      loss: (trainable, frozen, batch, denominator) -> (scalar, metric sums), rows along every leading axis.
      mesh: the rows are split over its "data" axis.
      microbatches: each device's rows are further split into this many parts, visited one after another.
    Returns:
      (trainable, frozen, batch, denominator) -> (gradient, metric sums), equal for every mesh and split.
    """

    def of_part(trainable: Tree, frozen: Tree, part: Tree, denominator: jax.Array) -> tuple[Tree, dict]:
        gradient, sums = jax.grad(loss, has_aux=True)(trainable, frozen, part, denominator)
        return gradient, sums

    def of_shard(trainable: Tree, frozen: Tree, rows: Tree, denominator: jax.Array) -> tuple[Tree, dict]:
        parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), rows)
        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(of_part, trainable, frozen, first, denominator)
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def add(totals: tuple[Tree, dict], part: Tree) -> tuple[tuple[Tree, dict], None]:
            return jax.tree.map(jnp.add, totals, of_part(trainable, frozen, part, denominator)), None

        totals, _ = jax.lax.scan(add, nothing, parts)
        return jax.lax.psum(totals, "data")

    return jax.shard_map(of_shard, mesh=mesh, in_specs=(P(), P(), P("data"), P()), out_specs=P(), check_vma=False)
