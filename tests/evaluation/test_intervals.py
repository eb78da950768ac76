"""Bootstrap intervals hold what they promise."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.evaluation.intervals import mean_interval, paired_difference


@given(seed=st.integers(0, 50), runs=st.integers(1, 5), tasks=st.integers(2, 60), missing=st.floats(0, 0.8))
def test_the_mean_is_in_its_interval_and_shifts_with_the_values(
    seed: int, runs: int, tasks: int, missing: float
) -> None:
    draws = np.random.default_rng(seed)
    values = draws.random((runs, tasks))
    values[draws.random((runs, tasks)) < missing] = np.nan
    values[0, 0] = 0.5
    found = mean_interval(values, seed=seed, resamples=400)
    assert found.low <= found.high
    assert found.mean == pytest.approx(np.nanmean(values))
    moved = mean_interval(values + 2.0, seed=seed, resamples=400)
    assert moved == pytest.approx([found.mean + 2, found.low + 2, found.high + 2])


def test_ninety_five_in_a_hundred_intervals_hold_the_truth() -> None:
    draws = np.random.default_rng(0)
    held = 0
    for number in range(200):
        values = (draws.random((1, 150)) < 0.3).astype(float)
        found = mean_interval(values, seed=number, resamples=500)
        held += found.low <= 0.3 <= found.high
    assert 180 <= held <= 199


def test_pairs_are_surer_than_the_two_alone() -> None:
    draws = np.random.default_rng(1)
    hard = draws.random((1, 200))
    first = (hard < 0.4).astype(float)
    second = (hard < 0.55).astype(float)
    difference = paired_difference(first, second)
    assert difference.low > 0 and difference.mean == pytest.approx(0.15, abs=0.06)
    apart = mean_interval(second).high - mean_interval(second).low
    assert difference.high - difference.low < apart


@given(seed=st.integers(0, 50), runs=st.integers(1, 4), tasks=st.integers(3, 40))
def test_a_difference_is_that_of_the_means_whatever_is_missing(seed: int, runs: int, tasks: int) -> None:
    draws = np.random.default_rng(seed)
    first, second = draws.random((2, runs, tasks))
    whole = paired_difference(first, second, resamples=200)
    assert whole == pytest.approx(mean_interval(second - first, resamples=200))
    for values in (first, second):
        values[draws.random((runs, tasks)) < 0.4] = np.nan
        values[0, 0] = 0.5
    found = paired_difference(first, second, resamples=200)
    assert found.mean == pytest.approx(np.nanmean(second) - np.nanmean(first)) and found.low <= found.high
    assert paired_difference(first, first, resamples=200) == (0.0, 0.0, 0.0)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="same tasks"):
        paired_difference(np.zeros((1, 3)), np.zeros((1, 4)))
    with pytest.raises(ValueError, match="same tasks"):
        paired_difference(np.zeros((1, 3)), np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="no value"):
        mean_interval(np.full((2, 3), np.nan))
