"""Clean trajectories written elsewhere (MAT-Agent, MM-Traj JSON, ReAct in ShareGPT's form), with the files they name.

A trajectory can be run when every file it reads is here, and every tool it calls, or what that tool returned: then the
recorded results stand in for it (`toolbox.recorded`), for the very calls they are of. The others can only have their
observations made up, and are marked so. What is left out is counted and told.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from regrpo_jax.agent.prompt import system_text
from regrpo_jax.engine.cases import ArgumentShape, CleanStep, Situation, ToolShape
from regrpo_jax.engine.finite_source import FiniteSource
from regrpo_jax.engine.perturb.source import Source
from regrpo_jax.engine.placed_trajectory import PlacedTrajectory, placed_trajectory
from regrpo_jax.engine.recorded_calls import recorded_calls
from regrpo_jax.engine.tool_shapes import shapes_of
from regrpo_jax.engine.trajectory_account import Account
from regrpo_jax.environments.answers import AnswerChecker, CheckKind, check_answer
from regrpo_jax.environments.task import Task, TaskFile
from regrpo_jax.errors import UserError
from regrpo_jax.records import KNOWN_TOOLS, Trajectory, extract_tool_calls, load_clean
from regrpo_jax.records.actions import FINAL_ANSWER, parse_python
from regrpo_jax.records.differences import literal_value
from regrpo_jax.records.images import NO_ROOTS
from regrpo_jax.records.loading import read_records
from regrpo_jax.records.path_roots import PathRoots
from regrpo_jax.records.react_turns import react_action
from regrpo_jax.records.types import Status, Step
from regrpo_jax.sandbox.pool import LOADER
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.toolbox.behind import RECORDED_FILE
from regrpo_jax.toolbox.recorded import Recording, is_absent, recorded_file

_PYTHON_NAMES = frozenset(dir(builtins))


def trajectory_source(
    path: Path,
    *,
    seed: int,
    tools: SuiteTools | None = None,
    roots: PathRoots = NO_ROOTS,
    salvage: bool = False,
) -> FiniteSource:
    """The steps of a file's trajectories. UserError when the file has none that can be used."""
    tools = tools or SuiteTools(LOADER)
    account = Account(len(read_records(path, salvage=salvage)))
    loaded = load_clean(path, roots=roots, salvage=salvage)
    account.unread = account.records - len(loaded)
    folder = path.absolute().parent
    found = [one for trajectory in loaded for one in _situations(trajectory, folder, roots, tools, account)]
    if not found:
        told = "\n  ".join(account.sentences())
        raise UserError(f"{path}: no trajectory has tool calls in all its steps and ends with {FINAL_ANSWER}\n  {told}")
    return FiniteSource(found, tools, seed, notes=tuple(account.sentences()), any_type=True)


def _situations(
    trajectory: Trajectory, folder: Path, roots: PathRoots, own: SuiteTools, account: Account
) -> Iterator[Situation]:
    trajectory = replace(trajectory, steps=_as_code(trajectory.steps))
    why = _unfit(trajectory.steps)
    answer = trajectory.answer.strip() or _own_answer(trajectory.steps)
    checker = None if why else _checker(answer, trajectory.steps)
    if checker is None:
        account.unused[why or "have no answer"] += 1
        return
    shapes = shapes_of(own.loaded)
    placed = placed_trajectory(trajectory, folder, roots, shapes)
    first = _situation(trajectory, placed, checker, answer, own, account)
    yield from (replace(first, index=index) for index in range(len(placed.steps)))


def _as_code(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Steps of a ReAct agent as code; others as they are."""
    if any(step.code for step in steps):
        return tuple(steps)
    actions = [react_action(step.text) for step in steps]
    return tuple(
        step if action is None else replace(step, thought=action[0], code=action[1])
        for step, action in zip(steps, actions, strict=True)
    )


def _unfit(steps: Sequence[Step]) -> str:
    """Why the steps are no clean trajectory; "" when they are one."""
    if any(step.observation is not None and step.observation.status != Status.OK for step in steps):
        return "have a failed step"
    if not steps or not all(step.code for step in steps):
        return "have a step without code"
    if not any(call.name == FINAL_ANSWER for call in extract_tool_calls(steps[-1].code)):
        return f"do not end with {FINAL_ANSWER}"
    return ""


def _given_answers(steps: Sequence[Step]) -> list[object]:
    """What the last step gives as its answer; None for what it computes."""
    calls = [call for call in extract_tool_calls(steps[-1].code) if call.name == FINAL_ANSWER]
    sources = [source for call in calls for source in (*call.arguments, *(value for _, value in call.keywords))]
    return [literal_value(source) for source in sources]


def _own_answer(steps: Sequence[Step]) -> str:
    """The answer that a trajectory gives, where its record says none: MM-Traj's do not."""
    given = [value for value in _given_answers(steps) if value is not None] if steps else []
    return str(given[-1]).strip() if given else ""


def _checker(answer: str, steps: Sequence[Step]) -> AnswerChecker | None:
    """The same text; or, where the last step says more than the record, or computes what it says, a text that holds it.

    None for an answer that cannot be compared.
    """
    try:
        exact = AnswerChecker(CheckKind.EXACT, answer)
        if any(check_answer(exact, value) for value in _given_answers(steps) if value is not None):
            return exact
        return AnswerChecker(CheckKind.CONTAINS, answer)
    except UserError:
        return None


def _situation(
    trajectory: Trajectory,
    placed: PlacedTrajectory,
    checker: AnswerChecker,
    answer: str,
    own: SuiteTools,
    account: Account,
) -> Situation:
    """Its first step."""
    loaded, shapes = own.loaded, dict(shapes_of(own.loaded))
    called = _called(placed.steps, frozenset(loaded))
    absent = {name for name, tool in loaded.items() if is_absent(tool)} | (called - set(loaded))
    names = {name: [one.name for one in shape.arguments] for name, shape in shapes.items()}
    texts = {name for name, tool in loaded.items() if getattr(tool, "output_type", "") in ("string", "image")}
    told = recorded_calls(placed.steps, answer, {name: names.get(name, []) for name in called}, frozenset(texts))
    shapes |= {name: _shape_of(name, told.recordings) for name in sorted(called - set(loaded))}
    executable = account.can_be_run(placed, told, called & absent)
    task = Task(
        id=trajectory.id,
        family="trajectory",
        split="train",
        instruction=placed.instruction,
        checker=checker,
        files=_files(placed, [one for one in told.recordings if one.tool in absent], absent),
        images=tuple(dict.fromkeys(placed.images.values())),
        seed=int(hashlib.sha256(trajectory.id.encode()).hexdigest()[:8], 16),
    )
    others = {one.tool for one in told.recordings} - absent
    # A tool of here that does not do what theirs did would call anything a failure: only recordings speak for it.
    recorded = replace(task, id=f"{task.id}/recorded", files=_files(placed, told.recordings, absent | others))
    return Situation(
        source="trajectory",
        source_id=trajectory.id,
        task=task,
        system=placed.system or system_text(task.tools, loaded, brief=False),
        instruction=placed.instruction,
        steps=tuple(CleanStep(step.thought, step.code) for step in placed.steps),
        index=0,
        tools=shapes,
        images=placed.images,
        observations=tuple(step.observation.text for step in placed.steps if step.observation is not None),
        executable=executable,
        absent=frozenset(absent),
        recorded=recorded if others else None,
    )


def _called(steps: Sequence[Step], loaded: frozenset[str]) -> frozenset[str]:
    """Tools that the steps call: those that are known, and functions that nobody has defined."""
    known = KNOWN_TOOLS | loaded
    found = {call.name for step in steps for call in extract_tool_calls(step.code, known)}
    bound = {name for step in steps for name in Source(step.code).names_bound()} | _PYTHON_NAMES
    for step in steps:
        tree = parse_python(step.code)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)] if tree is not None else []
        found |= {node.func.id for node in calls if isinstance(node.func, ast.Name) and node.func.id not in bound}
    return frozenset(found - {FINAL_ANSWER})


def _shape_of(name: str, recordings: Iterable[Recording]) -> ToolShape:
    """What can be known of a tool that is in recordings alone."""
    arguments: dict[str, Any] = {}
    for one in recordings:
        arguments |= one.arguments if one.tool == name else {}
    kinds = {key: "string" if isinstance(value, str) else "any" for key, value in arguments.items()}
    version = hashlib.sha256(json.dumps([name, kinds], sort_keys=True).encode()).hexdigest()[:16]
    return ToolShape(name, "", tuple(ArgumentShape(key, kind) for key, kind in kinds.items()), version)


def _files(placed: PlacedTrajectory, recordings: Sequence[Recording], absent: Iterable[str]) -> tuple[TaskFile, ...]:
    files = [TaskFile(name, content) for name, content in placed.files.items()]
    return (*files, TaskFile(RECORDED_FILE, recorded_file(recordings, absent), behind=True))
