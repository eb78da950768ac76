"""Clean trajectories of a generated suite: the oracle's own steps, in workspaces that can be played in.

There are as many as one asks for. Some situations bring the failure with them, which is the suite's own surprise; the
others are left to the rules of `perturb`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from regrpo_jax.agent.prompt import instruction_text, placeholders, system_text
from regrpo_jax.engine.cases import CleanStep, NearMiss, Situation
from regrpo_jax.engine.perturb.near_misses import near_misses
from regrpo_jax.engine.tool_shapes import shapes_of
from regrpo_jax.environments.task import Task
from regrpo_jax.records.actions import FINAL_ANSWER
from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.suites.toolrepair import Attempt, families, make_task, plan_of
from regrpo_jax.suites.toolrepair.plan import call
from regrpo_jax.suites.toolrepair.suite import ToolRepair

_MOST_DRAWS = 200
_SEEDS = 2**40
FINAL_THOUGHT = "that is the answer."


def clean_steps(task: Task) -> tuple[CleanStep, ...]:
    """The steps of who meets no surprise, because each first action is already the one that works.

    Those of the plan of a ToolRepair task, else of the script that came with the task.
    """
    if "plan" not in task.metadata:
        return tuple(CleanStep(step.thought, step.code) for step in task.oracle if not step.fails)
    plan = plan_of(task)
    done = [CleanStep(attempt.thought, right_code(attempt)) for attempt in plan.attempts]
    return (*done, CleanStep(FINAL_THOUGHT, call(FINAL_ANSWER, plan.answer)))


def right_code(attempt: Attempt) -> str:
    """The action that gets the attempt's thing done."""
    return attempt.code if attempt.repair is None else attempt.repair.code


def own_failures(attempt: Attempt) -> tuple[NearMiss, ...]:
    """The natural first action, where the suite makes it fail."""
    if attempt.repair is None:
        return ()
    return (NearMiss(attempt.repair.error_type, "plan", attempt.thought, attempt.code, attempt.repair),)


@dataclass(frozen=True)
class SuiteSource:
    """Situations of ToolRepair. natural: share of them whose failure is the suite's own surprise, where it has one."""

    profile: str
    split: str
    difficulties: Sequence[int]
    natural: float
    seed: int
    chosen: Sequence[str] = ()

    @property
    def brief(self) -> bool:
        """Compact tasks are for policies that read little."""
        return self.profile == "compact"

    @property
    def tools(self) -> SuiteTools:
        """What the tasks are played with."""
        return ToolRepair(self.profile).tools

    def situation(self, error_type: ErrorType | None, number: int) -> tuple[Situation, list[NearMiss]] | None:
        """The number-th (from 0) situation in which such a failure may occur, and near misses, the best first.

        error_type None: a clean trajectory, without any. None when no family has such failures.
        """
        rng = random.Random(f"{self.seed}/{self.profile}/{self.split}/{error_type}/{number}")
        natural = error_type is not None and rng.random() < self.natural
        names = tuple(self.chosen) or families(self.profile)
        for draw in range(_MOST_DRAWS):
            natural = natural and draw < _MOST_DRAWS // 2  # no family may have this surprise
            seed, difficulty = rng.randrange(_SEEDS), rng.choice(list(self.difficulties))
            task = make_task(
                rng.choice(names), self.split, seed, difficulty, self.profile, surprises=1.0 if natural else 0.0
            )
            situation = situation_of(task, self.tools, brief=self.brief)
            if error_type is None:
                return situation, []
            found = _natural(task, error_type) if natural else None
            if found is not None:
                return replace(situation, index=found[0], own=found[1]), list(found[1])
            if not natural:
                for index in rng.sample(range(len(situation.steps)), len(situation.steps)):
                    at = replace(situation, index=index)
                    if misses := near_misses(at, error_type, rng):
                        return at, misses
        return None


def _natural(task: Task, error_type: ErrorType) -> tuple[int, tuple[NearMiss, ...]] | None:
    for index, attempt in enumerate(plan_of(task).attempts):
        if attempt.repair is not None and attempt.repair.error_type == error_type:
            return index, own_failures(attempt)
    return None


def situation_of(task: Task, tools: SuiteTools, *, brief: bool) -> Situation:
    """The first step of a suite's task."""
    loaded = tools.loaded
    names, shapes = dict.fromkeys((*(task.tools or loaded), FINAL_ANSWER)), shapes_of(loaded)
    return Situation(
        source="oracle",
        source_id=task.id,
        task=task,
        system=system_text(task.tools, loaded, brief=brief, template=tools.system),
        instruction=instruction_text(task.instruction, task.images),
        steps=clean_steps(task),
        index=0,
        tools={name: shapes[name] for name in names},
        images=placeholders(task.images),
    )
