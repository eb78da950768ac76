"""From a record of GTA to a task: what its policy is given, what lies behind its tools, how its answer is judged."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from smolagents.tools import Tool

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.task import ONE_WAY, Task, TaskFile
from regrpo_jax.errors import UserError
from regrpo_jax.records.opened_images import ImageError, open_image_bytes
from regrpo_jax.suites.gta.check import CHECK, expected_of, kind_of
from regrpo_jax.suites.gta.gold_steps import oracle_of
from regrpo_jax.suites.gta.record_problems import MISSING_IMAGE, problems_of
from regrpo_jax.suites.gta.record_types import IMAGE, GtaData, GtaRecord, ToolDescription
from regrpo_jax.suites.gta.recordings import RECORDINGS_FILE, recordings_of
from regrpo_jax.suites.gta.toolset import FINAL, REAL, answering, replays

NAME, SPLIT = "gta", "test"
NOTES, ANSWERING = "notes", "answering"  # keys of a task's metadata
_MOST_FILE_BYTES = 64 * 2**20


def task_id(record: GtaRecord) -> str:
    """The id of the record's task."""
    return f"{NAME}/{record.id}"


def described_tools(data: GtaData) -> dict[str, ToolDescription]:
    """All tools by name: of `toolmeta.json`, then those that only records describe, as the first of them does."""
    found = dict(data.tools)
    for record in data.records:
        for tool in record.tools:
            found.setdefault(tool.name, tool)
    return found


def task_of(
    record: GtaRecord, folder: Path, loaded: Mapping[str, Tool], described: Mapping[str, ToolDescription]
) -> Task:
    """The record's task.

    Args:
      folder: where the paths of files start.
      loaded: the tools that there are.
    Raises:
      UserError: a file is too large.
    """
    files, notes = _files(record, folder)
    if len(files) < len(record.files) and replays(loaded):
        notes.append("calls that name a missing picture are answered as recorded")
    shown = [file.name for file, kind in files if kind == IMAGE]
    odd = problems_of(record, folder, described)
    notes += [f"{one.kind}: {one.detail}" for one in odd if one.kind != MISSING_IMAGE]  # which `_files` tells
    declared = list(dict.fromkeys(tool.name for tool in record.tools))
    names = [name for name in declared if name in loaded]
    notes += [f"{name} is among its tools, and there is none such" for name in declared if name not in loaded]
    answers = {name: answering(loaded, name) for name in names}
    oracle = oracle_of(record, described)
    if not oracle:
        notes.append("the recorded dialog comes to no answer, so that it is no script of the task")
    recordings = recordings_of(record, described)
    behind = (TaskFile(RECORDINGS_FILE, recordings, behind=True),) if recordings else ()
    return Task(
        id=task_id(record),
        family=kind_of(record.answer),
        split=SPLIT,
        instruction=instruction_of(record),
        checker=AnswerChecker(CheckKind.FUNCTION, CHECK, expected=expected_of(record, described)),
        files=(*(file for file, _ in files), *behind),
        images=tuple(shown),
        tools=tuple(names) or (FINAL,),
        oracle=oracle,
        seed=int(hashlib.sha256(task_id(record).encode()).hexdigest()[:8], 16),
        metadata={"suite": NAME, ONE_WAY: True, ANSWERING: answers, NOTES: notes + _replays(answers)},
    )


def instruction_of(record: GtaRecord) -> str:
    """What the user asks, and the names of the files, which the pictures themselves do not tell."""
    names = ", ".join(dict.fromkeys(file.path for file in record.files))
    return f"{record.question.strip()}\nFiles: {names}" if names else record.question.strip()


def _replays(answers: Mapping[str, str]) -> list[str]:
    others: dict[str, list[str]] = {}
    for name, what in answers.items():
        if what != REAL:
            others.setdefault(what, []).append(name)
    return [f"tools that are {what}: {', '.join(names)}" for what, names in others.items()]


def _files(record: GtaRecord, folder: Path) -> tuple[list[tuple[TaskFile, str]], list[str]]:
    """The files that are there, with their types ("" of a picture that cannot be shown), and notes on the others."""
    found: dict[str, tuple[TaskFile, str]] = {}
    notes = []
    for file in record.files:
        name = str(PurePosixPath(file.path))
        place = folder / name
        outside = not place.resolve().is_relative_to(folder.resolve()) or ".." in PurePosixPath(name).parts
        if outside or not place.is_file():
            notes.append(f"{file.path} is {'outside the folder' if outside else 'missing'}")
            continue
        content, shows = _read(place, record), file.type
        if file.type == IMAGE and (reason := _unseen(content)):
            notes.append(f"{file.path} cannot be shown: {reason}")
            shows = ""
        found.setdefault(name, (TaskFile(name, content), shows))
    return list(found.values()), notes


def _read(place: Path, record: GtaRecord) -> bytes:
    try:
        if place.stat().st_size > _MOST_FILE_BYTES:
            raise UserError(f"{place}: record {record.id} has a file of more than {_MOST_FILE_BYTES >> 20} MiB")
        return place.read_bytes()
    except OSError as error:
        raise UserError(f"{place}: record {record.id}: cannot be read ({error.strerror})") from error


def _unseen(content: bytes) -> str:
    """Why a picture cannot be shown; "" where it can."""
    try:
        open_image_bytes(content)
    except ImageError as error:
        return str(error)
    return ""
