"""GTA as a suite: its records played end to end or turn by turn, and scored from files as its authors write them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regrpo_jax.environments.task import Task
from regrpo_jax.suites.benchmark import EPISODES, STEPS, PlayedTask, Question, Score
from regrpo_jax.suites.folder import chosen_tasks
from regrpo_jax.suites.gta.predicted_items import played_turns
from regrpo_jax.suites.gta.prediction_files import write_predictions
from regrpo_jax.suites.gta.questions import questions_of
from regrpo_jax.suites.gta.record_types import GtaData, ToolDescription
from regrpo_jax.suites.gta.records import read_gta
from regrpo_jax.suites.gta.score import score_predictions
from regrpo_jax.suites.gta.tasks import ANSWERING, NAME, described_tools, task_of
from regrpo_jax.suites.gta.toolset import LOADER, REAL, GtaToolsetSettings
from regrpo_jax.suites.problems import told
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.toolbox.toolset import ToolsetSettings


@dataclass(frozen=True)
class GtaSuite:
    """The records of a folder with GTA's files. settings: of `config.tools`, see `toolset.py` for what counts."""

    path: Path
    settings: ToolsetSettings
    name: str = NAME
    brief: bool = False
    modes: tuple[str, ...] = (EPISODES, STEPS)
    predictions_file: str = "predictions.json"

    @functools.cached_property
    def data(self) -> GtaData:
        """Everything that the folder holds."""
        return read_gta(self.path)

    @functools.cached_property
    def described(self) -> dict[str, ToolDescription]:
        """All tools as GTA describes them, by name."""
        return described_tools(self.data)

    @functools.cached_property
    def tools(self) -> SuiteTools:
        """The tools that the data name; no worker may read the folder, which holds the answers."""
        own = {field.name: getattr(self.settings, field.name) for field in dataclasses.fields(ToolsetSettings)}
        settings = GtaToolsetSettings(**own, described=tuple(self.described.values()))
        return SuiteTools(LOADER, settings, (str(self.path.resolve()),))

    @functools.cached_property
    def _tasks(self) -> list[Task]:
        loaded = self.tools.loaded
        return [task_of(record, self.data.folder, loaded, self.described) for record in self.data.records]

    @property
    def notes(self) -> tuple[str, ...]:
        """What is odd in the data, a sentence a kind, and which tools are not the tools themselves."""
        found: dict[str, dict[str, None]] = {}
        for task in self._tasks:
            for tool, what in task.metadata[ANSWERING].items():
                if what != REAL:
                    found.setdefault(what, {})[tool] = None
        replaced = (f"tools that are {what}: {', '.join(tools)}" for what, tools in found.items())
        return (*told(self.data.problems), *replaced)

    def all_tasks(self) -> list[Task]:
        """A task a record, in the file's order."""
        return list(self._tasks)

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """At most `count` tasks, shuffled by the seed; all are of the split "test". UserError for another one."""
        return chosen_tasks(self._tasks, split, count, seed, str(self.data.file))

    def questions(self) -> list[Question]:
        """Each recorded turn of the assistant, record by record."""
        return [
            question
            for record, task in zip(self.data.records, self._tasks, strict=True)
            for question in questions_of(record, task, self.data.folder, self.tools.loaded, system=self.tools.system)
        ]

    def write_predictions(self, mode: str, played: Sequence[PlayedTask], path: Path) -> None:
        """As GTA's programs write them, see `prediction_files.py`."""
        arguments = {name: [one.name for one in tool.inputs] for name, tool in self.described.items()}
        turns = played_turns(mode, self.data.records, arguments, played)
        write_predictions(self.data, mode, turns, path)

    def score(self, paths: Sequence[Path]) -> Score:
        """What files of predictions come to. UserError for files that are none."""
        return score_predictions(self.data, paths)
