"""Images packed into one row never see each other, and patches of padding are never seen at all."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.data.images import PatchedImage, patch_positions
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.inputs import ImagePatches
from regrpo_jax.models.qwen2_vl.vision import VisionTower, between_grid_points

ROW = 48  # patches, padding included
GRIDS = ((2, 3), (1, 2), (2, 1))


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


class Tower:
    """A tower with random weights, compiled for rows of `ROW` patches."""

    def __init__(self, small_config: PolicyConfig) -> None:
        config = dataclasses.replace(small_config, dtype="float64", param_dtype="float64")
        assert config.vision is not None
        self.vision = config.vision
        self.tower = VisionTower(config)
        random = np.random.default_rng(1)
        shapes = jax.eval_shape(self.tower.init, jax.random.key(0), self.row([]))
        self.variables = jax.tree.map(lambda shape: jnp.asarray(random.normal(scale=0.5, size=shape.shape)), shapes)
        self.run = functools.partial(jax.jit(self.tower.apply), self.variables)

    def image(self, grid: tuple[int, int], seed: int) -> PatchedImage:
        positions = patch_positions(2 * grid[0], 2 * grid[1], 2)
        noise = np.random.default_rng(seed).normal(size=(len(positions), self.vision.patch_dim))
        return PatchedImage(noise.astype(np.float32), positions, grid)

    def row(self, images: list[PatchedImage]) -> ImagePatches:
        """The images one after the other, then padding."""
        patches = np.zeros((1, ROW, self.vision.patch_dim))
        segment_ids, positions = np.zeros((1, ROW), np.int32), np.zeros((1, ROW, 2), np.int32)
        start = 0
        for index, image in enumerate(images):
            here = (0, slice(start, start + len(image.patches)))
            patches[here], segment_ids[here], positions[here] = image.patches, index + 1, image.positions
            start += len(image.patches)
        return ImagePatches(patches, segment_ids, positions, segment_ids)

    def features(self, images: list[PatchedImage]) -> list[np.ndarray]:
        """Merged features of every image.  # [feature, hidden]"""
        merged = np.asarray(self.run(self.row(images)))[0]
        starts = np.cumsum([0, *(image.num_tokens for image in images)])
        return [merged[start:end] for start, end in zip(starts[:-1], starts[1:], strict=True)]


THIRD = {"learned_grid": 0, "activation": "gelu_tanh", "patch_bias": True, "interpolated_grid": 3,
         "deepstack_blocks": (0, 1)}  # fmt: skip


@pytest.fixture(scope="module", params=["preset", "qwen3_vl"])
def tower(request: pytest.FixtureRequest, small_config: PolicyConfig) -> Tower:
    assert small_config.vision is not None
    vision = dataclasses.replace(small_config.vision, **THIRD) if request.param == "qwen3_vl" else small_config.vision
    return Tower(dataclasses.replace(small_config, vision=vision))


@pytest.fixture(scope="module")
def images(tower: Tower) -> list[PatchedImage]:
    return [tower.image(grid, seed) for seed, grid in enumerate(GRIDS)]


def test_other_images_of_the_row_change_nothing(tower: Tower, images: list[PatchedImage]) -> None:
    together = tower.features(images)
    for image, features in zip(images, together, strict=True):
        assert features.shape == (image.num_tokens, 16 * (1 + len(tower.vision.deepstack_blocks)))
        np.testing.assert_allclose(tower.features([image])[0], features, atol=1e-9)
    permuted = tower.features([images[2], images[0], images[1]])
    for index, features in zip((2, 0, 1), permuted, strict=True):
        np.testing.assert_allclose(features, together[index], atol=1e-9)


def test_the_same_image_twice_has_the_same_features(tower: Tower, images: list[PatchedImage]) -> None:
    first, second = tower.features([images[0], images[0]])
    np.testing.assert_allclose(first, second, atol=1e-9)


def test_no_gradient_crosses_from_one_image_to_another(tower: Tower, images: list[PatchedImage]) -> None:
    """All the patches of an image, and only they, matter for its features."""
    row = tower.row(images)

    def first_image(patches: jax.Array, row: ImagePatches) -> jax.Array:
        features = jnp.asarray(tower.tower.apply(tower.variables, dataclasses.replace(row, patches=patches)))
        return jnp.sum(features[0, : images[0].num_tokens] ** 2)

    gradient = np.asarray(jax.jit(jax.grad(first_image))(row.patches, row))[0]  # [patch, patch_dim]
    own = np.arange(ROW) < len(images[0].patches)
    assert np.all(np.any(gradient[own] != 0, axis=-1))
    assert not np.any(gradient[~own])


def test_padding_patches_never_matter(tower: Tower, images: list[PatchedImage]) -> None:
    row = tower.row(images)
    padding = np.asarray(row.segment_ids) == 0  # [1, patch]
    assert padding.sum() == ROW - 4 * sum(rows * columns for rows, columns in GRIDS)
    random = np.random.default_rng(2)
    noisy = ImagePatches(
        np.where(padding[..., None], random.normal(scale=100, size=row.patches.shape), row.patches),
        row.segment_ids,
        np.where(padding[..., None], random.integers(0, 50, row.positions.shape), row.positions).astype(np.int32),
        row.window_ids,
    )
    real = ~padding[0].reshape(-1, 4).all(axis=-1)  # [feature]
    clean, dirty = np.asarray(tower.run(row))[0], np.asarray(tower.run(noisy))[0]
    np.testing.assert_allclose(dirty[real], clean[real], atol=1e-9)
    assert np.all(np.isfinite(clean)), "a masked-out row must not become nan, it would poison the gradient"


def test_a_row_without_any_image_is_finite(tower: Tower) -> None:
    assert np.all(np.isfinite(tower.run(tower.row([]))))


def test_rows_and_columns_are_told_apart(tower: Tower, images: list[PatchedImage]) -> None:
    turned = dataclasses.replace(images[0], positions=images[0].positions[:, ::-1])
    difference = tower.features([images[0]])[0] - tower.features([turned])[0]
    assert np.max(np.abs(difference)) > 1e-3


@pytest.mark.parametrize("side", [1, 2, 5, 48])
def test_a_grid_is_stretched_over_each_image_from_corner_to_corner(side: int) -> None:
    """A grid of its own coordinates gives every patch where it lies; images of a row do not know of each other."""
    grids = ((2, 6), (4, 2), (8, 10))
    places = [patch_positions(rows, columns, 2) for rows, columns in grids]
    counts = [rows * columns for rows, columns in grids]
    segment_ids = np.repeat(np.arange(1, 4, dtype=np.int32), counts)
    images = ImagePatches(
        np.zeros((1, sum(counts), 1)), segment_ids[None], np.concatenate(places)[None], segment_ids[None]
    )
    corners, weights = (np.asarray(array)[0] for array in between_grid_points(images, side))
    assert corners.min() >= 0 and corners.max() < side**2
    points = np.stack(np.divmod(np.arange(side**2), side), axis=-1)  # [point, 2]
    found = np.sum(points[corners] * weights[..., None], axis=1)  # [patch, 2]
    spans = np.repeat(np.array(grids) - 1, counts, axis=0)
    np.testing.assert_allclose(found, np.concatenate(places) * (side - 1) / spans, atol=1e-5)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)


def test_one_row_of_patches_lies_at_the_edge_of_the_grid() -> None:
    images = ImagePatches(np.zeros((1, 3, 1)), np.ones((1, 3), np.int32), np.array([[[0, 0], [0, 1], [0, 2]]]), None)
    corners, weights = between_grid_points(images, 5)
    rows = np.sum(np.asarray(corners) // 5 * np.asarray(weights), axis=-1)
    np.testing.assert_array_equal(rows, 0)
