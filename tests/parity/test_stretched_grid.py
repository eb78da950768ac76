"""Which points of a learnt grid a patch reads, and how much of each, against transformers' own interpolation."""

import numpy as np
import pytest
import torch
from transformers.vision_utils import get_vision_interpolation_indices_and_weights

from regrpo_jax.data.images import patch_positions
from regrpo_jax.models.inputs import ImagePatches
from regrpo_jax.models.qwen2_vl.vision import between_grid_points


@pytest.mark.parametrize("side", [1, 5, 48])
def test_a_random_grid_gives_every_patch_the_same(side: int) -> None:
    random = np.random.default_rng(side)
    grids = [tuple(2 * random.integers(1, 60, 2)) for _ in range(12)]
    counts = [rows * columns for rows, columns in grids]
    positions = np.concatenate([patch_positions(rows, columns, 2) for rows, columns in grids])
    segment_ids = np.repeat(np.arange(1, len(grids) + 1, dtype=np.int32), counts)
    images = ImagePatches(np.zeros((1, sum(counts), 1)), segment_ids[None], positions[None], segment_ids[None])
    indices, shares = get_vision_interpolation_indices_and_weights(
        torch.tensor([(1, *grid) for grid in grids]), side, align_corners=True, spatial_merge_size=2
    )
    table = random.normal(size=side**2)
    expected = np.sum(table[indices.numpy()] * shares.numpy(), axis=-1)
    corners, weights = (np.asarray(array)[0] for array in between_grid_points(images, side))
    np.testing.assert_allclose(np.sum(table[corners] * weights, axis=-1), expected, atol=1e-5)
