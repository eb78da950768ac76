"""Frozen base weights in eight or four bits (qwix), for an adapter on a small device."""

import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
import qwix
from flax import traverse_util

Array = jax.Array
Quantization = Literal["none", "int8", "nf4"]

BLOCK_KERNEL = re.compile(r"(layers|vision/blocks)/\w+/kernel")
TILE = 64  # inputs that share one scale in nf4 (QLoRA, arXiv 2305.14314)


def quantize(kernel: Array, kind: Quantization) -> Any:
    """A kernel in `kind`: int8 has a scale per output, nf4 one per output and `TILE` inputs.

    Args:
      kernel: # [.., in_features, out_features]
    Returns:
      the kernel itself for "none", otherwise a `qwix.QArray` of its shape.
    """
    if kind == "none":
        return kernel
    inputs = kernel.ndim - 2
    others = tuple(axis for axis in range(kernel.ndim) if axis != inputs)
    tile = TILE if kernel.shape[inputs] % TILE == 0 else kernel.shape[inputs]
    return qwix.quantize(
        kernel, jnp.int8 if kind == "int8" else kind, channelwise_axes=others,
        tiled_axes={inputs: tile} if kind == "nf4" else None,
    )  # fmt: skip


def stored(path: str, array: Array, *, kind: Quantization) -> Any:
    """A parameter as it is kept: the kernels of all blocks in `kind`, everything else as it is.

    Args:
      path: of the parameter, such as "layers/q_proj/kernel".
      array: all its layers or one of them.
    """
    return quantize(array, kind) if BLOCK_KERNEL.fullmatch(path) else array


def quantize_params(params: dict[str, Any], kind: Quantization) -> dict[str, Any]:
    """All parameters as `stored` keeps them."""
    flat = traverse_util.flatten_dict(params, sep="/")
    kept = {path: stored(path, array, kind=kind) for path, array in flat.items()}
    return traverse_util.unflatten_dict(kept, sep="/")


def dequantized(kernel: Any) -> Array:
    """The kernel as an array, whatever it is stored as."""
    return qwix.dequantize(kernel) if isinstance(kernel, qwix.QArray) else kernel
