"""GAIA as a suite: a question a task, its attachment in the workspace, the tools of `config.tools`."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.task import Task, TaskFile
from regrpo_jax.errors import UserError
from regrpo_jax.suites.benchmark import EPISODES, PlayedTask, PlayedTurn, Question, Score
from regrpo_jax.suites.folder import chosen_tasks
from regrpo_jax.suites.gaia.answer_files import write_answers
from regrpo_jax.suites.gaia.records import GaiaData, GaiaRecord, read_gaia
from regrpo_jax.suites.gaia.score import score_answers
from regrpo_jax.suites.gaia.scorer import CHECK
from regrpo_jax.suites.suite import LOADER, SuiteTools
from regrpo_jax.toolbox.toolset import ToolsetSettings

NAME = "gaia"
FORM = (
    "Answer with a number, with as few words as possible, or with a list of these with commas between them. Write "
    "numbers in digits without commas, and without units unless they are asked for."
)


@dataclass(frozen=True)
class GaiaSuite:
    """Validation and test questions of a folder. path: the folder; settings: of the tools."""

    path: Path
    settings: ToolsetSettings
    name: str = NAME
    brief: bool = False
    modes: tuple[str, ...] = (EPISODES,)
    predictions_file: str = "predictions.jsonl"
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def tools(self) -> SuiteTools:
        """Those of the settings; no worker may read the folder, which holds the answers."""
        return SuiteTools(LOADER, self.settings, (str(self.path),))

    @functools.cached_property
    def data(self) -> GaiaData:
        """What the folder holds. UserError when it cannot be read."""
        return read_gaia(self.path)

    @functools.cached_property
    def _tasks(self) -> list[Task]:
        return [task_of(record) for record in self.data.records]

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """Questions of "validation" or "test". UserError for a split without any."""
        return chosen_tasks(self._tasks, split, count, seed, str(self.path))

    def all_tasks(self) -> list[Task]:
        """Those whose right answer is known, else all of them, in the folder's order."""
        known = [task for task, record in zip(self._tasks, self.data.records, strict=True) if record.scored]
        return known or self._tasks

    def questions(self) -> list[Question]:
        """None: GAIA has no recorded dialogs."""
        return []

    def write_predictions(self, mode: str, played: Sequence[PlayedTask], path: Path) -> None:
        """The leaderboard's lines."""
        by_id = {task.id: task for task in played}
        there = [by_id[record.id] for record in self.data.records if record.id in by_id]
        write_answers([(task.id, task.answer, _trace(task.turns)) for task in there], path)

    def score(self, paths: Sequence[Path]) -> Score:
        """What files of answers come to. UserError for a file that cannot be read."""
        return score_answers(self.data, paths)


def task_of(record: GaiaRecord) -> Task:
    """The task of a question. UserError for an attachment that cannot be read."""
    name = PurePosixPath(record.file_name).name
    instruction = record.question + (f"\nAttachment: {name}" if name else "") + f"\n{FORM}"
    return Task(
        id=record.id,
        family=f"level {record.level}",
        split=record.split,
        instruction=instruction,
        checker=AnswerChecker(CheckKind.FUNCTION, CHECK, expected=record.answer),
        files=() if record.file is None else (TaskFile(name, _content(record.file)),),
        images=(name,) if record.shown else (),
        difficulty=record.level - 1,
        seed=int(hashlib.sha256(record.id.encode()).hexdigest()[:8], 16),
        metadata={"suite": NAME, "level": record.level, "scored": record.scored},
    )


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from error


def _trace(turns: Sequence[PlayedTurn]) -> str:
    return "\n\n".join(part for turn in turns for part in (turn.text, turn.observation) if part)
