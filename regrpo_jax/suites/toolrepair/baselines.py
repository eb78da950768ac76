"""Policies that the suite is measured with: one that always repairs, one that never does, one that guesses.

A policy is a function of (task, steps so far) that returns the assistant's next turn, as `run_episodes` wants it. It
is asked from several threads and keeps nothing to itself: the same steps give the same turn.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random

from regrpo_jax.environments.task import OracleStep, Task
from regrpo_jax.records.types import Status, Step
from regrpo_jax.suites.toolrepair.plan import Plan, call, final_step, is_visual, plan_from_json

Policy = Callable[[Task, Sequence[Step]], str]
UNKNOWN = "unknown"
_RANDOM_CALLS = 2
_NUMBER = re.compile(r"\d+")
_QUOTED = re.compile(r'"([^"]+)"')
_WORDS = ("topleft", "topright", "lowleft", "lowright", "top left", "bottom right", "red", "green", "blue", "yellow",
          "orange", "total", "pay")  # fmt: skip


def oracle(task: Task, steps: Sequence[Step]) -> str:
    """The script of the task: natural first actions, reflection and repair after each that fails, the answer."""
    return task.oracle[min(len(steps), len(task.oracle) - 1)].turn()


def never_repairs(task: Task, steps: Sequence[Step]) -> str:
    """The oracle's first actions until one fails; then the last number it was shown, or that it does not know."""
    plan = plan_from_json(task.metadata["plan"])
    last = steps[-1].observation if steps else None
    if is_visual(task) and _seen_failures(plan, len(steps)):
        return final_step(UNKNOWN).turn()
    if last is not None and last.status != Status.OK:
        shown = _numbers_shown(steps)
        return final_step(shown[-1] if shown else UNKNOWN).turn()
    if len(steps) < len(plan.attempts):
        attempt = plan.attempts[len(steps)]
        return OracleStep(attempt.thought, attempt.code).turn()
    return final_step(plan.answer).turn()


def _seen_failures(plan: Plan, steps: int) -> bool:
    """Whether one of the first actions that were taken met a surprise, which no status says."""
    return any(attempt.repair is not None for attempt in plan.attempts[:steps])


def random_policy(task: Task, steps: Sequence[Step]) -> str:
    """Two calls of random tools with words of the task, then one of the numbers shown, or any number."""
    rng = Random(f"{task.id}/{task.seed}/{len(steps)}")
    if len(steps) < _RANDOM_CALLS:
        words = [*_QUOTED.findall(task.instruction), *(file.name for file in task.files if not file.behind), *_WORDS]
        arguments = rng.sample(words, rng.randint(1, 2))
        return OracleStep("I try something.", call(rng.choice(task.tools), *arguments)).turn()
    shown = _numbers_shown(steps)
    return final_step(rng.choice(shown) if shown else str(rng.randint(1, 99))).turn()


def _numbers_shown(steps: Sequence[Step]) -> list[str]:
    return [number for step in steps if step.observation for number in _NUMBER.findall(step.observation.text)]


BASELINES: Mapping[str, Policy] = {"oracle": oracle, "never_repairs": never_repairs, "random": random_policy}
