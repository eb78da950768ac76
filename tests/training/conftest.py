"""Hand-made batches for a policy of one layer; `test_parallel` runs this file in a process of its own as well."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.config.base_config import base_config, stage_section
from regrpo_jax.data.batches import GroupBatch, SftBatch
from regrpo_jax.models.config import VisionConfig, tiny
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.training.steps import RegrpoSettings, regrpo_settings

VOCAB = 40
SUCCESS = (True, False, True, True, False)  # of correct, failed, reflect_correct, retry_correct, corrupted


def make_functions(dtype: str = "float32", images: bool = False) -> PolicyFunctions:
    config = tiny(VOCAB, hidden_size=32, num_layers=1, images=images)
    vision = (
        VisionConfig(depth=1, embed_dim=16, num_heads=1, intermediate_size=64, temporal_patch_size=1)
        if images
        else None
    )
    return policy_functions(dataclasses.replace(config, dtype=dtype, param_dtype=dtype, vision=vision))


def make_variables(functions: PolicyFunctions) -> dict[str, Any]:
    """Weights of the shapes that `init` gives, without the seconds that compiling it takes."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(functions.init, jax.random.key(0))
    return jax.tree.map(lambda array: jnp.asarray(0.1 * rng.normal(size=array.shape), array.dtype), shapes)


def make_settings(**changes: object) -> RegrpoSettings:
    rl = stage_section(base_config(), "rl")
    rl.update(changes)
    return regrpo_settings(rl)


def make_sft_batch(seed: int, rows: int) -> SftBatch:
    """Packed rows whose trained tokens are of very different number; the last row trains nothing."""
    rng = np.random.default_rng(seed)
    length = 12
    segment_ids = np.array([[1] * split + [2] * (length - split - 1) + [0] for split in rng.integers(3, 9, rows)])
    positions = np.broadcast_to(np.arange(length)[:, None], (rows, length, 3))
    trained = rng.random((rows, length)) < np.linspace(0.9, 0.1, rows)[:, None]  # [row, token]
    segments = np.where(trained & (segment_ids > 0), rng.integers(1, 3, (rows, length)), 0)
    segments[-1] = 0
    block = TokenBlock(
        rng.integers(1, VOCAB, (rows, length)).astype(np.int32),
        segment_ids.astype(np.int32),
        positions.astype(np.int32),
        np.full((rows, length), -1, np.int32),
    )
    return SftBatch(block, segments.astype(np.int8), None)


def make_group_batch(
    seed: int, groups: int, *, images: bool = False, equal_rewards: tuple[int, ...] = ()
) -> GroupBatch:
    """Groups of five branches of uneven length, each with an image in its prefix where asked.

    Args:
      equal_rewards: groups whose branches all fail and do not reflect.
    """
    rng = np.random.default_rng(seed)
    prefix_length, branches, length = 10, len(SUCCESS), 8
    sizes = rng.integers(3, length + 1, (groups, branches))
    valid = np.arange(length) < sizes[..., None]  # [group, branch, token]
    segments = np.where(valid, 2, 0)
    segments[:, 2, :2] = 1  # the reflection of reflect_correct
    segments[:, 4, 0] = 0  # a token of a0 or o0
    success = np.array([SUCCESS] * groups)
    for group in equal_rewards:
        success[group] = False
        segments[group] = np.where(valid[group], 2, 0)
    prefix_valid = np.arange(prefix_length) >= rng.integers(0, 4, groups)[:, None]  # [group, token]
    image_index = np.full((groups, prefix_length), -1, np.int32)
    patches = None
    if images:
        image_index[:, 5:7] = (0, 1)  # one row of two image tokens, four patches each
        pixels = rng.normal(size=(groups, 8, 3 * 14 * 14)).astype(np.float32)
        places = np.array([[r, 2 * c + k] for c in range(2) for r in range(2) for k in range(2)])
        image = np.ones((groups, 8), np.int32)
        patches = ImagePatches(pixels, image, np.array([places] * groups, np.int32), image)
    prefix_positions = np.cumsum(prefix_valid, axis=-1) - 1
    branch_positions = prefix_positions[:, -1, None, None] + 1 + np.arange(length)
    targets = rng.integers(1, VOCAB, (groups, branches, length)).astype(np.int32)
    lead = np.broadcast_to(rng.integers(1, VOCAB, (groups, 1, 1)), (groups, branches, 1))
    return GroupBatch(
        prefix=TokenBlock(
            rng.integers(1, VOCAB, (groups, prefix_length)).astype(np.int32),
            prefix_valid.astype(np.int32),
            np.repeat(np.maximum(prefix_positions, 0)[..., None], 3, axis=-1).astype(np.int32),
            image_index,
        ),
        images=patches,
        branches=TokenBlock(
            np.concatenate([lead, targets[..., :-1]], axis=-1).astype(np.int32),
            valid.astype(np.int32),
            np.broadcast_to(branch_positions[..., None], (groups, branches, length, 3)).astype(np.int32),
            np.full(targets.shape, -1, np.int32),
        ),
        targets=targets,
        segments=segments.astype(np.int8),
        success=success,
        verifier_value=rng.random((groups, branches)).astype(np.float32),
        reference_logprobs=np.where(segments > 0, -np.log(VOCAB), 0.0).astype(np.float32),
    )


@pytest.fixture(scope="session")
def functions() -> PolicyFunctions:
    return make_functions()


@pytest.fixture(scope="session")
def variables(functions: PolicyFunctions) -> dict[str, Any]:
    return make_variables(functions)


@pytest.fixture(scope="session")
def settings() -> Callable[..., RegrpoSettings]:
    """The objective of `base_config`, with changes."""
    return make_settings


@pytest.fixture(scope="session")
def sft_batch() -> Callable[..., SftBatch]:
    return make_sft_batch


@pytest.fixture(scope="session")
def group_batch() -> Callable[..., GroupBatch]:
    return make_group_batch
