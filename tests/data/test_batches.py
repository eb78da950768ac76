"""Groups of different lengths in one batch: padding, shifted targets, positions that go on, packed images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.data.batches import (
    GroupBatch,
    bucket_length,
    collate_groups,
    collate_images,
    collate_prefixes,
    image_indices,
)
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.groups import Branch, Group, build_group
from regrpo_jax.data.images import PackedImages
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.errors import UserError
from regrpo_jax.records import ImageReference, RotRecord

IMAGE = 5
PATCH_DIM = 3


def packed_images(grids: Sequence[tuple[int, int]], seed: int = 0) -> PackedImages:
    """Images of the given grids of image tokens, four patches to a token."""
    counts = [4 * rows * columns for rows, columns in grids]
    chance = np.random.default_rng(seed)
    return PackedImages(
        chance.normal(size=(sum(counts), PATCH_DIM)).astype(np.float32),
        chance.integers(0, 9, (sum(counts), 2)).astype(np.int32),
        *[np.repeat(np.arange(len(grids)) + 1, counts).astype(np.int32)] * 2,
        tuple(grids),
    )


def make_group(seed: int, text: int, branch_lengths: Sequence[int], grids: Sequence[tuple[int, int]] = ()) -> Group:
    """A group whose prefix is a token, its images, and `text` more tokens."""
    chance = np.random.default_rng(seed)
    images = [np.full(rows * columns, IMAGE) for rows, columns in grids]
    prefix = np.concatenate([[7], *images, chance.integers(10, 99, text)]).astype(np.int32)
    positions = rotary_positions(prefix == IMAGE, grids)
    branches = tuple(
        Branch(
            f"branch {index}",
            chance.integers(100, 999, length).astype(np.int32),
            np.array([0] * (length // 2) + [1 + index % 2] * (length - length // 2), np.int8),
            bool((seed + index) % 2),
            0.25 * index,
        )
        for index, length in enumerate(branch_lengths)
    )
    return Group(f"record {seed}", prefix, positions, packed_images(grids, seed), branches)


def collate(groups: Sequence[Group], reference: Sequence[np.ndarray] | None = None) -> GroupBatch:
    reference = [np.zeros((len(group.branches), 1), np.float32) for group in groups] if reference is None else reference
    return collate_groups(
        groups, reference, image_token_id=IMAGE, prefix_buckets=(4, 16, 64), branch_buckets=(6, 12, 24)
    )


GROUPS = (
    make_group(0, 3, (4, 2)),
    make_group(1, 9, (1, 9), grids=((2, 3), (1, 1))),
    make_group(2, 0, (3, 3)),
    make_group(3, 12, (5, 8), grids=((2, 2),)),
)


def check(batch: GroupBatch, groups: Sequence[Group]) -> None:
    """Everything that must hold of a batch, read back row by row."""
    prefix_length = batch.prefix.tokens.shape[1]
    for row, group in enumerate(groups):
        size = len(group.prefix) - 1
        left = prefix_length - size
        np.testing.assert_array_equal(batch.prefix.segment_ids[row], [0] * left + [1] * size)
        np.testing.assert_array_equal(batch.prefix.tokens[row, left:], group.prefix[:-1])
        np.testing.assert_array_equal(batch.prefix.tokens[row, :left], 0)
        np.testing.assert_array_equal(batch.prefix.positions[row, left:], group.positions[:-1])
        np.testing.assert_array_equal(batch.prefix.image_index[row, :left], -1)
        indices = batch.prefix.image_index[row, left:]
        np.testing.assert_array_equal(indices >= 0, group.prefix[:-1] == IMAGE)
        np.testing.assert_array_equal(indices[indices >= 0], placed(group.images)[::4] // 4)
        for column, branch in enumerate(group.branches):
            check_branch(batch, (row, column), group, branch)


def check_branch(batch: GroupBatch, place: tuple[int, int], group: Group, branch: Branch) -> None:
    size = len(branch.tokens)
    np.testing.assert_array_equal(batch.branches.segment_ids[place], np.arange(batch.targets.shape[-1]) < size)
    assert batch.branches.tokens[place][0] == group.prefix[-1]
    np.testing.assert_array_equal(batch.branches.tokens[place][1:size], branch.tokens[:-1])
    np.testing.assert_array_equal(batch.targets[place][:size], branch.tokens)
    np.testing.assert_array_equal(batch.segments[place][:size], branch.segments)
    for padded in (batch.branches.tokens, batch.targets, batch.segments):
        assert not padded[place][size:].any()
    assert (batch.branches.image_index[place] == -1).all()
    assert batch.success[place] == branch.success
    assert batch.verifier_value[place] == pytest.approx(branch.verifier_value)
    # Prefix and branch together are one conversation, whose positions go on without a seam.
    is_image = np.concatenate([group.prefix == IMAGE, np.zeros(size - 1, bool)])
    whole = rotary_positions(is_image, group.images.merged_grids)
    np.testing.assert_array_equal(group.positions, whole[: len(group.prefix)])
    np.testing.assert_array_equal(batch.branches.positions[place][:size], whole[len(group.prefix) - 1 :])


def placed(images: PackedImages) -> np.ndarray:
    """Where the patches of a row stand.  # [patch]"""
    places = zip(images.starts, images.patch_counts, strict=True)
    return np.concatenate([np.zeros(0, int), *(start + np.arange(count) for start, count in places)])


class TestGroups:
    """Every array of a batch against the groups it was made of."""

    @pytest.mark.parametrize("groups", (GROUPS, GROUPS[:1], GROUPS[1:2], GROUPS[2:3], GROUPS[::-1]))
    def test_every_row_reads_back(self, groups: Sequence[Group]) -> None:
        check(collate(groups), groups)

    def test_lengths_are_the_smallest_buckets_that_hold_all(self) -> None:
        small, large = collate(GROUPS[:1]), collate(GROUPS)
        assert small.prefix.tokens.shape == (1, 4) and small.targets.shape == (1, 2, 6)
        assert large.prefix.tokens.shape == (4, 16) and large.targets.shape == (4, 2, 12)
        assert large.prefix.positions.shape == (4, 16, 3) and large.branches.positions.shape == (4, 2, 12, 3)

    def test_types(self) -> None:
        batch = collate(GROUPS)
        for block in (batch.prefix, batch.branches):
            for array in (block.tokens, block.segment_ids, block.positions, block.image_index):
                assert array.dtype == np.int32
        assert batch.targets.dtype == np.int32 and batch.segments.dtype == np.int8
        assert batch.success.dtype == bool
        assert batch.verifier_value.dtype == batch.reference_logprobs.dtype == np.float32

    @pytest.mark.parametrize("width", (3, 6, 10))
    def test_reference_logprobs_are_padded_to_the_branches(self, width: int) -> None:
        reference = np.zeros((2, width), np.float32)
        reference[:, :3] = [[-1.0, -2.0, -3.0], [-4.0, 0.0, 0.0]]
        batch = collate(GROUPS[:1], [reference])
        np.testing.assert_array_equal(batch.reference_logprobs[0, :, :3], reference[:, :3])
        assert batch.reference_logprobs.shape == (1, 2, 6) and not batch.reference_logprobs[..., 3:].any()

    def test_a_prefix_of_one_token_leaves_an_empty_row(self) -> None:
        block, images = collate_prefixes(GROUPS[2:3], image_token_id=IMAGE, buckets=(4,))
        assert images is None
        assert not block.segment_ids.any() and (block.image_index == -1).all()

    def test_groups_of_a_record_with_images(
        self,
        image_reader: ConversationReader,
        rot_record: RotRecord,
        with_images: Callable[..., RotRecord],
        picture: Callable[[int, int], str],
    ) -> None:
        record = with_images(
            rot_record, [ImageReference("<image_00>", picture(2, 3)), ImageReference("", picture(1, 1))]
        )
        groups = [
            build_group(item, image_reader, conditioning="paper", max_prefix=512, max_branch=512)
            for item in (record, rot_record)
        ]
        image_token_id = image_reader.renderer.image_token_id
        reference = [np.zeros((5, 1), np.float32)] * 2
        batch = collate_groups(
            groups, reference, image_token_id=image_token_id, prefix_buckets=(512,), branch_buckets=(512,)
        )
        assert [int((row >= 0).sum()) for row in batch.prefix.image_index] == [7, 0]
        assert batch.images is not None
        np.testing.assert_array_equal((batch.images.segment_ids > 0).sum(axis=1), [4 * 7, 0])
        np.testing.assert_array_equal(batch.images.patches[0, placed(groups[0].images)], groups[0].images.patches)


class TestRefusals:
    """What does not fit is never cut, and no image token goes without its own feature."""

    def test_a_length_that_no_bucket_holds(self) -> None:
        with pytest.raises(UserError, match=r"65 tokens exceed the largest of config\.data\.prefix_buckets \(64\)"):
            collate((GROUPS[0], make_group(4, 65, (4, 2))))
        with pytest.raises(UserError, match=r"25 tokens exceed the largest of config\.data\.branch_buckets \(24\)"):
            collate((GROUPS[0], make_group(4, 6, (4, 25))))

    @pytest.mark.parametrize(("place", "found"), ((1, 6), (-2, 8)))
    def test_image_tokens_and_features_that_disagree(self, place: int, found: int) -> None:
        group = GROUPS[1]
        prefix = group.prefix.copy()
        prefix[place] = IMAGE if prefix[place] != IMAGE else 9
        with pytest.raises(UserError, match=f"record 1: {found} image tokens for 7 image features"):
            collate((GROUPS[0], dataclasses.replace(group, prefix=prefix)))

    def test_features_without_image_tokens(self) -> None:
        with pytest.raises(UserError, match="record 0: 0 image tokens for 2 image features"):
            collate((dataclasses.replace(GROUPS[0], images=packed_images([(1, 2)])),))
        with pytest.raises(UserError, match="record 1: 0 image tokens for 7 image features"):
            collate_prefixes(GROUPS[1:2], image_token_id=-1, buckets=(64,))

    def test_an_image_token_in_a_branch(self) -> None:
        first, second = GROUPS[0].branches
        second = dataclasses.replace(second, tokens=np.array([IMAGE, 100], np.int32))
        with pytest.raises(UserError, match="record 0, branch 1: 1 image tokens for 0 image features"):
            collate((dataclasses.replace(GROUPS[0], branches=(first, second)),))


class TestImages:
    """Patches of a batch of rows."""

    @pytest.mark.parametrize(("tokens", "length"), ((1, 16), (4, 16), (5, 32), (8, 32), (9, 64), (17, 128)))
    def test_lengths_are_powers_of_two_times_sixteen(self, tokens: int, length: int) -> None:
        images = collate_images([packed_images([(1, tokens)]), packed_images([])])
        assert images is not None
        assert images.patches.shape == (2, length, PATCH_DIM)
        assert images.segment_ids.shape == (2, length) and images.positions.shape == (2, length, 2)

    def test_images_stand_aligned_in_their_rows(self) -> None:
        rows = [packed_images([(1, 2), (2, 2)], 1), packed_images([]), packed_images([(1, 1)], 2)]
        images = collate_images(rows)
        assert images is not None
        for row, packed in enumerate(rows):
            at = placed(packed)
            np.testing.assert_array_equal(images.patches[row, at], packed.patches)
            np.testing.assert_array_equal(images.positions[row, at], packed.positions)
            np.testing.assert_array_equal(images.segment_ids[row, at], packed.segment_ids)
            rest = np.setdiff1d(np.arange(images.patches.shape[1]), at)
            assert not images.segment_ids[row, rest].any() and not images.patches[row, rest].any()

    @given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=6))
    def test_no_image_crosses_a_block(self, grids: list[tuple[int, int]]) -> None:
        packed = packed_images(grids)
        images = collate_images([packed])
        assert images is not None and images.patches.shape[1] % images.block == 0
        for start, count in zip(packed.starts, packed.patch_counts, strict=True):
            assert start // images.block == (start + count - 1) // images.block
        assert len(set(placed(packed).tolist())) == len(packed.patches)

    def test_no_images_at_all(self) -> None:
        assert collate_images([packed_images([]), packed_images([])]) is None

    @given(is_image=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=3))
    def test_image_indices_count_within_each_row(self, is_image: list[list[bool]]) -> None:
        expected = []
        for row in is_image:
            counted = iter(range(len(row)))
            expected.append([next(counted) if image else -1 for image in row])
        np.testing.assert_array_equal(image_indices(np.array(is_image)), expected)


@given(length=st.integers(0, 40), buckets=st.lists(st.integers(1, 40), min_size=1))
def test_the_smallest_bucket_that_holds_a_length(length: int, buckets: list[int]) -> None:
    if length > max(buckets):
        with pytest.raises(UserError, match=rf"{length} tokens exceed the largest of x\.y \({max(buckets)}\)"):
            bucket_length(length, buckets, "x.y")
        return
    chosen = bucket_length(length, buckets, "x.y")
    assert chosen in buckets
    assert chosen >= length and not any(length <= bucket < chosen for bucket in buckets)
