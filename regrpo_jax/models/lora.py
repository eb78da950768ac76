"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): arrays beside the weights, in their own collection.

The base weights never change, so applying the policy without the collection *is* the reference policy.
"""

import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

Array = jax.Array
Tree = dict[str, Any]

ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")


def init_adapter(key: Array, params: Tree, *, rank: int, targets: tuple[str, ...] = ATTENTION_TARGETS) -> Tree:
    """A fresh adapter for every decoder projection named in `targets`.

    `down` is uniform in +-1/sqrt(in_features) and `up` zero, as PEFT starts them: the adapted policy begins equal
    to its base.

    Args:
      params: the policy's parameters; kernels are [layer, in_features, out_features].
      rank: inner width.
      targets: names of projections, such as "q_proj".
    Returns:
      tree with `down` [layer, in_features, rank] and `up` [layer, rank, out_features] per projection.
    Raises:
      ValueError: rank below 1, no target, or a target that is not a projection of the decoder.
    """
    if rank < 1:
        raise ValueError(f"LoRA rank must be at least 1, got {rank}")
    flat = traverse_util.flatten_dict(params, sep="/")
    available = {path.split("/")[1] for path in flat if re.fullmatch(r"layers/\w+/kernel", path)}
    unknown = sorted(set(targets) - available)
    if unknown or not targets:
        complaint = f"no projection is named {', '.join(unknown)}" if unknown else "name at least one projection"
        raise ValueError(f"LoRA targets: {complaint}; there are {', '.join(sorted(available))}")
    kernels = {f"layers/{target}": flat[f"layers/{target}/kernel"] for target in targets}
    adapter: Tree = {}
    for index, (name, kernel) in enumerate(sorted(kernels.items())):
        layers, in_features, out_features = kernel.shape
        bound = in_features**-0.5
        down = jax.random.uniform(
            jax.random.fold_in(key, index), (layers, in_features, rank), jnp.float32, -bound, bound
        )
        adapter[f"{name}/down"] = down
        adapter[f"{name}/up"] = jnp.zeros((layers, rank, out_features), jnp.float32)
    return traverse_util.unflatten_dict(adapter, sep="/")


def merge_adapter(params: Tree, adapter: Tree, *, alpha: float) -> Tree:
    """Base weights with the adapter folded in: W + A B * alpha / rank."""
    flat = dict(traverse_util.flatten_dict(params, sep="/"))
    arrays = traverse_util.flatten_dict(adapter, sep="/")
    for path, down in arrays.items():
        if path.endswith("/down"):
            name = path.removesuffix("/down")
            update = jnp.einsum("lir,lro->lio", down, arrays[f"{name}/up"]) * (alpha / down.shape[-1])
            kernel = flat[f"{name}/kernel"]
            flat[f"{name}/kernel"] = (kernel + update).astype(kernel.dtype)
    return traverse_util.unflatten_dict(flat, sep="/")
