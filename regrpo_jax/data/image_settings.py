"""How pictures become pixels for a vision tower: sizes and statistics, as a checkpoint's processor files state them."""

import copy
import dataclasses
from pathlib import Path
from typing import Any

from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import VisionConfig
from regrpo_jax.models.qwen2_vl.hf_config import read_json

# transformers 5 writes one file for the whole processor; before, and for an image processor alone, it is the other.
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


@dataclasses.dataclass(frozen=True)
class ImageSettings:
    """Settings of transformers' `Qwen2VLImageProcessor`; the defaults are those of the published Qwen2-VL.

    Attributes:
      min_pixels: a picture of fewer pixels is enlarged.
      max_pixels: a picture of more pixels is shrunk.
      image_mean: per channel, after rescaling (the statistics of CLIP).
      image_std: per channel.
      rescale_factor: multiplies the bytes of the picture.
      resample: filter of PIL for resizing, 3 is bicubic.
      patch_size: side of a patch in pixels.
      temporal_patch_size: frames of a patch; a still picture is repeated.
      merge_size: side of the square of patches that becomes one image token.
    """

    min_pixels: int = 56 * 56
    max_pixels: int = 12_845_056
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    rescale_factor: float = 1 / 255
    resample: int = Image.Resampling.BICUBIC.value
    patch_size: int = 14
    temporal_patch_size: int = 2
    merge_size: int = 2

    def within(self, min_pixels: int, max_pixels: int) -> "ImageSettings":
        """The same with a range of sizes that is no wider than asked for.

        Raises:
          UserError: nothing is left of the range.
        """
        smallest, largest = max(self.min_pixels, min_pixels), min(self.max_pixels, max_pixels)
        if smallest > largest:
            raise UserError(
                f"config.data.pixels=({min_pixels}, {max_pixels}) leaves no size that the "
                f"model's own range of {self.min_pixels} to {self.max_pixels} pixels allows"
            )
        return dataclasses.replace(self, min_pixels=smallest, max_pixels=largest)


# What the published Qwen3-VL states otherwise than Qwen2-VL; what its files leave out is the default of the processor.
QWEN3_VL: dict[str, Any] = {
    "min_pixels": 65_536,
    "max_pixels": 16_777_216,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
}


def image_settings(folder: Path | None, vision: VisionConfig) -> ImageSettings:
    """What a Hugging Face directory says about pictures, or the published defaults where it says nothing.

    Args:
      folder: with `processor_config.json` or `preprocessor_config.json`; None for a policy without a directory.
      vision: the tower that the patches are for.
    Raises:
      UserError: a file is broken, is of another kind of processor, or contradicts `vision`.
    """
    of_tower = ImageSettings(
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
    )
    path, stated = _stated(folder) if folder is not None else (None, {})
    if path is None:
        return dataclasses.replace(of_tower, **QWEN3_VL) if vision.interpolated_grid else of_tower
    try:
        settings = _parsed(stated, of_tower)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: these image settings cannot be used: {error}") from error
    for name in ("patch_size", "temporal_patch_size", "merge_size"):
        ours, theirs = getattr(of_tower, name), getattr(settings, name)
        if ours != theirs:
            raise UserError(
                f"{path}: {name} is {theirs}, but vision_config in config.json says {ours}; the two files belong to "
                "different models"
            )
    return settings


def _stated(folder: Path) -> tuple[Path | None, dict[str, Any]]:
    """The file that speaks of images and what it says; transformers looks in the same order."""
    for name in PROCESSOR_FILES:
        path = folder / name
        if not path.exists():
            continue
        content = read_json(path)
        stated = content.get("image_processor") if name == PROCESSOR_FILES[0] else content
        if isinstance(stated, dict):
            return path, stated
    return None, {}


def _parsed(stated: dict[str, Any], defaults: ImageSettings) -> ImageSettings:
    """Raises TypeError or ValueError for what is no setting of a Qwen2-VL image processor."""
    kind = stated.get("image_processor_type", "Qwen2VLImageProcessor")
    if not str(kind).startswith(("Qwen2VL", "Qwen2_5_VL")):
        raise ValueError(f"image_processor_type is {kind!r}, only Qwen2VLImageProcessor is supported")
    for step in ("do_convert_rgb", "do_resize", "do_rescale", "do_normalize"):
        if stated.get(step, True) is not True:
            raise ValueError(f"{step} is {stated[step]!r}, only true is supported")
    least, most = _pixels(stated)
    settings = ImageSettings(
        min_pixels=int(least),
        max_pixels=int(most),
        image_mean=_channels(stated.get("image_mean", defaults.image_mean)),
        image_std=_channels(stated.get("image_std", defaults.image_std)),
        rescale_factor=float(stated.get("rescale_factor", defaults.rescale_factor)),
        resample=Image.Resampling(stated.get("resample", defaults.resample)).value,
        patch_size=int(stated.get("patch_size", defaults.patch_size)),
        temporal_patch_size=int(stated.get("temporal_patch_size", defaults.temporal_patch_size)),
        merge_size=int(stated.get("merge_size", defaults.merge_size)),
    )
    if not 0 < settings.min_pixels <= settings.max_pixels:
        raise ValueError(f"images of {least} to {most} pixels are no range")
    if min(settings.image_std) <= 0:
        raise ValueError(f"image_std is {settings.image_std}, it must be above 0")
    return settings


def _pixels(stated: dict[str, Any]) -> tuple[Any, Any]:
    """The range of sizes as transformers takes it: `min_pixels` and `max_pixels` count before `size`.

    Raises:
      ValueError: a fixed size or a part of a range, with which transformers resizes nothing.
    """
    size = stated.get("size")
    if size is None or isinstance(size, dict):
        named = {name: stated[name] for name in ("size", "min_pixels", "max_pixels") if stated.get(name) is not None}
        found: Any = Qwen2VLImageProcessorPil(**copy.deepcopy(named)).size
        if found.shortest_edge and found.longest_edge:
            return found.shortest_edge, found.longest_edge
    raise ValueError(f"size is {size!r}, expected {{'shortest_edge': least pixels, 'longest_edge': most pixels}}")


def _channels(values: Any) -> tuple[float, float, float]:
    red, green, blue = map(float, values)
    return red, green, blue
