"""How sure a mean over tasks is: bootstrap intervals, over tasks and seeds, and of differences task by task.

Two policies that played the same tasks are compared on each task, which takes the tasks' own difficulty out of the
difference.
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
    known = ~np.isnan(values)
    if not known.any():
        raise ValueError("there is no value to take a mean of")
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
        means.append(total[count > 0] / count[count > 0])
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Interval(float(filled.sum() / known.sum()), float(low), float(high))


def paired_difference(first: np.ndarray, second: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """How much higher `second` is on the same tasks and seeds; both [seed, task] without nan.

    Raises:
      ValueError: the shapes differ, or a value is missing.
    """
    if first.shape != second.shape or np.isnan(first).any() or np.isnan(second).any():
        raise ValueError(f"values of the same tasks and seeds are needed, not {first.shape} and {second.shape} or nan")
    return mean_interval(second - first, seed=seed, resamples=resamples)
