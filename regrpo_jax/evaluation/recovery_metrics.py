"""Recovery, task by task: what each unseen task adds to every number; intervals and differences are over tasks.

A row is what is kept of a task: one value per episode, None where the episode says nothing about the name (no failure
to recover from), and how many episodes were dropped. Rows of the same tasks, played by different policies or after
different seeds, can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from regrpo_jax.agent.rollout import Label, Opener, Rollout, RolloutGroup
from regrpo_jax.environments.recovery import NO_ERROR_TYPE
from regrpo_jax.environments.task import Task
from regrpo_jax.evaluation.intervals import mean_interval
from regrpo_jax.evaluation.rollout_metrics import repaired_at_once, share

Row = dict[str, Any]
NAMES = ("success", "first_attempt_success", "recovery", "repair_at_1", "needless", "reflection_tokens_per_episode",
         "tokens", "tool_calls")  # fmt: skip
# What follows from a row: every dropped episode is a failure; the share of dropped ones.
AT_WORST, DROPPED = "success_at_worst", "dropped_share"


def row_of(group: RolloutGroup) -> Row:
    """What a task's episodes say, as JSON holds it; dropped episodes say nothing but that they were."""
    told = [_values(rollout) for rollout in group.rollouts if not rollout.dropped]
    return {
        "task": group.task_id,
        "family": group.family,
        "error_type": group.error_type or NO_ERROR_TYPE,
        "dropped": len(group.rollouts) - len(told),
        **{name: [values[name] for values in told] for name in NAMES},
    }


def lost_row(task: Task, episodes: int) -> Row:
    """Of a task that could not even begin: all its episodes are dropped."""
    return {
        "task": task.id,
        "family": task.family,
        "error_type": str(task.error_type or NO_ERROR_TYPE),
        "dropped": episodes,
        **{name: [] for name in NAMES},
    }


def _values(rollout: Rollout) -> dict[str, float | None]:
    """needless: of its turns after an action that went well, those which reflect."""
    fell = rollout.failed
    turns = zip(rollout.turns, rollout.turns[1:], strict=False)
    well = [after.reflection != Opener.NOBODY for before, after in turns if before.status == "ok" and not before.fell]
    return {
        "success": float(rollout.success),
        "first_attempt_success": float(rollout.first_attempt_success),
        "recovery": float(rollout.success) if fell else None,
        "repair_at_1": float(repaired_at_once(rollout)) if fell else None,
        "needless": share(well),
        "reflection_tokens_per_episode": float(rollout.reflection_tokens()),
        "tokens": float((rollout.labels >= Label.REFLECTION).sum()),
        "tool_calls": float(rollout.tool_calls),
    }


def task_means(rows: Sequence[Row], name: str) -> np.ndarray:
    """The mean over each task's episodes, nan where none says anything.  # [task]

    name: of `NAMES`, `AT_WORST` or `DROPPED`.
    """
    return np.array([np.nan if (mean := share(_known(_told(row, name)))) is None else mean for row in rows])


def _told(row: Row, name: str) -> Sequence[float | None]:
    if name == AT_WORST:
        return [*row["success"], *[0.0] * row["dropped"]]
    if name == DROPPED:
        return [*[0.0] * len(row["success"]), *[1.0] * row["dropped"]]
    return row[name]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def intervals(runs: Sequence[Sequence[Row]]) -> dict[str, list[float] | None]:
    """[mean, low, high] of each name over tasks and runs, a 95 % bootstrap interval; None where nothing counts.

    Beside `NAMES` what was dropped, and success with that as failures.

    Args:
      runs: rows of the same tasks in the same order; a run is one seed.
    """
    found: dict[str, list[float] | None] = {}
    for name in (*NAMES, AT_WORST, DROPPED):
        values = np.array([task_means(rows, name) for rows in runs])  # [run, task]
        found[name] = None if np.isnan(values).all() else list(mean_interval(values))
    return found


def grouped(rows: Sequence[Row], key: str) -> Mapping[str, list[Row]]:
    """Rows by their family or error type, in alphabetical order."""
    return {name: [row for row in rows if row[key] == name] for name in sorted({row[key] for row in rows})}
