"""Image files to the packed patches of the vision tower, on the host.

Resizing, normalising and cutting are transformers' own image processor for Qwen2-VL, in its version for PIL and numpy.
What is ours is what comes before (`opened_images.py`) and after (where a patch stands, and many images in one row).
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.models.config import VisionConfig
from regrpo_jax.records.opened_images import ImageError as ImageError
from regrpo_jax.records.opened_images import open_image as open_image


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


@functools.lru_cache(maxsize=128)  # an image of 512 tokens has 10 MB of patches
def cached_image(path: str, settings: ImageSettings) -> PatchedImage:
    """`load_image` of a file that does not change."""
    return load_image(path, settings)


def load_image(path: str | Path, settings: ImageSettings) -> PatchedImage:
    """Reads an image file, resizes it as the settings say and cuts it into patches.

    As in the reference, an image near the aspect limit may exceed `max_pixels`: no side is less than a merge group.

    Raises:
      ImageError: see `open_image`.
    """
    processed = _processor(settings)(open_image(path), return_tensors="np")
    _, rows, columns = (int(size) for size in processed["image_grid_thw"][0])
    merge = settings.merge_size
    return PatchedImage(
        processed["pixel_values"], patch_positions(rows, columns, merge), (rows // merge, columns // merge)
    )


@functools.lru_cache(maxsize=8)
def _processor(settings: ImageSettings) -> Qwen2VLImageProcessorPil:
    values = dataclasses.asdict(settings)
    size = {"shortest_edge": values.pop("min_pixels"), "longest_edge": values.pop("max_pixels")}
    return Qwen2VLImageProcessorPil(size=size, **values)


def patch_positions(rows: int, columns: int, merge: int) -> np.ndarray:
    """Row and column of each patch of a grid, merge group by merge group in reading order.  # [patch, 2]"""
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)  # [row, column, 2]
    groups = places.reshape(rows // merge, merge, columns // merge, merge, 2).transpose(0, 2, 1, 3, 4)
    return groups.reshape(-1, 2).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class FilePatches:
    """The patches of image files, one after another, made whenever they are looked at: those of 20,000 records do not
    fit into a host's memory, where their files do not either.

    Attributes:
      files: paths.
      settings: how patches are made of them.
      shape: of the array that numpy makes of it.  # [patch, patch_dim]
    """

    files: tuple[str, ...]
    settings: ImageSettings
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """ImageError: a file is no longer what it was when it was read first."""
        patches = np.concatenate([cached_image(file, self.settings).patches for file in self.files])
        if patches.shape != self.shape:
            raise ImageError(f"{', '.join(self.files)}: an image changed its size since the records were read")
        return patches if dtype is None else patches.astype(dtype)


@dataclasses.dataclass(frozen=True)
class PackedImages:
    """The images of one conversation, concatenated.

    Attributes:
      patches: float32, or what numpy makes such an array of.  # [patch, patch_dim]
      positions: int32 row and column.  # [patch, 2]
      segment_ids: int32 from 1, which image a patch belongs to.  # [patch]
      window_ids: int32 from 1, which attention window it belongs to; the image without windows.  # [patch]
      merged_grids: rows and columns of image tokens, per image.
    """

    patches: np.ndarray | FilePatches
    positions: np.ndarray
    segment_ids: np.ndarray
    window_ids: np.ndarray
    merged_grids: tuple[tuple[int, int], ...]

    @property
    def token_counts(self) -> tuple[int, ...]:
        """Number of image tokens, which is the number of merged features, of each image."""
        return tuple(rows * columns for rows, columns in self.merged_grids)

    @property
    def patch_counts(self) -> tuple[int, ...]:
        """Number of patches of each image."""
        return tuple(count * self._patches_of_a_token for count in self.token_counts)

    @property
    def _patches_of_a_token(self) -> int:
        return len(self.patches) // sum(self.token_counts) if self.merged_grids else 1

    @property
    def starts(self) -> tuple[int, ...]:
        """Where each image begins in a row of aligned images: at a multiple of the power of two that holds it."""
        found, end = [], 0
        for count in self.patch_counts:
            size = power_of_two(count)
            found.append(-(-end // size) * size)
            end = found[-1] + count
        return tuple(found)

    def features_of(self, which: Sequence[int]) -> np.ndarray:
        """int32, the features of these images one after another, by their place in a row of aligned images.

        # [image token]
        """
        firsts = [start // self._patches_of_a_token for start in self.starts]
        parts = [firsts[image] + np.arange(self.token_counts[image], dtype=np.int32) for image in which]
        return np.concatenate([np.zeros(0, np.int32), *parts]).astype(np.int32)

    def image_index(self, is_image: np.ndarray, which: Sequence[int] | None = None) -> np.ndarray:
        """int32, the feature of each image token of a sequence, -1 of text.  # [token]

        Args:
          is_image: bool, which tokens stand for image features.  # [token]
          which: images that the sequence shows, in order; None for all.
        """
        index = np.full(len(is_image), -1, np.int32)
        index[is_image] = self.features_of(range(len(self.merged_grids)) if which is None else which)
        return index


def power_of_two(count: int) -> int:
    """The smallest power of two, from 16 on, that is not below `count`."""
    return max(16, 1 << (count - 1).bit_length())


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
