"""Image files to the packed patches of the vision tower, on the host."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import VisionConfig

# Channel statistics of CLIP, which Qwen2-VL's image processor normalises with.
CHANNEL_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
CHANNEL_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


@dataclasses.dataclass(frozen=True)
class PatchedImage:
    """One image as the vision tower wants it.

    Attributes:
      patches: float32; the patches of one merge group are neighbours.  # [patch, patch_dim]
      positions: int32 row and column of each patch.  # [patch, 2]
      merged_grid: rows and columns of image tokens.
    """

    patches: np.ndarray
    positions: np.ndarray
    merged_grid: tuple[int, int]

    @property
    def num_tokens(self) -> int:
        return self.merged_grid[0] * self.merged_grid[1]


def load_image(path: str | Path, config: VisionConfig, *, max_pixels: int) -> PatchedImage:
    """Reads an image file, honours its rotation tag, makes it RGB, fits it to `max_pixels` and cuts patches.

    Raises:
      UserError: the file is missing, is no image, or is more than 200 times wider than high (or the reverse).
    """
    try:
        with Image.open(path) as opened:
            image = ImageOps.exif_transpose(opened).convert("RGB")
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such image file") from error
    except Exception as error:  # a decoder may end in an error of any type on a damaged file
        raise UserError(f"{path}: not a readable image ({error})") from error
    height, width = fitted_size(image.height, image.width, config, max_pixels=max_pixels, path=str(path))
    if (height, width) != (image.height, image.width):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    pixels = (np.asarray(image, np.float32) / 255.0 - CHANNEL_MEAN) / CHANNEL_STD  # [height, width, channel]
    return cut_patches(pixels, config)


def fitted_size(height: int, width: int, config: VisionConfig, *, max_pixels: int, path: str) -> tuple[int, int]:
    """Nearest size with sides that are multiples of a merge group's, within `max_pixels`, aspect kept."""
    unit = config.patch_size * config.spatial_merge_size
    if max(height, width) > 200 * min(height, width):
        raise UserError(f"{path}: {width}x{height} pixels is too elongated; crop the image below an aspect of 200")
    rows, columns = max(1, round(height / unit)), max(1, round(width / unit))
    if rows * columns * unit * unit > max_pixels:
        shrink = max(1.0, math.sqrt(height * width / max_pixels))  # rounding up alone may exceed the budget
        most = max(1, max_pixels // unit**2)  # binds where a side of an elongated image was raised to one unit
        rows = min(max(1, math.floor(height / shrink / unit)), most)
        columns = min(max(1, math.floor(width / shrink / unit)), most // rows)
    return rows * unit, columns * unit


def cut_patches(pixels: np.ndarray, config: VisionConfig) -> PatchedImage:
    """Flattened patches in merge-group order, each (channel, frame, row, column), a still frame repeated in time.

    Args:
      pixels: float32 normalised.  # [height, width, channel]
    """
    size, merge = config.patch_size, config.spatial_merge_size
    rows, columns = pixels.shape[0] // size, pixels.shape[1] // size
    grid = pixels.reshape(rows // merge, merge, size, columns // merge, merge, size, -1)
    grid = grid.transpose(0, 3, 1, 4, 6, 2, 5)  # [row, column, merge, merge, channel, size, size]
    patches = np.repeat(grid.reshape(rows * columns, config.in_channels, 1, size, size), config.temporal_patch_size, 2)
    row_index, column_index = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    positions = np.stack([row_index, column_index], axis=-1)
    positions = positions.reshape(rows // merge, merge, columns // merge, merge, 2).transpose(0, 2, 1, 3, 4)
    return PatchedImage(
        patches.reshape(rows * columns, config.patch_dim),
        positions.reshape(-1, 2).astype(np.int32),
        (rows // merge, columns // merge),
    )


@dataclasses.dataclass(frozen=True)
class PackedImages:
    """The images of one conversation, concatenated.

    Attributes:
      patches: float32.  # [patch, patch_dim]
      positions: int32 row and column.  # [patch, 2]
      segment_ids: int32 from 1, which image a patch belongs to.  # [patch]
      window_ids: int32 from 1, which attention window it belongs to; the image without windows.  # [patch]
      merged_grids: rows and columns of image tokens, per image.
    """

    patches: np.ndarray
    positions: np.ndarray
    segment_ids: np.ndarray
    window_ids: np.ndarray
    merged_grids: tuple[tuple[int, int], ...]


def pack_images(images: Sequence[PatchedImage], config: VisionConfig | None) -> PackedImages:
    """Images one after another, in the order of their tokens; `config` may be None where there are none."""
    patch_dim, side = (config.patch_dim, config.window_patches) if config else (0, 0)
    positions = np.concatenate([np.zeros((0, 2), np.int32), *(image.positions for image in images)])
    lengths = [len(image.patches) for image in images]
    segment_ids = np.repeat(np.arange(1, len(images) + 1, dtype=np.int32), lengths)
    return PackedImages(
        np.concatenate([np.zeros((0, patch_dim), np.float32), *(image.patches for image in images)]),
        positions,
        segment_ids,
        window_ids(positions, segment_ids, side),
        tuple(image.merged_grid for image in images),
    )


def window_ids(positions: np.ndarray, segment_ids: np.ndarray, side: int) -> np.ndarray:
    """Which attention window a patch belongs to: squares of `side` patches from an image's top left corner.

    Args:
      positions: int row and column of each patch in its image.  # [patch, 2]
      segment_ids: int, which image a patch belongs to.  # [patch]
      side: of a window in patches; 0 makes each image one window.
    Returns:
      int32 from 1, different in different images.  # [patch]
    """
    if not side:
        return segment_ids
    corners = np.concatenate([segment_ids[:, None], positions // side], axis=-1)  # [patch, 3]
    return (np.unique(corners, axis=0, return_inverse=True)[1].reshape(-1) + 1).astype(np.int32)
