"""Clean trajectories written elsewhere (MAT-Agent, MM-Traj JSON), with the files they name where those are here.

A trajectory is executable when every tool it calls is in our toolbox and every file it names lies beside its JSON.
The others can only have their observations made up, and are marked so.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from regrpo_jax.agent.prompt import system_text
from regrpo_jax.engine.cases import CleanStep, Situation
from regrpo_jax.engine.finite_source import FiniteSource
from regrpo_jax.engine.tool_shapes import shapes_of
from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.task import Task, TaskFile
from regrpo_jax.errors import UserError
from regrpo_jax.records import KNOWN_TOOLS, Trajectory, extract_tool_calls, load_clean
from regrpo_jax.records.actions import FINAL_ANSWER, parse_python
from regrpo_jax.records.images import IMAGE_MARKER
from regrpo_jax.records.picture_forms import is_data_url, picture_bytes
from regrpo_jax.records.types import Status, Step
from regrpo_jax.sandbox.pool import LOADER
from regrpo_jax.suites.suite import SuiteTools

_MOST_FILE_BYTES = 64 * 2**20
_ENDING = 6  # characters of a file's ending, dot included, at most


def trajectory_source(path: Path, *, seed: int, tools: SuiteTools | None = None) -> FiniteSource:
    """The steps of a file's trajectories. UserError when the file has none that can be used."""
    tools = tools or SuiteTools(LOADER)
    found = [one for trajectory in load_clean(path) for one in _situations(trajectory, path.absolute().parent, tools)]
    if not found:
        raise UserError(f"{path}: no trajectory has tool calls in all its steps and ends with final_answer")
    return FiniteSource(found, tools, seed)


def _situations(trajectory: Trajectory, folder: Path, own: SuiteTools) -> Iterator[Situation]:
    steps = trajectory.steps
    clean = bool(trajectory.answer.strip()) and all(step.code and _unfailed(step) for step in steps)
    if not clean or not any(call.name == FINAL_ANSWER for call in extract_tool_calls(steps[-1].code)):
        return
    names, loaded = _file_names(trajectory), own.loaded
    tools = shapes_of(loaded)
    files = {name: None if Path(name).is_absolute() else _content(folder / name) for name in names}
    called = {call.name for step in steps for call in extract_tool_calls(step.code, KNOWN_TOOLS | set(tools))}
    instruction, images = trajectory.task, dict[str, str]()
    for at, image in enumerate(trajectory.images):
        mark = image.placeholder or f"<image_{at:02d}>"
        instruction = instruction if image.placeholder else instruction.replace(IMAGE_MARKER, mark, 1)
        images[mark] = image.path
    shown = {placeholder: _relative(path, folder) for placeholder, path in images.items()}
    files |= {_relative(path, folder): picture_bytes(path) for path in images.values()}
    task = Task(
        id=trajectory.id,
        family="trajectory",
        split="train",
        instruction=instruction,
        checker=AnswerChecker(CheckKind.EXACT, trajectory.answer),
        files=tuple(TaskFile(name, content) for name, content in files.items() if content is not None),
        images=tuple(dict.fromkeys(shown.values())),
        seed=int(hashlib.sha256(trajectory.id.encode()).hexdigest()[:8], 16),
    )
    remote = any(getattr(loaded.get(name), "remote", False) for name in called)
    first = Situation(
        source="trajectory",
        source_id=trajectory.id,
        task=task,
        system=trajectory.system or system_text(task.tools, loaded, brief=False),
        instruction=instruction,
        steps=tuple(CleanStep(step.thought, step.code) for step in steps),
        index=0,
        tools=tools,
        images=shown,
        observations=tuple(step.observation.text for step in steps if step.observation is not None),
        executable=called <= set(tools) and not remote and None not in files.values(),
    )
    yield from (replace(first, index=index) for index in range(len(steps)))


def _unfailed(step: Step) -> bool:
    return step.observation is None or step.observation.status == Status.OK


def _relative(path: str, folder: Path) -> str:
    """The name of an image in the workspace: as the code names it, relative to the file of trajectories."""
    if is_data_url(path):
        return f"{hashlib.sha256(picture_bytes(path)).hexdigest()[:16]}.png"
    try:
        return Path(path).absolute().relative_to(folder).as_posix()
    except ValueError:
        return Path(path).name


def _file_names(trajectory: Trajectory) -> list[str]:
    """Texts in the code that look like files: relative names with an ending."""
    found: dict[str, None] = {}
    for step in trajectory.steps:
        tree = parse_python(step.code)
        for node in ast.walk(tree) if tree is not None else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and _looks_like_file(node.value):
                found[node.value] = None
    return list(found)


def _looks_like_file(text: str) -> bool:
    stem, dot, ending = text.rpartition(".")
    plain = bool(stem and dot) and ending.isalnum() and len(ending) < _ENDING and not ending.isdigit()
    return plain and "\n" not in text and " " not in ending and "://" not in text and ".." not in text


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= _MOST_FILE_BYTES else None
    except OSError:
        return None
