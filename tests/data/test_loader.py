"""The grain pipelines: mixing, packing, and resuming to the very next batch."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

import grain
import jax
import numpy as np
import pytest

from regrpo_jax.data.batches import SftBatch
from regrpo_jax.data.examples import Example
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import PackedImages, pack_images
from regrpo_jax.data.loader import group_batches, sft_batches
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.errors import UserError

IMAGE = 5
PATCH_DIM = 2
ROW_LENGTH, ROW_PATCHES = 40, 48
FIRST_ROT = 200


def make_example(name: int, length: int, grids: Sequence[tuple[int, int]] = ()) -> Example:
    """A conversation whose text tokens all are `name`, and whose patches are (name, number of the image)."""
    counts = [rows * columns for rows, columns in grids]
    tokens = np.concatenate([[name], np.full(sum(counts), IMAGE), np.full(length - 1 - sum(counts), name)])
    segments = np.where(np.arange(length) >= length - 2, 2, 0).astype(np.int8)
    ids = np.repeat(np.arange(len(grids)) + 1, [4 * count for count in counts]).astype(np.int32)
    patches = np.stack([np.full(len(ids), name), ids], axis=-1).astype(np.float32)
    places = np.arange(len(ids))[:, None].repeat(2, 1).astype(np.int32)
    images = PackedImages(patches, places, ids, ids, tuple(grids))
    return Example(
        f"record {name}", tokens.astype(np.int32), segments, rotary_positions(tokens == IMAGE, grids), images
    )


# Sources of some twenty examples: grain shuffles much smaller ones slowly, by walking a cycle of 2^16 numbers.
CLEAN = [make_example(100 + index, 4 + 7 * index % 30) for index in range(20)]
GRIDS = ((), ((1, 2), (2, 2)), ((3, 2),), (), ((1, 1),))
ROT = [make_example(200 + index, 10 + 11 * index % 31, GRIDS[index % 5]) for index in range(24)]
BY_NAME = {example.tokens[0]: example for example in (*CLEAN, *ROT)}


def batches(clean: Sequence[Example] = CLEAN, rot: Sequence[Example] = ROT, **changes: Any) -> grain.DatasetIterator:
    options = dict(
        clean_ratio=0.5, batch_rows=2, row_length=ROW_LENGTH, row_patches=ROW_PATCHES, image_token_id=IMAGE, seed=11
    )
    return sft_batches(clean, rot, **(options | changes))


def take(iterator: grain.DatasetIterator, count: int) -> list[Any]:
    return [next(iterator) for _ in range(count)]


def conversations(batch: SftBatch) -> list[tuple[int, int, np.ndarray]]:
    """(row, segment id, which tokens of the row) of every conversation of a batch."""
    ids = np.asarray(batch.block.segment_ids)
    return [(row, int(i), ids[row] == i) for row in range(len(ids)) for i in range(1, ids[row].max() + 1)]


def names(batches: Sequence[SftBatch]) -> list[int]:
    """The names of all conversations, in order."""
    return [int(batch.block.tokens[row, mine][0]) for batch in batches for row, _, mine in conversations(batch)]


def assert_equal(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


class TestPacking:
    """A row is whole conversations side by side."""

    def test_every_conversation_is_whole_and_alone_in_its_segment(self) -> None:
        for batch in take(batches(), 20):
            assert batch.block.tokens.shape == (2, ROW_LENGTH)
            for row, _, mine in conversations(batch):
                example = BY_NAME[batch.block.tokens[row, mine][0]]
                np.testing.assert_array_equal(batch.block.tokens[row, mine], example.tokens)
                np.testing.assert_array_equal(batch.segments[row, mine], example.segments)
                np.testing.assert_array_equal(batch.block.positions[row, mine], example.positions)
                assert np.ptp(np.flatnonzero(mine)) == len(example.tokens) - 1

    def test_padding_is_empty(self) -> None:
        for batch in take(batches(), 20):
            padding = batch.block.segment_ids == 0
            assert not batch.block.tokens[padding].any() and not batch.segments[padding].any()
            assert (batch.block.image_index[padding] == -1).all()
            assert not batch.images.segment_ids[(batch.images.patches == 0).all(-1)].any()

    def test_padding_is_no_image_even_where_the_image_token_is_zero(self) -> None:
        batch = next(batches(CLEAN, CLEAN, image_token_id=0))
        assert (batch.block.segment_ids == 0).any() and (batch.block.image_index == -1).all()

    def test_rows_are_filled_by_more_than_one_conversation(self) -> None:
        counts = [len(conversations(batch)) for batch in take(batches(), 20)]
        assert sum(counts) > 2 * 20 * 1.5

    def test_image_tokens_and_merged_features_agree(self) -> None:
        seen = 0
        for batch in take(batches(), 20):
            for row in range(2):
                index = batch.block.image_index[row]
                is_image = batch.block.tokens[row] == IMAGE
                np.testing.assert_array_equal(index >= 0, is_image)
                features = np.count_nonzero(batch.images.segment_ids[row]) // 4
                np.testing.assert_array_equal(index[is_image], np.arange(features))
                # The feature of an image token is made of patches of the token's own conversation.
                merged = batch.images.patches[row, : 4 * features].reshape(features, 4, PATCH_DIM)
                for token in np.flatnonzero(is_image):
                    owner = batch.block.tokens[
                        row, batch.block.segment_ids[row] == batch.block.segment_ids[row, token]
                    ][0]
                    assert (merged[index[token], :, 0] == owner).all()
                seen += features
        assert seen > 50

    def test_images_of_different_conversations_have_different_ids(self) -> None:
        shared_rows = 0
        for batch in take(batches(clean_ratio=0.0), 30):
            for row in range(2):
                ids, patches = batch.images.segment_ids[row], batch.images.patches[row]
                # The same record may lie in a row twice; its copies start anew at the patch positions.
                starts = np.cumsum((batch.images.positions[row, :, 0] == 0) & (ids > 0))
                images = {(int(start), *patch) for start, patch in zip(starts[ids > 0], patches[ids > 0], strict=True)}
                assert len(set(ids[ids > 0])) == len(images)
                for image in set(ids[ids > 0]):
                    assert len({tuple(patch) for patch in patches[ids == image]}) == 1
                shared_rows += starts.max() > 1
        assert shared_rows

    def test_a_policy_without_images_gets_none(self) -> None:
        for batch in take(batches(CLEAN, CLEAN, row_patches=0, image_token_id=-1), 3):
            assert batch.images is None and (batch.block.image_index == -1).all()

    def test_types(self) -> None:
        batch = next(batches())
        block = (batch.block.tokens, batch.block.segment_ids, batch.block.positions, batch.block.image_index)
        assert {array.dtype for array in block} == {np.dtype(np.int32)}
        assert batch.segments.dtype == np.int8 and batch.images.segment_ids.dtype == np.int32
        assert batch.images.patches.dtype == np.float32


class TestMixing:
    """Clean and RoT examples in the asked proportion."""

    @pytest.mark.parametrize("clean_ratio", (0.0, 0.2, 0.5, 0.8, 1.0))
    def test_the_share_of_clean_examples(self, clean_ratio: float) -> None:
        drawn = names(take(batches(10 * CLEAN, 10 * ROT, clean_ratio=clean_ratio), 150))
        assert len(drawn) > 400
        share = np.mean([name < FIRST_ROT for name in drawn])
        assert share == pytest.approx(clean_ratio, abs=0.0 if clean_ratio in (0.0, 1.0) else 0.02)

    def test_every_example_of_a_source_comes_equally_often(self) -> None:
        drawn = names(take(batches(), 100))
        for source in (CLEAN, ROT):
            counts = [drawn.count(example.tokens[0]) for example in source]
            # Packing holds a few examples back, so that counts differ by those in flight.
            assert min(counts) >= 3 and max(counts) - min(counts) <= 3

    def test_the_order_changes_with_the_seed_and_the_epoch(self) -> None:
        # Rows that hold one example each, so that they come in the order of the draw.
        alone = [make_example(name, ROW_LENGTH) for name in range(100, 120)]
        first, again, other = (names(take(batches(alone, clean_ratio=1.0, seed=seed), 20)) for seed in (1, 1, 2))
        assert first == again != other
        assert sorted(first[:20]) == sorted(first[20:]) == list(range(100, 120))
        assert first[:20] != first[20:]

    @pytest.mark.parametrize(
        ("clean", "rot", "ratio", "name"), (([], ROT, 0.3, "data.clean"), (CLEAN, [], 0.3, "data.rot"))
    )
    def test_an_empty_source(self, clean: list[Example], rot: list[Example], ratio: float, name: str) -> None:
        with pytest.raises(UserError, match=rf"config\.sft\.clean_ratio=0\.3 needs examples from config\.{name}"):
            batches(clean, rot, clean_ratio=ratio)

    def test_a_source_that_is_not_asked_for_may_be_empty(self) -> None:
        assert (next(batches([], ROT, clean_ratio=0.0)).block.tokens >= 0).all()
        assert (next(batches(CLEAN, [], clean_ratio=1.0)).block.tokens < FIRST_ROT).all()

    @pytest.mark.parametrize(
        ("changes", "message"),
        (
            ({"row_patches": 23}, r"record \d+: 24 image patches exceed config\.sft\.row_patches=23"),
            ({"row_length": 39}, r"record 214: 40 tokens exceed config\.sft\.row_length=39"),
        ),
    )
    def test_an_example_that_no_row_holds(self, changes: dict[str, int], message: str) -> None:
        with pytest.raises(UserError, match=message):
            batches(**changes)

    @pytest.mark.parametrize("image_token_id", (IMAGE + 1, -1))
    def test_features_without_image_tokens(self, image_token_id: int) -> None:
        with pytest.raises(UserError, match=r"record \d+: 0 image tokens for \d image features"):
            batches(image_token_id=image_token_id)

    def test_an_image_token_without_a_feature(self) -> None:
        plain = make_example(150, 9)
        stray = dataclasses.replace(plain, tokens=np.where(np.arange(9) == 4, IMAGE, plain.tokens))
        with pytest.raises(UserError, match="record 150: 1 image tokens for 0 image features"):
            batches(clean=[*CLEAN, stray])


def make_group(name: int) -> Group:
    tokens = np.full(3, name, np.int32)
    branch = Branch("correct", tokens, np.full(3, 2, np.int8), True, 0.0)
    images = pack_images([], None)
    return Group(f"record {name}", tokens, rotary_positions(tokens < 0, []), images, (branch,))


def groups(count: int = 21, seed: int = 5) -> grain.DatasetIterator:
    return group_batches(
        [make_group(index + 1) for index in range(count)],
        [np.full((1, 3), -float(index + 1), np.float32) for index in range(count)],
        groups_per_batch=2,
        image_token_id=-1,
        prefix_buckets=(4,),
        branch_buckets=(4,),
        seed=seed,
    )


class TestGroups:
    """Groups in shuffled order, each with its own reference."""

    def test_each_epoch_visits_every_group_once(self) -> None:
        visited = [int(name) for batch in take(groups(), 42) for name in batch.targets[:, 0, 0]]
        epochs = [visited[start : start + 21] for start in range(0, 84, 21)]
        assert [sorted(epoch) for epoch in epochs] == [list(range(1, 22))] * 4
        assert len({tuple(epoch) for epoch in epochs}) > 1

    def test_the_first_pass_is_in_order_and_later_ones_are_not(self) -> None:
        visited = [int(name) for batch in take(groups(20), 30) for name in batch.targets[:, 0, 0]]
        passes = [visited[start : start + 20] for start in (0, 20, 40)]
        assert passes[0] == list(range(1, 21))
        assert len({tuple(order) for order in passes}) == 3
        other = [int(name) for batch in take(groups(20, seed=6), 30) for name in batch.targets[:, 0, 0]]
        assert other[:20] == visited[:20] and other[20:] != visited[20:]

    @pytest.mark.parametrize("more", (9, 21))
    def test_groups_behind_those_that_are_visited_change_nothing(self, more: int) -> None:
        stopped, longer = groups(8), groups(more)
        for batch in take(stopped, 4):
            assert_equal(next(longer), batch)
        resumed = groups(more)
        resumed.set_state(json.loads(json.dumps(stopped.get_state())))
        for batch in take(resumed, 9):
            assert_equal(next(longer), batch)

    def test_reference_logprobs_stay_with_their_group(self) -> None:
        for batch in take(groups(), 8):
            np.testing.assert_array_equal(batch.reference_logprobs[..., :3], -batch.targets[..., :3].astype(float))

    def test_no_groups(self) -> None:
        with pytest.raises(UserError, match="no groups to train on"):
            groups(0)


class TestResuming:
    """A stored state gives exactly the batches that would have come."""

    @pytest.mark.parametrize("pipeline", (batches, groups), ids=("sft", "groups"))
    def test_from_every_state_of_several_epochs(self, pipeline: Callable[[], grain.DatasetIterator]) -> None:
        iterator = pipeline()
        states, come = [], []
        for _ in range(36):
            states.append(json.dumps(iterator.get_state()))
            come.append(next(iterator))
        for start in (0, 1, 2, 3, 4, 5, 11, 17, 26, 32):
            resumed = pipeline()
            resumed.set_state(json.loads(states[start]))
            for expected in come[start : start + 4]:
                assert_equal(next(resumed), expected)

    def test_across_an_epoch_edge(self) -> None:
        # 21 groups, 2 a batch: batch 10 holds the last group of the first epoch and the first of the second.
        whole = take(groups(), 14)
        for start in (9, 10, 11):
            stopped = groups()
            take(stopped, start)
            resumed = groups()
            resumed.set_state(stopped.get_state())
            for expected in whole[start:]:
                assert_equal(next(resumed), expected)

    def test_going_back_on_the_same_iterator(self) -> None:
        iterator = batches()
        take(iterator, 3)
        state = iterator.get_state()
        first = take(iterator, 5)
        iterator.set_state(state)
        for expected, batch in zip(first, take(iterator, 5), strict=True):
            assert_equal(batch, expected)

    def test_chains_of_interruptions(self) -> None:
        whole = take(batches(), 12)
        state, collected = batches().get_state(), []
        for _ in range(6):
            iterator = batches()
            iterator.set_state(state)
            collected += take(iterator, 2)
            state = json.loads(json.dumps(iterator.get_state()))
        for expected, batch in zip(whole, collected, strict=True):
            assert_equal(batch, expected)
