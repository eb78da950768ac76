"""BFCL multi-turn as a suite: the four sets of the package that `config.suite.path` names, 200 records each.

config.suite.families: names of sets ("base", "miss_func", "miss_param", "long_context") and of classes; only records of
these sets, whose classes are all among these classes, are played. () is all. config.suite.brief: functions are told by
name and arguments alone, for policies that read little. Tools of `config.tools` are not added.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regrpo_jax.agent.prompt import STEP, TOOLS
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.suites.benchmark import EPISODES, PlayedTask, Question, Score
from regrpo_jax.suites.bfcl.functions import functions_of
from regrpo_jax.suites.bfcl.package import PROMPTS, imported, package_folder
from regrpo_jax.suites.bfcl.records import SETS, Record, hidden_files, read_records
from regrpo_jax.suites.bfcl.result_files import write_results
from regrpo_jax.suites.bfcl.scoring import score_files
from regrpo_jax.suites.bfcl.tasks import NAME, Telling, task_of
from regrpo_jax.suites.bfcl.tools import LOADER, BfclTools
from regrpo_jax.suites.folder import chosen_tasks
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.toolbox.toolset import ToolsetSettings

SYSTEM = f"""A user asks you for one thing after the other. You get each done with functions, one step at a time. Each
step is a thought and one block of Python that calls them:
{STEP}When what was asked is done, or when no function can do it or something that it needs was not said, call
final_answer(...): the user then goes on. The functions:
{TOOLS}"""


@dataclass(frozen=True)
class BfclSuite:
    """See above. UserError for a folder without the package, a family that there is not, and unreadable records."""

    path: Path
    settings: ToolsetSettings
    families: tuple[str, ...] = ()
    brief: bool = False
    name: str = NAME
    modes: tuple[str, ...] = (EPISODES,)
    predictions_file: str = "predictions.jsonl"
    notes: tuple[str, ...] = ()

    @functools.cached_property
    def package(self) -> Path:
        """Its own folder."""
        return package_folder(self.path)

    @functools.cached_property
    def records(self) -> list[Record]:
        """Those of the families, set by set."""
        found = read_records(self.package)
        classes = {name for record in found for name in record.classes}
        for family in self.families:
            if family not in SETS and family not in classes:
                there = ", ".join((*SETS, *sorted(classes)))
                raise UserError(f"config.suite.families has {family!r}; {NAME} has the sets and classes {there}")
        sets = set(self.families) & set(SETS) or set(SETS)
        wanted = set(self.families) & classes or classes
        chosen = [record for record in found if record.set in sets and wanted.issuperset(record.classes)]
        if not chosen:
            raise UserError(f"config.suite.families is {self.families}: no record has these classes alone")
        return chosen

    @functools.cached_property
    def tools(self) -> SuiteTools:
        """The functions of the records' classes."""
        classes = tuple(sorted({name for record in self.records for name in record.classes}))
        settings = BfclTools(builtin=(), path=str(self.path), classes=classes, bare=self.brief)
        return SuiteTools(LOADER, settings, hidden_files(self.package), "" if self.brief else SYSTEM)

    @functools.cached_property
    def telling(self) -> Telling:
        """What tasks are told with."""
        classes = self.tools.settings.classes if isinstance(self.tools.settings, BfclTools) else ()
        owners = {name: one.owner for name, one in functions_of(self.package, classes).items()}
        news = str(imported(self.package, PROMPTS).DEFAULT_USER_PROMPT_FOR_ADDITIONAL_FUNCTION_FC)
        return Telling(self.tools.loaded, owners, news, self.brief)

    def all_tasks(self) -> list[Task]:
        """Set by set, in the order of the package's files. UserError for a folder that cannot be read."""
        return [task_of(record, self.telling) for record in self.records]

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """Of "train" or "test", shuffled by the seed. UserError for another split."""
        return chosen_tasks(self.all_tasks(), split, count, seed, f"{NAME} in {self.path}")

    def questions(self) -> list[Question]:
        """None: the authors know episodes alone."""
        return []

    def write_predictions(self, mode: str, played: Sequence[PlayedTask], path: Path) -> None:
        """A line of JSON for each task that was played, {"id", "result": steps by request}; see `result_files.py`."""
        write_results(played, path)

    def score(self, paths: Sequence[Path]) -> Score:
        """What result files come to. UserError for a file that cannot be read, or is none of BFCL's."""
        functions = functions_of(self.package, sorted({name for record in self.records for name in record.classes}))
        return score_files(self.package, self.records, functions, paths)
