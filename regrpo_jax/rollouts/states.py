"""States of tasks that groups start from: the beginning, the middle of an episode, or an executed near miss."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from regrpo_jax.agent.rollout import Rollout
from regrpo_jax.environments.task import OracleStep, Task

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
            NEAR_MISS if run[count].fell else MIDDLE,
        )
        for count in range(len(run) - 1)
    ]


def with_own_states(
    states: Sequence[TaskState], episodes: Sequence[tuple[Task, Rollout]], shares: Mapping[str, float], seed: str
) -> list[TaskState]:
    """These shares of the states that are not forced, replaced by states that the policy itself came to earlier.

    episodes: earlier ones, begun at the beginning of their tasks. shares: of MIDDLE and of NEAR_MISS, at most 1
    together. A task is taken once for each kind; when none is left, the states stay as they are.
    """
    chance = random.Random(f"{seed}/own states")
    waiting = {start: _one_of_each_task(episodes, start, chance) for start in shares}
    found = []
    for state in states:
        draw = chance.random()
        for start, share in shares.items():
            if 0 <= draw < share and waiting[start] and not state.forced:
                state = waiting[start].pop()
            draw -= share
        found.append(state)
    return found


def _one_of_each_task(episodes: Sequence[tuple[Task, Rollout]], start: str, chance: random.Random) -> list[TaskState]:
    """One state of this kind of each task that has any, shuffled."""
    of_task: dict[str, list[TaskState]] = {}
    for task, rollout in episodes:
        for state in middle_states(task, rollout):
            if state.start == start and state not in of_task.setdefault(task.id, []):
                of_task[task.id].append(state)
    chosen = [chance.choice(found) for found in of_task.values() if found]
    chance.shuffle(chosen)
    return chosen
