"""States of tasks that groups start from: the beginning, the middle of an episode, or an executed near miss."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from regrpo_jax.agent.rollout import Rollout
from regrpo_jax.environments.task import OracleStep, Task
from regrpo_jax.records.types import Status

START, MIDDLE, NEAR_MISS = "start", "middle", "near_miss"


@dataclass(frozen=True)
class TaskState:
    """A task and the turns that come before the policy's own; they are played again and then are its context.

    start: where the state comes from. forced: a failing turn was put there on purpose.
    """

    task: Task
    before: tuple[str, ...] = ()
    start: str = START
    forced: bool = False


def own_failure(task: Task) -> tuple[str, ...] | None:
    """The turns of the task's oracle up to the first that fails, which is the task's own surprise; None without one."""
    fails = next((number for number, step in enumerate(task.oracle) if step.fails), None)
    return None if fails is None else tuple(step.turn() for step in _without_reflections(task.oracle[: fails + 1]))


def _without_reflections(steps: Sequence[OracleStep]) -> list[OracleStep]:
    return [replace(step, reflection=None) for step in steps]


def with_forced_failures(
    tasks: Sequence[Task],
    rate: float,
    seed: int,
    failure: Callable[[Task], tuple[str, ...] | None] = own_failure,
) -> list[TaskState]:
    """States at the beginning; this share of the tasks that can fail start after a failed first action instead.

    failure: the turns to force, the last of which fails; None where the task has none.
    """
    states = []
    for task in tasks:
        chosen = random.Random(f"{seed}/{task.id}/forced").random() < rate
        before = failure(task) if chosen else None
        states.append(TaskState(task) if before is None else TaskState(task, before, NEAR_MISS, forced=True))
    return states


def middle_states(task: Task, rollout: Rollout) -> list[TaskState]:
    """The states that an episode of the policy's own passed through: after each action that was run but the last.

    A state after a failed action is an executed near miss. Held-back and unfinished turns are left out.
    """
    run = [turn for turn in rollout.turns if turn.status is not None]
    if rollout.dropped or any(turn.held_back for turn in rollout.turns):
        return []
    return [
        TaskState(
            task,
            tuple(turn.text for turn in run[: count + 1]),
            MIDDLE if run[count].status == Status.OK else NEAR_MISS,
        )
        for count in range(len(run) - 1)
    ]
