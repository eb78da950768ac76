"""Batches and prompts as shapes: the largest that a configuration allows, of the types that the loaders make."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from regrpo_jax.config.base_config import stage_section
from regrpo_jax.data.batches import LEAST_BLOCK, GroupBatch, SftBatch, patch_length
from regrpo_jax.data.images import power_of_two
from regrpo_jax.data.online_batches import OnlineBatch
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.decoding_state import Prompt
from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.records.candidates import GROUP_LABELS

Shape = jax.ShapeDtypeStruct
PLACES = 16  # of a rollout, at which its rewards are compared: they weigh nothing


def sft_shapes(config: ConfigDict, policy: PolicyConfig) -> SftBatch:
    """A batch of the stage `sft`."""
    sft = stage_section(config, "sft")
    rows, length = sft.batch_rows, sft.row_length
    # Rows of several conversations are packed without blocks.
    images = _patches(policy, rows, sft.row_patches, block=0)
    return SftBatch(_block(rows, length), _of(np.int8, rows, length), images)


def group_shapes(config: ConfigDict, policy: PolicyConfig) -> GroupBatch:
    """A batch of the stage `rl`."""
    rows = stage_section(config, "rl").groups_per_batch
    shape = (rows, len(GROUP_LABELS), max(config.data.branch_buckets))
    return GroupBatch(
        prefix=_block(rows, max(config.data.prefix_buckets)),
        images=_images(config, policy, rows),
        branches=_block(*shape),
        targets=_of(np.int32, *shape),
        segments=_of(np.int8, *shape),
        success=_of(np.bool_, *shape[:2]),
        verifier_value=_of(np.float32, *shape[:2]),
        reference_logprobs=_of(np.float32, *shape),
    )


def online_shapes(config: ConfigDict, policy: PolicyConfig) -> OnlineBatch:
    """A batch of the stage `online`."""
    online = stage_section(config, "online")
    shape = (online.tasks, online.branches, max(config.data.branch_buckets))
    return OnlineBatch(
        prefix=_block(online.tasks, max(config.data.prefix_buckets)),
        images=_images(config, policy, online.tasks),
        branches=_block(*shape),
        targets=_of(np.int32, *shape),
        segments=_of(np.int8, *shape),
        behaviour_logprobs=_of(np.float32, *shape),
        advantages=_of(np.float32, *shape),
        keep=_of(np.bool_, *shape),
        stale=_of(np.bool_, *shape[:2]),
        rewards=_of(np.float32, *shape[:2], PLACES),
        reached=_of(np.bool_, *shape[:2], PLACES),
    )


def prompt_shapes(config: ConfigDict, policy: PolicyConfig, rows: int) -> Prompt:
    """Prompts that are played together."""
    return Prompt(
        prefix=_block(rows, max(config.data.prefix_buckets)),
        images=_images(config, policy, rows),
        last_token=_of(np.int32, rows),
        next_position=_of(np.int32, rows),
        draw_ids=_of(np.int32, rows),
    )


def _block(*shape: int) -> TokenBlock:
    each = _of(np.int32, *shape)
    return TokenBlock(each, each, _of(np.int32, *shape, 3), each)


def _images(config: ConfigDict, policy: PolicyConfig, rows: int) -> ImagePatches | None:
    """Of groups, with blocks that hold the largest picture that `config.data.pixels` allows."""
    if policy.vision is None:
        return None
    patches = patch_length(config.plan.patches)
    largest = config.data.pixels[1] // policy.vision.patch_size**2
    return _patches(policy, rows, patches, block=min(patches, max(LEAST_BLOCK, power_of_two(largest))))


def _patches(policy: PolicyConfig, rows: int, patches: int, *, block: int) -> ImagePatches | None:
    if policy.vision is None or not patches:
        return None
    each = _of(np.int32, rows, patches)
    values = _of(np.float32, rows, patches, policy.vision.patch_dim)
    return ImagePatches(values, each, _of(np.int32, rows, patches, 2), each, block=block)


def _of(dtype: Any, *shape: int) -> Shape:
    return Shape(shape, jnp.dtype(dtype))
