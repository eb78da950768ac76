"""Curricula: levels that only grow, records in play that only join, and batches that resume whatever the level was."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import grain
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.data.curriculum import (
    ALL,
    NOTCH,
    Curriculum,
    Pace,
    Pacer,
    advance,
    count_in_play,
    first_level,
    in_play,
    linear_level,
)
from regrpo_jax.data.examples import Example
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import pack_images
from regrpo_jax.data.loader import Batches, group_batches, sft_batches
from regrpo_jax.data.paced_batches import FINENESS, Deal, Deck
from regrpo_jax.data.positions import rotary_positions

FIRST_ROT = 200
ROT_COUNT, CLEAN_COUNT, GROUP_COUNT = 40, 20, 36
# Records of a file are not in order of ease; their complexities are all different.
COMPLEXITIES = np.random.default_rng(0).permutation(ROT_COUNT) / ROT_COUNT

share = st.floats(0.0, 1.0)
scores = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=50)


def curriculum(kind: str = "linear", **changes: Any) -> Curriculum:
    options = dict(start=0.3, full=0.5, threshold=0.5, window=3, updates=40)
    return Curriculum(kind, **(options | changes))


class TestLinear:
    """A straight line from the first update to the one from which all records are in play."""

    @given(share, share, st.integers(1, 300))
    def test_levels_grow_to_all_and_stay(self, start: float, full: float, updates: int) -> None:
        chosen = curriculum(start=start, full=full, updates=updates)
        levels = [linear_level(update, chosen) for update in range(1, updates + 2)]
        assert levels == sorted(levels)
        assert levels[0] == (first_level(start) if full else ALL)
        assert all(level == ALL for level in levels[int(np.ceil(full * updates)) :])

    @given(st.integers(2, 1000))
    def test_the_line_is_straight(self, updates: int) -> None:
        chosen = curriculum(start=0.2, full=1.0, updates=updates)
        for update in range(1, updates + 1):
            exact = Fraction(20) + Fraction(80) * Fraction(update - 1, updates)
            assert abs(linear_level(update, chosen) - exact) <= Fraction(501, 1000)


class TestInPlay:
    """The easiest records, never none of them."""

    @given(scores, st.integers(1, ALL), st.integers(1, ALL))
    def test_a_higher_level_keeps_what_is_in_play(self, complexities: list[float], one: int, other: int) -> None:
        fewer, more = (in_play(complexities, level).tolist() for level in sorted((one, other)))
        assert more[: len(fewer)] == fewer and fewer

    @given(scores, st.integers(1, ALL))
    def test_what_is_in_play_is_no_harder_than_what_is_not(self, complexities: list[float], level: int) -> None:
        playing = set(in_play(complexities, level).tolist())
        waiting = set(range(len(complexities))) - playing
        assert len(playing) >= len(complexities) * level / ALL > len(playing) - 1
        assert not waiting or max(complexities[i] for i in playing) <= min(complexities[i] for i in waiting)

    @given(scores)
    def test_all_are_in_play_at_the_end(self, complexities: list[float]) -> None:
        assert sorted(in_play(complexities, ALL)) == list(range(len(complexities)))


class TestPace:
    """A level that successes raise and nothing lowers."""

    @given(st.lists(share, max_size=200), share, st.integers(1, 10), st.integers(1, ALL))
    def test_it_never_goes_down_and_a_window_moves_it_by_a_notch(
        self, successes: list[float], threshold: float, window: int, first: int
    ) -> None:
        pace = Pace(first)
        for number, success in enumerate(successes, start=1):
            after = advance(pace, success, threshold=threshold, window=window)
            if number % window:
                assert after.level == pace.level and after.measured == number % window
            else:
                mean = (pace.total + success) / window
                assert after == Pace(min(ALL, pace.level + NOTCH) if mean >= threshold else pace.level)
            pace = after

    def test_all_are_in_play_after_enough_success(self) -> None:
        pace, levels = Pace(30), []
        for _ in range(24):
            pace = advance(pace, 1.0, threshold=1.0, window=3)
            levels.append(pace.level)
        assert levels[:6] == [30, 30, 40, 40, 40, 50] and levels[-4:] == [100] * 4

    def test_failure_keeps_the_level_however_long(self) -> None:
        pace = Pace(30)
        for _ in range(100):
            pace = advance(pace, 0.74, threshold=0.75, window=4)
        assert pace.level == 30


class TestPacer:
    """The level of each draw, and its state."""

    @settings(max_examples=60)
    @given(
        st.sampled_from(("linear", "success-paced")),
        st.lists(st.tuples(st.integers(0, 5), share, st.integers(0, 2)), min_size=1, max_size=40),
        st.data(),
    )
    def test_a_stored_state_goes_on_as_if_nothing_had_happened(
        self, kind: str, updates: list[tuple[int, float, int]], data: st.DataObject
    ) -> None:
        stop = data.draw(st.integers(0, len(updates)))
        pacer, stored, levels = Pacer(curriculum(kind)), None, []
        for number, (draws, success, count) in enumerate(updates):
            if number == stop:
                stored = (json.loads(json.dumps(pacer.get_state())), len(levels))
            levels += self.play(pacer, len(levels), draws, success, count)
        assert levels == sorted(levels)
        if stored is not None:
            state, drawn = stored
            resumed = Pacer(curriculum(kind))
            resumed.set_state(state)
            again = [resumed.level_of(draw) for draw in range(drawn)]  # as a packer does on resuming
            for draws, success, count in updates[stop:]:
                again += self.play(resumed, len(again), draws, success, count)
            assert again == levels
            assert resumed.get_state() == pacer.get_state()

    @staticmethod
    def play(pacer: Pacer, drawn: int, draws: int, success: float, count: int) -> list[int]:
        pacer.begin_update()
        levels = [pacer.level_of(draw) for draw in range(drawn, drawn + draws)]
        if pacer.needs_success:
            pacer.observe(np.float32(success), np.float32(count))
        return levels

    def test_an_update_without_a_measurement_does_not_count(self) -> None:
        pacer = Pacer(curriculum("success-paced", window=2))
        for success, count, expected in ((1.0, 1, 30), (1.0, 0, 30), (1.0, 0, 30), (0.0, 1, 30), (0.0, 1, 40)):
            pacer.begin_update()
            assert pacer.level == expected
            pacer.observe(success, count)

    def test_numbers_are_left_on_the_device_until_a_window_may_be_full(self) -> None:
        read = []

        class Waiting:
            def __float__(self) -> float:
                read.append(len(read))
                return 1.0

        pacer = Pacer(curriculum("success-paced", window=3))
        for expected in (0, 0, 0, 6):
            pacer.begin_update()
            assert len(read) == expected
            pacer.observe(Waiting(), Waiting())
        assert pacer.level == 40

    def test_a_stage_that_got_more_updates_does_not_lose_records(self) -> None:
        short = Pacer(curriculum(updates=20))
        for _ in range(8):
            short.begin_update()
        longer = Pacer(curriculum(updates=2000))
        longer.set_state(short.get_state())
        longer.begin_update()
        assert longer.level == short.level > 30


class TestDeck:
    """Uniform draws from what is in play, and the plain shuffle when that is everything."""

    @given(st.integers(1, 40), st.integers(1, ALL))
    def test_every_record_in_play_has_the_same_part_of_all_places(self, records: int, level: int) -> None:
        # Over all places and a grid of parts, so that the counts are exact up to the grid.
        deck = Deck(COMPLEXITIES[:records], Pacer(curriculum(start=level / ALL)))
        playing, grid = count_in_play(records, first_level(level / ALL)), 64
        found = Counter(
            deck.record(Deal(0, place, part * FINENESS // grid)) for place in range(records) for part in range(grid)
        )
        assert set(found) == set(in_play(COMPLEXITIES[:records], first_level(level / ALL)).tolist())
        assert all(abs(count - records * grid / playing) <= 1 for count in found.values())

    def test_at_the_last_level_it_is_grains_own_shuffle(self) -> None:
        deck = Deck(COMPLEXITIES, Pacer(curriculum(start=1.0)))
        deals, plain = deck.deals(7), grain.MapDataset.range(ROT_COUNT).seed(7).shuffle().repeat()
        assert [deck.record(deals[i]) for i in range(200)] == [plain[i] for i in range(200)]


def make_example(name: int, length: int, complexity: float | None = None) -> Example:
    """A conversation of one word, `name`."""
    tokens = np.full(length, name, np.int32)
    segments = np.where(np.arange(length) >= length - 2, 2, 0).astype(np.int8)
    return Example(
        f"record {name}", tokens, segments, rotary_positions(tokens < 0, []), pack_images([], None), complexity
    )


CLEAN = [make_example(100 + index, 4 + 7 * index % 30) for index in range(CLEAN_COUNT)]
ROT = [make_example(FIRST_ROT + i, 6 + 11 * i % 31, float(score)) for i, score in enumerate(COMPLEXITIES)]


def make_group(name: int, complexity: float) -> Group:
    tokens = np.full(3, name, np.int32)
    branch = Branch("correct", tokens, np.full(3, 2, np.int8), True, 0.0)
    images = pack_images([], None)
    return Group(f"record {name}", tokens, rotary_positions(tokens < 0, []), images, (branch,), complexity)


GROUPS = [make_group(FIRST_ROT + i, float(score)) for i, score in enumerate(COMPLEXITIES[:GROUP_COUNT])]


def sft(pacer: Pacer | None, clean_ratio: float = 0.5) -> Batches:
    return sft_batches(
        CLEAN, ROT, clean_ratio=clean_ratio, batch_rows=2, row_length=40, row_patches=0, image_token_id=-1, seed=11,
        pacer=pacer,
    )  # fmt: skip


def rl(pacer: Pacer | None) -> Batches:
    reference = [np.zeros((1, 3), np.float32)] * GROUP_COUNT
    return group_batches(
        GROUPS, reference, groups_per_batch=2, image_token_id=-1, prefix_buckets=(4,), branch_buckets=(4,), seed=5,
        pacer=pacer,
    )  # fmt: skip


def names(batch: Any) -> list[int]:
    """All conversations of a batch, or all groups."""
    if hasattr(batch, "targets"):
        return batch.targets[:, 0, 0].tolist()
    ids = batch.block.segment_ids
    rows = range(len(ids))
    return [int(batch.block.tokens[row][ids[row] == i][0]) for row in rows for i in range(1, ids[row].max() + 1)]


def complexities_of(batch: Any) -> list[float]:
    return [float(COMPLEXITIES[name - FIRST_ROT]) for name in names(batch) if name >= FIRST_ROT]


def succeed(pacer: Pacer, batch: Any) -> None:
    """A success that depends on the batch, as a policy's does."""
    if pacer.needs_success:
        pacer.observe(float(np.sum(names(batch)) % 10) / 10, 1)


def run(batches: Batches, pacer: Pacer, count: int) -> list[Any]:
    """Batches in turn, each followed by its success."""
    taken = []
    for _ in range(count):
        taken.append(next(batches))
        succeed(pacer, taken[-1])
    return taken


def assert_equal(first: Any, second: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, first, second)


class TestBatches:
    """What the loader makes of a level."""

    def test_without_a_curriculum_the_first_pass_is_in_order_and_later_ones_are_shuffled(self) -> None:
        batches, in_order = rl(None), list(range(FIRST_ROT, FIRST_ROT + GROUP_COUNT))
        drawn = [name for _ in range(2 * GROUP_COUNT) for name in names(next(batches))]
        passes = [drawn[start : start + GROUP_COUNT] for start in range(0, 3 * GROUP_COUNT, GROUP_COUNT)]
        assert passes[0] == in_order and in_order not in passes[1:] and passes[1] != passes[2]
        assert all(sorted(one) == in_order for one in passes)

    def test_a_level_of_all_gives_the_packed_rows_of_no_curriculum(self) -> None:
        plain, paced = sft(None), sft(Pacer(curriculum(start=1.0)))
        for _ in range(30):
            assert_equal(next(paced), next(plain))

    @pytest.mark.parametrize("make", (sft, rl))
    def test_only_what_is_in_play_is_drawn_and_all_of_it(self, make: Callable[..., Batches]) -> None:
        pacer = Pacer(curriculum(start=0.25, full=1.0, updates=10**9))
        batches = make(pacer)
        drawn = [score for _ in range(200) for score in complexities_of(next(batches))]
        playing = np.sort(COMPLEXITIES if make is sft else COMPLEXITIES[:GROUP_COUNT])
        assert set(drawn) == set(playing[: len(playing) // 4])
        counts = np.array(list(Counter(drawn).values()))
        assert counts.max() - counts.min() < 0.4 * counts.mean()

    def test_clean_examples_stay_uniform(self) -> None:
        batches = sft(Pacer(curriculum(start=0.05, updates=10**9)))
        clean = Counter(name for _ in range(60) for name in names(next(batches)) if name < FIRST_ROT)
        assert len(clean) == CLEAN_COUNT and min(clean.values()) >= 3
        assert max(clean.values()) - min(clean.values()) <= 2  # a pass that is under way, and rows being packed

    def test_a_new_level_takes_effect_at_once_where_nothing_is_packed(self) -> None:
        pacer = Pacer(curriculum(start=0.1, full=0.5, updates=20))
        batches, easiest = rl(pacer), np.sort(COMPLEXITIES[:GROUP_COUNT])
        for update in range(1, 21):
            found = complexities_of(next(batches))
            playing = easiest[: count_in_play(GROUP_COUNT, linear_level(update, curriculum(start=0.1, updates=20)))]
            assert set(found) <= set(playing)
            assert pacer.metrics["curriculum/share"] == pytest.approx(len(playing) / GROUP_COUNT)
            assert pacer.metrics["curriculum/complexity"] == pytest.approx(np.mean(found))

    def test_the_first_batch_of_a_new_level_is_drawn_at_it(self) -> None:
        paced = rl(Pacer(curriculum(start=0.01, full=0.5, updates=2)))
        assert len(set(names(next(paced)))) == 1
        drawn = {name for _ in range(GROUP_COUNT) for name in names(next(paced))}
        assert len(drawn) == GROUP_COUNT  # from the second update on, all are in play

    def test_packed_rows_are_up_to_three_updates_behind(self) -> None:
        pacer = Pacer(curriculum(start=0.1, full=0.5, updates=80))
        batches, easiest, harder = sft(pacer, clean_ratio=0.0), np.sort(COMPLEXITIES), 0
        for update in range(1, 81):
            found = complexities_of(next(batches))
            drawn_at = update - (update - 1) % 4
            levels = [linear_level(u, curriculum(start=0.1, updates=80)) for u in (drawn_at, update)]
            playing = [set(easiest[: count_in_play(ROT_COUNT, level)]) for level in levels]
            assert set(found) <= playing[0] <= playing[1]
            assert pacer.metrics["curriculum/complexity"] == pytest.approx(np.mean(found))
            harder += len(playing[0]) < len(playing[1])
        assert harder > 10

    def test_a_batch_without_a_record_tells_of_what_is_in_play(self) -> None:
        deck = Deck(COMPLEXITIES, Pacer(curriculum(start=0.5)))
        easier = np.sort(COMPLEXITIES)[: ROT_COUNT // 2]
        assert deck.metrics(np.zeros(0)) == pytest.approx(
            {"curriculum/share": 0.5, "curriculum/complexity": easier.mean()}
        )


class TestResuming:
    """A stored state gives exactly the batches that would have come, before, in and after a packed lot of rows."""

    @pytest.mark.parametrize("kind", ("linear", "success-paced"))
    @pytest.mark.parametrize("make", (sft, rl))
    def test_from_every_update(self, make: Callable[..., Batches], kind: str) -> None:
        chosen = curriculum(kind, threshold=0.3, window=2)
        pacer = Pacer(chosen)
        batches, states, come, lines = make(pacer), [], [], []
        for _ in range(40):
            states.append(json.dumps(batches.get_state()))
            come += run(batches, pacer, 1)
            lines.append(pacer.metrics)
        assert len({line["curriculum/share"] for line in lines}) > 5
        for start in range(0, 36):
            resumed_pacer = Pacer(chosen)
            resumed = make(resumed_pacer)
            resumed.set_state(json.loads(states[start]))
            for expected, line in zip(come[start : start + 6], lines[start : start + 6], strict=False):
                (batch,) = run(resumed, resumed_pacer, 1)
                assert_equal(batch, expected)
                assert resumed_pacer.metrics == line

    def test_chains_of_interruptions(self) -> None:
        chosen = curriculum("success-paced", threshold=0.3, window=2)
        pacer = Pacer(chosen)
        whole = run(sft(pacer), pacer, 30)
        state, collected = sft(Pacer(chosen)).get_state(), []
        for _ in range(10):
            pacer = Pacer(chosen)
            batches = sft(pacer)
            batches.set_state(state)
            collected += run(batches, pacer, 3)
            state = json.loads(json.dumps(batches.get_state()))
        for expected, batch in zip(whole, collected, strict=True):
            assert_equal(batch, expected)
