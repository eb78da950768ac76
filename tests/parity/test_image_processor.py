"""Our patches against those of transformers' processor on the same files: sizes, strips, enlarged and shrunk images."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from regrpo_jax.data.image_settings import image_settings
from regrpo_jax.data.images import load_image
from regrpo_jax.models.config import VisionConfig

SIZES = (
    *((1, 1), (1, 199), (199, 1), (3, 600), (200, 1)),  # strips, enlarged
    *((10, 10), (55, 57), (27, 29), (14, 42)),  # fewer pixels than the least
    *((28, 28), (42, 70), (84, 56), (101, 67)),  # odd sizes, exact halves of a unit
    *((400, 300), (299, 401), (900, 5), (640, 31)),  # more pixels than the most
)  # fmt: skip


def compare(folder: Path, size: tuple[int, int], vision: VisionConfig, pixels: tuple[int, int]) -> None:
    """Theirs is saved to a folder, from which we read our settings."""
    theirs = Qwen2VLImageProcessorPil(
        size={"shortest_edge": pixels[0], "longest_edge": pixels[1]},
        patch_size=vision.patch_size,
        temporal_patch_size=vision.temporal_patch_size,
        merge_size=vision.spatial_merge_size,
        image_mean=[0.4, 0.5, 0.6],
    )
    theirs.save_pretrained(folder)
    noise = np.random.default_rng(sum(size)).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    ours = load_image(folder / "noise.png", image_settings(folder, vision))
    with Image.open(folder / "noise.png") as opened:
        expected = theirs(opened, return_tensors="np")
    np.testing.assert_array_equal(ours.patches, expected["pixel_values"])
    merge = vision.spatial_merge_size
    grid = [1, merge * ours.merged_grid[0], merge * ours.merged_grid[1]]
    assert expected["image_grid_thw"].tolist() == [grid]
    assert (ours.positions.max(axis=0) + 1).tolist() == grid[1:]


@pytest.mark.parametrize("patch_size", [14, 16])
@pytest.mark.parametrize("size", SIZES)
def test_the_published_sizes_of_patches(tmp_path: Path, size: tuple[int, int], patch_size: int) -> None:
    vision = VisionConfig(depth=1, embed_dim=16, num_heads=1, intermediate_size=64, patch_size=patch_size)
    compare(tmp_path, size, vision, (4 * 784, 60 * 784))


@given(
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    patch_size=st.sampled_from((2, 5, 14)),
    temporal_patch_size=st.integers(1, 2),
    merge_size=st.integers(1, 2),
    least=st.integers(1, 2000),
    span=st.integers(0, 5000),
)
def test_random_sizes(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    height: int,
    patch_size: int,
    temporal_patch_size: int,
    merge_size: int,
    least: int,
    span: int,
) -> None:
    vision = VisionConfig(1, 16, 1, 64, patch_size, temporal_patch_size, merge_size)
    compare(tmp_path_factory.getbasetemp(), (width, height), vision, (least, least + span))
