"""How what is played lies on devices, which the compiler splits: rows over "data" and "fsdp", each with its caches.

In an update each device gathers a layer's weights and keeps its rows (`sharding.whole`). What plays is not under that
`shard_map`, and one token of every branch is far smaller than a layer: its rows go to where the parts of the weights
are, and sums come back. A prefix is larger than a layer, so there the weights come to the rows. Left to itself the
compiler gathers the weights of all layers for each token that is drawn, or puts every cache on every device.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from regrpo_jax.models.matmul import matmul
from regrpo_jax.models.sharding import DATA_AXIS, FSDP_AXIS, MODEL_AXIS, own_vocabulary_rows, partition_spec

Array = jax.Array
Tree = Any
Axes = tuple[str, ...]
ANY = P.UNCONSTRAINED


def row_axes(count: int, mesh: Mesh | AbstractMesh) -> Axes:
    """The axes that so many rows are split over: "data" and "fsdp", one of them, or none where they do not divide."""
    for axes in ((DATA_AXIS, FSDP_AXIS), (DATA_AXIS,), (FSDP_AXIS,)):
        devices = math.prod(mesh.shape[axis] for axis in axes)
        if devices > 1 and count % devices == 0:
            return tuple(axis for axis in axes if mesh.shape[axis] > 1)
    return ()


def row_sharding(array: Any, mesh: Mesh, axis: int = 0) -> NamedSharding:
    """Of an array of which an axis counts groups, rows or branches; a scalar is everywhere."""
    shape = np.shape(array)
    axes = row_axes(shape[axis], mesh) if shape else ()
    return NamedSharding(mesh, P(*[None] * axis, axes) if axes else P())


def spread(tree: Tree, mesh: Mesh | None) -> Tree:
    """Arrays of the host on the devices of their rows; None leaves them."""
    if mesh is None:
        return tree
    return jax.tree.map(lambda array: jax.device_put(array, row_sharding(array, mesh)), tree)


def rows_apart(tree: Tree, axis: int = 0) -> Tree:
    """Arrays of a program on the devices of their rows, whatever else they are split over."""
    mesh = _mesh()
    if mesh is None:
        return tree

    def apart(array: Array) -> Array:
        axes = row_axes(array.shape[axis], mesh) if array.ndim else ()
        if not axes:
            return array
        return jax.lax.with_sharding_constraint(array, P(*[ANY] * axis, axes, *[ANY] * (array.ndim - axis - 1)))

    return jax.tree.map(apart, tree)


def product(inputs: Array, weight: Array, path: str) -> Array | None:
    """inputs @ weight, the smaller of them sent to where the other one is; None where "fsdp" does not split the weight.

    Args:
      inputs: # [row, .., in_features]
      weight: # [in_features, out_features]
      path: of the weight, such as "layers/q_proj/kernel".
    Returns:
      # [row, .., out_features]
    """
    mesh = _mesh()
    if mesh is None:
        return None
    spec = partition_spec(path, weight.shape, model=mesh.shape[MODEL_AXIS], fsdp=mesh.shape[FSDP_AXIS])
    if FSDP_AXIS not in _names(tuple(spec)):
        return None
    together = math.prod(inputs.shape[:-1]) // (mesh.shape[DATA_AXIS] if _of_data(inputs, mesh) else 1)
    if together * sum(weight.shape) < math.prod(weight.shape):
        return _where_the_weight_is(inputs, weight, mesh, spec)
    kept = P(*[tuple(name for name in _names((part,)) if name != FSDP_AXIS) for part in spec])
    outputs: Array = rows_apart(matmul(rows_apart(inputs), jax.lax.with_sharding_constraint(weight, kept)))
    return outputs


def _where_the_weight_is(inputs: Array, weight: Array, mesh: AbstractMesh, spec: P) -> Array:
    """Each device multiplies its part of the weight with all rows. Under a `shard_map`: a compiler that is only told
    how the product's rows end up gathers the weight instead."""
    of_inputs, of_outputs = (*spec, None, None)[:2]
    rows, between = _of_data(inputs, mesh), [None] * (inputs.ndim - 2)
    scatters = FSDP_AXIS in row_axes(len(inputs), mesh) and FSDP_AXIS in _names((of_inputs,))
    summed_over = tuple(name for name in _names((of_inputs,)) if not (scatters and name == FSDP_AXIS))

    def on_own_part(own_inputs: Array, own_weight: Array) -> Array:
        outputs = matmul(own_inputs, own_weight)
        if scatters:
            outputs = jax.lax.psum_scatter(outputs, FSDP_AXIS, tiled=True)
        return jax.lax.psum(outputs, summed_over) if summed_over else outputs

    outputs = jax.shard_map(
        on_own_part,
        in_specs=(P(rows, *between, of_inputs), spec),
        out_specs=P((*_names((rows,)), FSDP_AXIS) if scatters else rows, *between, of_outputs),
        check_vma=False,
    )(inputs, weight)
    return rows_apart(outputs)


def vocabulary_rows(table: Array, tokens: Array) -> Array | None:
    """table[tokens], each device looking up in its part; None where "fsdp" does not split the table.

    Args:
      table: # [vocab, hidden]
      tokens: int32.  # [row, ..]
    Returns:
      # [row, .., hidden]
    """
    mesh = _mesh()
    if mesh is None:
        return None
    spec = partition_spec("embedding", table.shape, model=mesh.shape[MODEL_AXIS], fsdp=mesh.shape[FSDP_AXIS])
    axes = _names(tuple(spec))
    if FSDP_AXIS not in axes:
        return None
    rows, others = _of_data(tokens, mesh), [None] * (tokens.ndim - 1)

    def on_own_part(tokens: Array, part: Array) -> Array:
        return jax.lax.psum(own_vocabulary_rows(part, tokens, axes), axes)

    found = jax.shard_map(
        on_own_part, in_specs=(P(rows, *others), spec), out_specs=P(rows, *others, None), check_vma=False
    )(tokens, table)
    apart: Array = rows_apart(found)
    return apart


def to_vocabulary(hidden: Array) -> Array:
    """Hidden states on every device of "fsdp", where each meets its part of a vocabulary."""
    mesh = _mesh()
    if mesh is None or mesh.shape[FSDP_AXIS] == 1:
        return hidden
    return jax.lax.with_sharding_constraint(hidden, P(_of_data(hidden, mesh), *[None] * (hidden.ndim - 1)))


def _of_data(array: Array, mesh: AbstractMesh) -> str | None:
    """The axis of rows that are on every device of "fsdp"."""
    return DATA_AXIS if mesh.shape[DATA_AXIS] > 1 and array.shape[0] % mesh.shape[DATA_AXIS] == 0 else None


def _names(parts: Sequence[str | Axes | None]) -> Axes:
    """The axes in parts of a specification."""
    found: list[str] = []
    for part in parts:
        found += [part] if isinstance(part, str) else part or ()
    return tuple(found)


def _mesh() -> AbstractMesh | None:
    """The mesh in context where the compiler splits rows over it; None in an update, and where there is none."""
    mesh = jax.sharding.get_abstract_mesh()
    is_left = FSDP_AXIS in mesh.axis_names and not {DATA_AXIS, FSDP_AXIS} & set(mesh.manual_axes)
    return mesh if is_left else None
