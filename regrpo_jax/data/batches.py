"""Arrays that a train step takes, and how groups of different lengths are padded into them."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from flax import struct

from regrpo_jax.data.groups import Group
from regrpo_jax.data.images import PackedImages, power_of_two
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.errors import UserError
from regrpo_jax.models.inputs import Array, ImagePatches, TokenBlock

T = TypeVar("T")
LEAST_BLOCK = 128  # patches of a block of images: kernels of attention want as many


@struct.dataclass
class SftBatch:
    """Packed supervised rows.

    Attributes:
      block: several conversations a row, told apart by segment ids.  # [row, token]
      segments: int8 `Segment`, nonzero exactly where the loss is taken.  # [row, token]
      images: patches of all conversations of a row, or None in a batch without images.
    """

    block: TokenBlock
    segments: Array
    images: ImagePatches | None


@struct.dataclass
class GroupBatch:
    """Contrastive groups: prefixes padded on the left, branches on the right.

    Attributes:
      prefix: without its last token, which leads every branch.  # [group, prefix]
      images: patches of the prefixes and branches, or None in a batch without images.
      branches: the tokens a branch is fed.  # [group, branch, token]
      targets: int32, the token that each fed token predicts.  # [group, branch, token]
      segments: int8 `Segment` of the targets, nonzero exactly at scored tokens.  # [group, branch, token]
      success: bool.  # [group, branch]
      verifier_value: float32 V.  # [group, branch]
      reference_logprobs: float32 log-probs of the frozen reference, 0 at unscored tokens.  # [group, branch, token]
    """

    prefix: TokenBlock
    images: ImagePatches | None
    branches: TokenBlock
    targets: Array
    segments: Array
    success: Array
    verifier_value: Array
    reference_logprobs: Array


def bucket_length(length: int, buckets: Sequence[int], field: str) -> int:
    """Smallest bucket that holds `length`.

    Raises:
      UserError: none does; names the `field` of the config that lists them.
    """
    fitting = [bucket for bucket in buckets if bucket >= length]
    if not fitting:
        raise UserError(f"{length} tokens exceed the largest of {field} ({max(buckets)}); add a larger bucket")
    return min(fitting)


def check_image_tokens(record_id: str, tokens: np.ndarray, features: int, image_token_id: int) -> None:
    """A policy must never be trained with another image's features, or none, in the place of an image token.

    Args:
      tokens: int, without padding.  # [token]
      features: how many merged features come with them.
    Raises:
      UserError: there are more or fewer image tokens; names the record.
    """
    found = int(np.count_nonzero(tokens == image_token_id))
    if found != features:
        raise UserError(f"{record_id}: {found} image tokens for {features} image features; the record is not usable")


def collate_groups(
    groups: Sequence[Group],
    reference_logprobs: Sequence[np.ndarray],
    *,
    image_token_id: int,
    prefix_buckets: Sequence[int],
    branch_buckets: Sequence[int],
    rows: Sequence[int] | None = None,
) -> GroupBatch:
    """Pads groups to the smallest buckets that hold them.

    Args:
      groups: all with the same number of branches.
      rows: the groups that arrays are made of, padded as all of them want it; None for all.
      reference_logprobs: per group, zero-padded on the right.  # [branch, any length up to the longest branch]
    Raises:
      UserError: no bucket is large enough, or image tokens and features disagree.
    """
    longest = max(len(branch.tokens) for group in groups for branch in group.branches)
    length = bucket_length(longest, branch_buckets, "config.data.branch_buckets")
    branch_count = len(groups[0].branches)
    prefix, images = collate_prefixes(groups, image_token_id=image_token_id, buckets=prefix_buckets, rows=rows)
    groups, reference_logprobs = chosen(groups, rows), chosen(reference_logprobs, rows)
    shape = (len(groups), branch_count, length)
    fed, targets = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    segments, valid = np.zeros(shape, np.int8), np.zeros(shape, np.int32)
    positions, reference = np.zeros((*shape, 3), np.int32), np.zeros(shape, np.float32)
    image_index = np.full(shape, -1, np.int32)
    for row, group in enumerate(groups):
        lead = int(group.positions[-1].max())
        width = min(length, reference_logprobs[row].shape[-1])
        reference[row, :, :width] = reference_logprobs[row][:, :width]
        for column, branch in enumerate(group.branches):
            name = f"{group.record_id}, {branch.label}"
            at = (row, column)
            positions[at], image_index[at] = fed_places(
                branch.tokens, length, lead, group.images, branch.pictures, image_token_id, name
            )
            size = len(branch.tokens)
            targets[row, column, :size] = branch.tokens
            fed[row, column, :size] = np.concatenate([group.prefix[-1:], branch.tokens[:-1]])
            segments[row, column, :size] = branch.segments
            valid[row, column, :size] = 1
    return GroupBatch(
        prefix=prefix,
        images=images,
        branches=TokenBlock(fed, valid, positions, image_index),
        targets=targets,
        segments=segments,
        success=np.array([[branch.success for branch in group.branches] for group in groups]),
        verifier_value=np.array([[b.verifier_value for b in group.branches] for group in groups], np.float32),
        reference_logprobs=reference,
    )


def chosen(of_rows: Sequence[T], rows: Sequence[int] | None) -> Sequence[T]:
    """What belongs to these rows, to all of them for None."""
    return of_rows if rows is None else [of_rows[row] for row in rows]


def fed_places(
    tokens: np.ndarray,
    length: int,
    lead: int,
    images: PackedImages,
    pictures: Sequence[int],
    image_token_id: int,
    name: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Where the tokens stand that a branch is fed: the last of its prefix, then its own without its last.

    Args:
      tokens: int, the branch.  # [token]
      length: that it is padded to.
      lead: rotary position of the prefix's last token.
      images: of the group.
      pictures: which of them the branch's image tokens stand for, in order.
      name: of the branch, for people.
    Returns:
      int32 rotary positions [length, 3] and image features [length], -1 for text.
    Raises:
      UserError: image tokens and features disagree.
    """
    check_image_tokens(name, tokens, sum(images.token_counts[picture] for picture in pictures), image_token_id)
    is_image = tokens == image_token_id
    own = lead + 1 + rotary_positions(is_image, [images.merged_grids[index] for index in pictures])  # [token, 3]
    index = images.image_index(is_image, pictures)
    size = len(tokens)
    after = own[-1].max() if size else lead + 1
    positions = np.empty((length, 3), np.int32)
    positions[:1], positions[1:size] = lead, own[:-1]
    positions[size:] = (after + np.arange(length - size))[:, None]
    image_index = np.full(length, -1, np.int32)
    image_index[1:size] = index[:-1]
    return positions, image_index


def collate_prefixes(
    groups: Sequence[Group], *, image_token_id: int, buckets: Sequence[int], rows: Sequence[int] | None = None
) -> tuple[TokenBlock, ImagePatches | None]:
    """Left-padded prefixes without their last token, and the patches of the groups' images.

    Args:
      rows: as in `collate_groups`.
    Raises:
      UserError: no bucket is large enough, or image tokens and features disagree.
    """
    length = bucket_length(max(len(group.prefix) for group in groups) - 1, buckets, "config.data.prefix_buckets")
    made = chosen(groups, rows)
    shape = (len(made), length)
    tokens, valid = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    positions, image_index = np.zeros((*shape, 3), np.int32), np.full(shape, -1, np.int32)
    for row, group in enumerate(made):
        body = group.prefix[:-1]
        features = sum(group.images.token_counts[: group.prefix_images])
        check_image_tokens(group.record_id, body, features, image_token_id)
        if not len(body):
            continue
        tokens[row, -len(body) :] = body
        valid[row, -len(body) :] = 1
        positions[row, -len(body) :] = group.positions[:-1]
        shown = range(len(group.images.merged_grids))[: group.prefix_images]
        image_index[row, -len(body) :] = group.images.image_index(body == image_token_id, shown)
    return TokenBlock(tokens, valid, positions, image_index), collate_images([group.images for group in groups], rows)


def collate_images(images: Sequence[PackedImages], rows: Sequence[int] | None = None) -> ImagePatches | None:
    """Each row's images at their `starts`, padded to a power of two times 16; None when no row has an image.

    Args:
      rows: as in `collate_groups`.
    """
    length = patch_length(max(_aligned_length(packed) for packed in images))
    if not length:
        return None
    largest = max(count for packed in images for count in packed.patch_counts)
    images = chosen(images, rows)
    shape = (len(images), length)
    patches = np.zeros((*shape, images[0].patches.shape[-1]), np.float32)
    positions = np.zeros((*shape, 2), np.int32)
    segment_ids, windows = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for row, packed in enumerate(images):
        places = zip(packed.starts, packed.patch_counts, strict=True)
        at = np.array([start + order for start, count in places for order in range(count)], np.int64)  # [patch]
        patches[row, at], positions[row, at] = packed.patches, packed.positions
        segment_ids[row, at], windows[row, at] = packed.segment_ids, packed.window_ids
    block = min(length, max(LEAST_BLOCK, power_of_two(largest)))
    return ImagePatches(patches, segment_ids, positions, windows, block=block)


def _aligned_length(images: PackedImages) -> int:
    return images.starts[-1] + images.patch_counts[-1] if images.merged_grids else 0


def patch_length(longest: int) -> int:
    """What rows are padded to whose longest has as many patches; 0 without any."""
    return power_of_two(longest) if longest else 0


def padded_shape(group: Group, *, prefix_buckets: Sequence[int], branch_buckets: Sequence[int]) -> tuple[int, int, int]:
    """Lengths of prefix, branches and patches that `collate_groups` pads a group to that is alone, or among its like.

    Raises:
      UserError: no bucket is large enough.
    """
    return (
        bucket_length(len(group.prefix) - 1, prefix_buckets, "config.data.prefix_buckets"),
        bucket_length(max(len(b.tokens) for b in group.branches), branch_buckets, "config.data.branch_buckets"),
        patch_length(_aligned_length(group.images)),
    )


def image_indices(is_image: np.ndarray) -> np.ndarray:
    """Index of each image token's feature in its row, -1 for text.  # [.., token]"""
    return np.where(is_image, np.cumsum(is_image, axis=-1) - 1, -1).astype(np.int32)
