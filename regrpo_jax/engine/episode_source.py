"""Trajectories that our own agent recorded: its successes as clean trajectories, its failures as near misses.

Corrections written for a made-up failure do not match the errors that a policy makes itself; so what failed in an
episode is taken as it was (source "policy"), and paired with the right action: the plan's, where the suite has one,
else what the policy itself found in the end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regrpo_jax.engine.cases import CleanStep, NearMiss, Situation
from regrpo_jax.engine.classify import error_type_of
from regrpo_jax.engine.finite_source import FiniteSource
from regrpo_jax.engine.suite_source import clean_steps, own_failures, situation_of
from regrpo_jax.environments.recovery import FAILURES
from regrpo_jax.environments.task import Task, read_tasks
from regrpo_jax.errors import UserError
from regrpo_jax.records.actions import split_action
from regrpo_jax.records.types import Status
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.suites.toolrepair import LOADERS, plan_of
from regrpo_jax.suites.toolrepair.suite import NAME, ToolRepair

RESULTS_FILE, TASKS_FOLDER = "results.jsonl", "tasks"


@dataclass(frozen=True)
class _Played:
    """A turn of a recorded episode. fell: it failed, by its status or by what its picture shows."""

    thought: str
    code: str
    status: Status
    text: str
    fell: bool


def episode_source(
    folder: Path, *, seed: int, failures_only: bool = False, tools: SuiteTools | None = None
) -> FiniteSource:
    """The steps of the episodes in the folder of an evaluation run. failures_only: only where the policy failed.

    tools: of tasks of a person's own suite; None for those of ToolRepair, which say it themselves.

    UserError when the folder holds no episodes, or none that can be used.
    """
    tasks = {task.id: task for task in read_tasks(folder / TASKS_FOLDER)}
    found: list[Situation] = []
    used: dict[str, SuiteTools] = {}
    for number, line in enumerate(_lines(folder / RESULTS_FILE), 1):
        try:
            task = tasks[line["id"]]
            steps = [_played(one) for one in line["steps"]]
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{folder / RESULTS_FILE}, line {number}: no episode of these tasks ({error})") from error
        own = tools or tools_of_task(task)
        used[own.loader] = own
        found += _of_episode(task, own, steps, bool(line["success"]), failures_only)
    if len(used) > 1:
        raise UserError(f"{folder}: its tasks have different tools ({', '.join(sorted(used))}); use one run for each")
    if not found:
        what = "failed step that the suite can repair" if failures_only else "successful or repairable episode"
        raise UserError(f"{folder}: holds no {what}")
    brief = any(_is_brief(situation.task) for situation in found)
    return FiniteSource(found, next(iter(used.values())), seed, own_only=failures_only, brief=brief)


def tools_of_task(task: Task) -> SuiteTools:
    """What a ToolRepair task is played with. UserError for a task of another suite."""
    parts = task.id.split("/")
    if task.metadata.get("suite") != "toolrepair" or len(parts) < 2 or parts[1] not in LOADERS:
        raise UserError(f"task {task.id}: not of the ToolRepair suite, so that its tools are not known")
    return ToolRepair(parts[1]).tools


def _is_brief(task: Task) -> bool:
    return task.id.startswith(f"{NAME}/compact/")


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); name the folder of an evaluation run") from error
    for number, line in enumerate(text.rstrip("\n").split("\n"), 1):
        try:
            yield json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error})") from error


def _played(told: Mapping[str, Any]) -> _Played:
    status = Status(told["status"])
    return _Played(
        *split_action(told["text"]), status, told["observation"], status in FAILURES or bool(told.get("fell"))
    )


def _of_episode(
    task: Task, tools: SuiteTools, steps: Sequence[_Played], success: bool, failures_only: bool
) -> Iterator[Situation]:
    first_failure = next((at for at, step in enumerate(steps) if step.fell), None)
    situation = situation_of(task, tools, brief=_is_brief(task))
    if first_failure is None and success and not failures_only:
        clean = tuple(CleanStep(step.thought, step.code) for step in steps)
        texts = tuple(step.text for step in steps)
        recorded = replace(situation, source="trajectory", steps=clean, observations=texts)
        yield from (replace(recorded, index=index) for index in range(len(clean)))
    if first_failure is not None:
        yield from _policy_failure(situation, steps, first_failure)


def _policy_failure(situation: Situation, steps: Sequence[_Played], at: int) -> Iterator[Situation]:
    """The failed step after the policy's own earlier steps, and what is left of the plan after it."""
    before, failed = steps[:at], steps[at]
    done = {_squeezed(step.code) for step in before}
    plan, task = clean_steps(situation.task), situation.task
    rest = [step for step in plan if _squeezed(step.code) not in done]
    if not failed.code or not rest:
        return
    corrected = rest[0]
    kind, hint = None, None
    for attempt in plan_of(task).attempts if "plan" in task.metadata else ():
        for own in own_failures(attempt):
            if _squeezed(own.code) == _squeezed(failed.code):
                kind, hint = own.error_type, own.hint
    kind = kind or error_type_of(failed.code, corrected.code, failed.status, situation.tools, task.images)
    if kind is None:
        return
    miss = NearMiss(kind, "policy", failed.thought or corrected.thought, failed.code, hint)
    yield replace(
        situation,
        source="policy",
        source_id=f"{situation.source_id}/policy",
        steps=(*(CleanStep(step.thought, step.code) for step in before), *rest),
        index=at,
        observations=tuple(step.text for step in before),
        own=(miss,),
    )


def _squeezed(code: str) -> str:
    return "".join(code.split())
