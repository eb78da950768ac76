"""How sure a mean over tasks is: bootstrap intervals, over tasks and seeds, and of differences between policies.

Two policies that played the same tasks are compared over the same draws of tasks and seeds, which takes the difficulty
of the tasks and the luck of a seed out of the difference.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

RESAMPLES = 4000
_CHUNK = 250  # resamples that are held at once


class Interval(NamedTuple):
    """A mean, and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def mean_interval(values: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean of values, and where it would lie with other tasks and other seeds.

    Args:
      values: float, nan where a run has no value for a task (no failure to recover from).  # [seed, task]
      seed: of the resampling.
    Raises:
      ValueError: there is no value.

    Seeds and tasks are drawn anew with replacement, independently of each other (a crossed, two-way bootstrap; Owen,
    2007, "The pigeonhole bootstrap"). With one seed only tasks are.
    """
    if np.isnan(values).all():
        raise ValueError("there is no value to take a mean of")
    means = _resampled_means(values, seed, resamples)
    low, high = np.nanquantile(means, [0.025, 0.975])
    return Interval(float(np.nanmean(values)), float(low), float(high))


def paired_difference(first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """How much higher the mean of `second` is: both means over the same drawn tasks and seeds, again and again.

    Args:
      first, second: as in `mean_interval`, of the same tasks and seeds. A task of which only one of them has a value
        counts for that one's mean.  # [seed, task]
    Raises:
      ValueError: the shapes differ, or one has no value.
    """
    if first.shape != second.shape or np.isnan(first).all() or np.isnan(second).all():
        raise ValueError(f"values of the same tasks and seeds are needed, not {first.shape} and {second.shape} or nan")
    means = [_resampled_means(values, seed, resamples) for values in (first, second)]  # with the same draws
    low, high = np.nanquantile(means[1] - means[0], [0.025, 0.975])
    return Interval(float(np.nanmean(second) - np.nanmean(first)), float(low), float(high))


def _resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """The mean of each draw of seeds and tasks, nan of a draw without a value.  # [resample]"""
    known = ~np.isnan(values)
    filled = np.where(known, values, 0.0)
    runs, tasks = values.shape
    draws = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        run_weights = draws.multinomial(runs, np.full(runs, 1 / runs), size=size)  # [resample, seed]
        task_weights = draws.multinomial(tasks, np.full(tasks, 1 / tasks), size=size)  # [resample, task]
        total = np.einsum("br,rt,bt->b", run_weights, filled, task_weights)
        count = np.einsum("br,rt,bt->b", run_weights, known.astype(float), task_weights)
        means.append(np.where(count > 0, total / np.maximum(count, 1), np.nan))
    return np.concatenate(means)
