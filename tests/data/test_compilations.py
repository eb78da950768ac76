"""Shapes come from short lists: random batches compile the policy at most once a bucket."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest

from regrpo_jax.data.batches import collate_groups
from regrpo_jax.data.examples import Example
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import PackedImages, PatchedImage, pack_images, patch_positions
from regrpo_jax.data.loader import sft_batches
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.config import PolicyConfig, VisionConfig
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.policy import policy_functions

IMAGE = 22
VISION = VisionConfig(1, 16, 2, 32, patch_size=2, temporal_patch_size=1)
POLICY = PolicyConfig(23, 16, 24, 1, 2, 1, 8, vision=VISION, remat="none")
PREFIX_BUCKETS, BRANCH_BUCKETS = (16, 32, 64), (8, 16)
MOST_PATCHES = 3 * 4 * 3 * 3  # of a row: three images of 3 x 3 tokens of four patches
# No image at all, or a power of two times 16 patches.
PATCH_BUCKETS = 2 + math.ceil(math.log2(MOST_PATCHES / 16))
Conversation = tuple[np.ndarray, np.ndarray, PackedImages]


def conversation(chance: np.random.Generator) -> Conversation:
    """Tokens, positions and images: up to three images and up to 30 tokens of text, in any order."""
    grids = [tuple(int(side) for side in chance.integers(1, 4, 2)) for _ in range(chance.integers(0, 4))]
    pieces = [chance.integers(0, IMAGE, chance.integers(1, 10)) for _ in range(len(grids) + 1)]
    for index, (rows, columns) in enumerate(grids):
        pieces.insert(2 * index + 1, np.full(rows * columns, IMAGE))
    tokens = np.concatenate([*pieces, chance.integers(0, IMAGE, 2)]).astype(np.int32)
    images = []
    for rows, columns in grids:
        positions = patch_positions(2 * rows, 2 * columns, 2)
        noise = chance.normal(size=(len(positions), VISION.patch_dim)).astype(np.float32)
        images.append(PatchedImage(noise, positions, (rows, columns)))
    return tokens, rotary_positions(tokens == IMAGE, grids), pack_images(images, VISION)


def random_group(chance: np.random.Generator) -> Group:
    tokens, positions, images = conversation(chance)
    branches = []
    for label in "ab":
        text = chance.integers(0, IMAGE, chance.integers(1, 17)).astype(np.int32)
        branches.append(Branch(label, text, np.full(len(text), 2, np.int8), label == "a", 0.0))
    return Group("group", tokens, positions, images, tuple(branches))


class CountedPrefix:
    """The real `run_prefix`, which counts how often it is traced."""

    def __init__(self) -> None:
        functions = policy_functions(POLICY)
        self.traces = 0
        self.variables = jax.jit(functions.init)(jax.random.key(0))

        @jax.jit
        def run(variables: dict[str, Any], block: TokenBlock, images: ImagePatches | None) -> jax.Array:
            self.traces += 1  # a side effect that happens only while tracing
            return functions.run_prefix(variables, block, images)[0]

        self.run = run

    def __call__(self, block: TokenBlock, images: ImagePatches | None) -> tuple[Any, ...]:
        """Runs it; returns the shapes."""
        hidden = self.run(self.variables, block, images)
        assert np.isfinite(np.asarray(hidden)).all()
        return tuple(leaf.shape for leaf in jax.tree.leaves((block, images)))


@pytest.fixture
def prefix() -> CountedPrefix:
    return CountedPrefix()


def test_groups_compile_once_a_bucket(prefix: CountedPrefix) -> None:
    chance = np.random.default_rng(0)
    shapes, branch_shapes = set(), set()
    for _ in range(100):
        batch = collate_groups(
            [random_group(chance) for _ in range(2)],
            [np.zeros((2, 1), np.float32)] * 2,
            image_token_id=IMAGE,
            prefix_buckets=PREFIX_BUCKETS,
            branch_buckets=BRANCH_BUCKETS,
        )
        shapes.add(prefix(batch.prefix, batch.images))
        branch_shapes.add(batch.targets.shape)
    assert prefix.traces == len(shapes) <= len(PREFIX_BUCKETS) * PATCH_BUCKETS
    assert len(shapes) > PATCH_BUCKETS  # the batches were different enough to mean something
    assert len(branch_shapes) == len(BRANCH_BUCKETS)


def test_packed_rows_compile_once(prefix: CountedPrefix) -> None:
    chance = np.random.default_rng(1)
    examples = []
    for index in range(50):
        tokens, positions, images = conversation(chance)
        segments = np.where(tokens == IMAGE, 0, 2)
        examples.append(Example(f"record {index}", tokens, segments.astype(np.int8), positions, images))
    options = dict(batch_rows=2, row_length=96, row_patches=128, image_token_id=IMAGE, seed=0)
    batches = sft_batches(examples[:25], examples[25:], clean_ratio=0.5, **options)
    shapes = {prefix(batch.block, batch.images) for batch, _ in zip(batches, range(100), strict=False)}
    assert prefix.traces == len(shapes) == 1
