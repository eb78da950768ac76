"""Which axis of which weight is split over the devices of the mesh axis "model": tensor parallelism as a list of rules.

Pairs of products are split as in Megatron-LM (arXiv 1909.08053): the first by outputs, the second by inputs, so that
what lies between them is never gathered and each pair costs one sum over devices. The compiler puts it there; the
model's code does not know.
"""

import re
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Tree = Any

MODEL_AXIS = "model"
OUTPUTS = -1  # the last axis of a kernel, or a bias
INPUTS = -2  # the axis before it; of a table of embeddings, the vocabulary

# The end of a parameter's path -> the axis that is split. What none matches is replicated.
RULES: tuple[tuple[str, int], ...] = (
    (r"layers/(q|k|v|gate|up)_proj/(kernel|bias|up)", OUTPUTS),
    (r"layers/(o|down)_proj/(kernel|down)", INPUTS),
    (r"vision/blocks/(qkv|fc1|gate_proj|up_proj)/(kernel|bias|up)", OUTPUTS),
    (r"vision/blocks/(proj|fc2|down_proj)/(kernel|down)", INPUTS),
    (r"vision/(merger_|deepstack/)fc1/(kernel|bias|up)", OUTPUTS),
    (r"vision/(merger_|deepstack/)fc2/(kernel|down)", INPUTS),
    (r"(embedding|lm_head)", INPUTS),
)
QUANTIZED = r"(/qvalue|/scale)?"  # the two arrays of a quantised kernel, split alike


def partition_spec(path: str, shape: tuple[int, ...], parts: int) -> P:
    """How an array is split over `parts` devices; not at all where its axis does not divide.

    Written as the compiler writes it, without a None at the end, so that a step's output fits its next input.

    Args:
      path: names from the root to it, such as "params/layers/q_proj/kernel"; more before them does not matter, so
        that an optimizer's moments are split as their weights are.
    """
    for pattern, axis in RULES:
        if re.search(rf"(^|/){pattern}{QUANTIZED}$", path):
            is_split = parts > 1 and shape[axis] % parts == 0
            return P(*(None,) * (len(shape) + axis), MODEL_AXIS) if is_split else P()
    return P()


def param_shardings(tree: Tree, mesh: Mesh | AbstractMesh) -> Tree:
    """The sharding of every array of variables, an adapter, or a train state.

    Args:
      tree: of anything with a shape: arrays, `jax.ShapeDtypeStruct`s, tracers.
      mesh: with an axis "model"; arrays are replicated over its other axes.
    Returns:
      the tree with a `NamedSharding` in the place of each array.
    """

    def of_array(path: tuple[Any, ...], array: Any) -> NamedSharding:
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        return NamedSharding(mesh, partition_spec(name, array.shape, mesh.shape[MODEL_AXIS]))

    return jax.tree_util.tree_map_with_path(of_array, tree)


def place(tree: Tree, mesh: Mesh) -> Tree:
    """Puts a tree on the devices, split by the rules."""
    return jax.device_put(tree, param_shardings(tree, mesh))
