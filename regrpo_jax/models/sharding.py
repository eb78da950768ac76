"""Which axis of which weight is split over the mesh axes "fsdp" and "model", as one list of rules.

Over "model" pairs of products are split as in Megatron-LM (arXiv 1909.08053): the first by outputs, the second by
inputs, so that what lies between them is never gathered and each pair costs one sum over devices. The compiler puts it
there; the model's code does not know. Over "fsdp" every device has other rows of the batch and a part of every weight
(ZeRO-3, arXiv 1910.02054): the axis that "model" leaves whole. A layer's weights are gathered where they meet their
inputs (`whole`), one layer at a time, and what that is differentiated to scatters their gradient again. Vocabularies
are never gathered: tokens and hidden states go to the rows that they need.
"""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from regrpo_jax.models.process_arrays import put

Array = jax.Array
Tree = Any

DATA_AXIS = "data"
FSDP_AXIS = "fsdp"
MODEL_AXIS = "model"
OUTPUTS = -1  # the last axis of a kernel, or a bias
INPUTS = -2  # the axis before it
GATHERED = "gathered"  # what `whole` puts together, by the name that recomputation knows it by

# The end of a parameter's path -> the axes that "model" and "fsdp" split. What none matches is whole everywhere.
RULES: tuple[tuple[str, int | None, int | None], ...] = (
    (r"layers/(q|k|v|gate|up)_proj/(kernel|up)", OUTPUTS, INPUTS),
    (r"layers/(q|k|v|gate|up)_proj/down", None, INPUTS),
    (r"layers/(o|down)_proj/(kernel|down)", INPUTS, OUTPUTS),
    (r"layers/(o|down)_proj/up", None, OUTPUTS),
    (r"vision/blocks/(qkv|fc1|gate_proj|up_proj)/(kernel|up)", OUTPUTS, INPUTS),
    (r"vision/blocks/(qkv|fc1|gate_proj|up_proj)/down", None, INPUTS),
    (r"vision/blocks/(proj|fc2|down_proj)/(kernel|down)", INPUTS, OUTPUTS),
    (r"vision/blocks/(proj|fc2|down_proj)/up", None, OUTPUTS),
    (r"vision/(merger_|deepstack/)fc1/(kernel|up)", OUTPUTS, INPUTS),
    (r"vision/(merger_|deepstack/)fc2/(kernel|down)", INPUTS, OUTPUTS),
    (r"layers/(q|k|v)_proj/bias", OUTPUTS, None),
    (r"vision/blocks/(qkv|fc1|gate_proj|up_proj)/bias", OUTPUTS, None),
    (r"vision/(merger_|deepstack/)fc1/bias", OUTPUTS, None),
    (r"(embedding|lm_head)", INPUTS, INPUTS),  # the vocabulary
)  # fmt: skip
QUANTIZED = r"(/qvalue|/scale)?"  # the two arrays of a quantised kernel, split alike


def partition_spec(path: str, shape: tuple[int, ...], *, model: int, fsdp: int = 1) -> P:
    """How an array is split over so many devices of each axis; not over those that its axis does not divide by.

    Written as the compiler writes it, without a None at the end, so that a step's output fits its next input.

    Args:
      path: names from the root to it, such as "params/layers/q_proj/kernel"; more before them does not matter, so
        that an optimizer's moments are split as their weights are.
    """
    for pattern, of_model, of_fsdp in RULES:
        if re.search(rf"(^|/){pattern}{QUANTIZED}$", path):
            parts: list[tuple[str, ...]] = [()] * len(shape)
            left = list(shape)
            for name, axis, devices in ((FSDP_AXIS, of_fsdp, fsdp), (MODEL_AXIS, of_model, model)):
                if axis is not None and devices > 1 and left[axis] % devices == 0:
                    parts[axis] = (*parts[axis], name)
                    left[axis] //= devices
            return _shortest(parts)
    return P()


def _shortest(parts: list[tuple[str, ...]]) -> P:
    while parts and not parts[-1]:
        parts = parts[:-1]
    return P(*(names[0] if len(names) == 1 else names or None for names in parts))


def param_shardings(tree: Tree, mesh: Mesh | AbstractMesh) -> Tree:
    """The sharding of every array of variables, an adapter, or a train state.

    Args:
      tree: of anything with a shape: arrays, `jax.ShapeDtypeStruct`s, tracers.
      mesh: with axes "fsdp" and "model"; arrays are replicated over its other axes.
    Returns:
      the tree with a `NamedSharding` in the place of each array.
    """

    def of_array(path: tuple[Any, ...], array: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        devices = {"model": mesh.shape[MODEL_AXIS], "fsdp": mesh.shape[FSDP_AXIS]}
        return NamedSharding(mesh, partition_spec(name, array.shape, **devices))

    return jax.tree_util.tree_map_with_path(of_array, tree)


def fsdp_specs(tree: Tree, mesh: Mesh) -> Tree:
    """The part of `param_shardings` that "fsdp" has in it, which is what a `shard_map` over it is told."""

    def of_fsdp(sharding: NamedSharding) -> P:
        names = [part if isinstance(part, tuple) else (part,) for part in sharding.spec]
        return _shortest([(FSDP_AXIS,) if FSDP_AXIS in part else () for part in names])

    return jax.tree.map(of_fsdp, param_shardings(tree, mesh))


def place(tree: Tree, mesh: Mesh) -> Tree:
    """Puts a tree on the devices, split by the rules."""
    return put(tree, param_shardings(tree, mesh))


def whole(weight: Array, shape: tuple[int, ...], path: str) -> Array:
    """The weight of that shape, of which a device of "fsdp" may have a part; its gradient is scattered in turn.

    Args:
      path: of the weight, such as "layers/q_proj/kernel".
    """
    if weight.shape == shape:
        return weight
    spec = partition_spec(path, shape, model=left_to_compiler())
    for axis, (own, wanted) in enumerate(zip(weight.shape, shape, strict=True)):
        if own != wanted:
            weight = _gathered(weight, axis, spec)
    return checkpoint_name(weight, GATHERED)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _gathered(weight: Array, axis: int, spec: P) -> Array:
    """All parts of a weight along an axis.

    spec: what "model" splits. The compiler would put that together first: it cannot split a gather that it did not
    make. So each device of "model" gathers its own.
    """
    gather = functools.partial(jax.lax.all_gather, axis_name=FSDP_AXIS, axis=axis, tiled=True)
    return _on_own_part(gather, spec)(weight)


def _gathered_forward(weight: Array, axis: int, spec: P) -> tuple[Array, None]:
    return _gathered(weight, axis, spec), None


def _gathered_backward(axis: int, spec: P, residuals: None, cotangent: Array) -> tuple[Array]:
    scatter = functools.partial(jax.lax.psum_scatter, axis_name=FSDP_AXIS, scatter_dimension=axis, tiled=True)
    return (_on_own_part(scatter, spec)(cotangent),)


_gathered.defvjp(_gathered_forward, _gathered_backward)


def _on_own_part(function: Callable[..., Array], spec: P) -> Callable[..., Array]:
    if not spec:
        return function
    return jax.shard_map(function, in_specs=spec, out_specs=spec, axis_names={MODEL_AXIS}, check_vma=False)


def vocabulary_rows(table: Array, tokens: Array, vocab_size: int) -> Array:
    """table[tokens]; where a device of "fsdp" has a part of the rows, tokens are sent to them and rows come back.

    Args:
      table: # [vocab or a part of it, hidden]
      tokens: int32.  # [row, ..]
    Returns:
      # [row, .., hidden]
    """
    if table.shape[0] == vocab_size:
        return table[tokens]
    asked = jax.lax.all_gather(tokens, FSDP_AXIS, tiled=True)  # [all rows, ..]
    return jax.lax.psum_scatter(own_vocabulary_rows(table, asked, FSDP_AXIS), FSDP_AXIS, tiled=True)


def own_vocabulary_rows(part: Array, tokens: Array, axes: str | tuple[str, ...]) -> Array:
    """table[tokens] of a table that is split over mesh axes, where this device has the row, else zeros.

    Args:
      part: of this device.  # [vocab / devices, hidden]
      tokens: int32.  # [row, ..]
    Returns:
      # [row, .., hidden]
    """
    asked = tokens - jax.lax.axis_index(axes) * len(part)
    is_here = (asked >= 0) & (asked < len(part))
    return jnp.where(is_here[..., None], part[jnp.where(is_here, asked, 0)], 0)


def gathers() -> bool:
    """Whether what is being traced runs on a device of several of "fsdp", each with its own part of the weights."""
    mesh = jax.sharding.get_abstract_mesh()
    return FSDP_AXIS in mesh.manual_axes and mesh.shape[FSDP_AXIS] > 1


def left_to_compiler() -> int:
    """Devices of "model" that the compiler splits what is being traced over; 1 where it does not."""
    mesh = jax.sharding.get_abstract_mesh()
    is_left = MODEL_AXIS in mesh.axis_names and MODEL_AXIS not in mesh.manual_axes
    return mesh.shape[MODEL_AXIS] if is_left else 1
