"""Low-rank adapters (Hu et al. 2021, arXiv 2106.09685): arrays beside the weights, in their own collection.

The base weights never change, so applying the policy without the collection *is* the reference policy.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.quantization import BLOCK_KERNEL, dequantized

Array = jax.Array
Tree = dict[str, Any]

ATTENTION_TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj")
VISION_ATTENTION_TARGETS = ("qkv", "proj")


@dataclasses.dataclass(frozen=True)
class AdapterSettings:
    """Which projections a fresh adapter gets, and how wide it is; its scales are in `PolicyConfig`.

    Attributes:
      rank: inner width in the decoder.
      targets: the decoder's projections.
      last_layers: how many of the decoder's last layers learn; 0 for all.
      vision_rank: inner width in the vision tower; 0 leaves the tower frozen.
      vision_targets: projections of the tower's blocks.
    """

    rank: int
    targets: tuple[str, ...] = ATTENTION_TARGETS
    last_layers: int = 0
    vision_rank: int = 0
    vision_targets: tuple[str, ...] = VISION_ATTENTION_TARGETS


def init_adapter(key: Array, params: Tree, settings: AdapterSettings) -> Tree:
    """A fresh adapter, which changes nothing yet.

    `down` is uniform in +-1/sqrt(in_features) and `up` zero, as PEFT starts them. In layers that do not learn `down` is
    zero too: with y = x W + s x A B, the gradient of A is s x^T (dL/dy) B^T and that of B is s (x A)^T dL/dy. Both are
    exactly zero where A and B are, so Adam's moments stay zero there, and weight decay has nothing to shrink. The
    arrays thus stay stacked over all layers, as `nn.scan` wants them.

    Args:
      params: the policy's parameters, quantised or not; their shapes alone will do.
    Returns:
      per projection float32 `down` [layer, in_features, rank] and `up` [layer, rank, out_features].
    Raises:
      UserError: the policy lacks what the settings name; or a rank below 1.
    """
    adapter: Tree = {}
    for index, (name, kernel) in enumerate(sorted(_adapted_kernels(params, settings).items())):
        layers, in_features, out_features = kernel.shape
        rank, learning = settings.vision_rank, layers
        if name.startswith("layers/"):
            rank, learning = settings.rank, settings.last_layers or layers
        bound = in_features**-0.5
        shape = (layers, in_features, rank)
        down = jax.random.uniform(
            jax.random.fold_in(key, index), shape, jnp.float32, -bound, bound
        )  # [layer, in_features, rank]
        learns = jnp.arange(layers) >= layers - learning  # [layer]
        adapter[f"{name}/down"] = jnp.where(learns[:, None, None], down, 0.0)
        adapter[f"{name}/up"] = jnp.zeros((layers, rank, out_features), jnp.float32)
    return traverse_util.unflatten_dict(adapter, sep="/")


def check_settings(params: Tree, settings: AdapterSettings) -> None:
    """Raises UserError where `init_adapter` would, before anything costs time."""
    _adapted_kernels(params, settings)


def merge_adapter(params: Tree, adapter: Tree, config: PolicyConfig) -> Tree:
    """Base weights with the adapter folded in: W + A B * alpha / rank. Kernels with an adapter come back dense."""
    flat = dict(traverse_util.flatten_dict(params, sep="/"))
    arrays = traverse_util.flatten_dict(adapter, sep="/")
    for path, down in arrays.items():
        if path.endswith("/down"):
            name = path.removesuffix("/down")
            scale = adapter_alpha(config, name) / down.shape[-1]
            update = jnp.einsum("...ir,...ro->...io", down, arrays[f"{name}/up"]) * scale  # [.., in, out]
            kernel = dequantized(flat[f"{name}/kernel"])
            flat[f"{name}/kernel"] = (kernel + update).astype(kernel.dtype)
    return traverse_util.unflatten_dict(flat, sep="/")


def adapter_alpha(config: PolicyConfig, path: str) -> float:
    """Numerator of the scale of the adapter at `path`, such as "layers/q_proj"."""
    if path.startswith("vision/") and config.vision is not None:
        return config.vision.lora_alpha
    return config.lora_alpha


def _adapted_kernels(params: Tree, settings: AdapterSettings) -> Tree:
    """Path of each projection to adapt -> its kernel."""
    kernels = {
        path.removesuffix("/kernel"): kernel
        for path, kernel in traverse_util.flatten_dict(params, sep="/").items()
        if BLOCK_KERNEL.fullmatch(path)
    }
    chosen = _chosen(kernels, "layers", "lora.targets", settings.targets)
    layers = next(iter(chosen.values())).shape[0]
    if settings.rank < 1:
        raise UserError(f"config.lora.rank is {settings.rank}; it must be at least 1")
    if not 0 <= settings.last_layers <= layers:
        raise UserError(f"config.lora.last_layers is {settings.last_layers}; the decoder has {layers} layers")
    if settings.vision_rank:
        chosen |= _chosen(kernels, "vision/blocks", "lora.vision_targets", settings.vision_targets)
    return chosen


def _chosen(kernels: Tree, part: str, field: str, targets: tuple[str, ...]) -> Tree:
    available = {path.removeprefix(f"{part}/"): path for path in kernels if path.startswith(f"{part}/")}
    if not available:
        raise UserError("config.lora.vision_rank is set, but this policy has no vision tower; set it to 0")
    unknown = sorted(set(targets) - set(available))
    if unknown or not targets:
        complaint = f"names {', '.join(unknown)}" if unknown else "is empty"
        raise UserError(f"config.{field} {complaint}; this policy has {', '.join(sorted(available))}")
    return {available[target]: kernels[available[target]] for target in targets}
