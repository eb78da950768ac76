"""tau-bench's telecom domain in solo mode: the agent gets a ticket, its own tools and those of the user's device.

config.suite.families: names of sets ("base", the 114 tasks that are quoted; "small", 20 others with one trouble each;
"full", all 2,285) and of kinds of trouble ("mms_issue", ..); () is all of "base". config.suite.brief: tools are told
by name and arguments alone, and the authors' policy, 23,000 characters, is left out. Tools of `config.tools` are not
added.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.agent.prompt import STEP, TOOLS
from regrpo_jax.environments.task import Task
from regrpo_jax.suites.benchmark import EPISODES, PlayedTask, Question, Score
from regrpo_jax.suites.folder import chosen_tasks
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.suites.tau2.functions import functions_of
from regrpo_jax.suites.tau2.package import ENVIRONMENT, hidden_places, imported, package_folder
from regrpo_jax.suites.tau2.records import Record, chosen_records, read_records, sets_of
from regrpo_jax.suites.tau2.result_files import write_results
from regrpo_jax.suites.tau2.scoring import score_files
from regrpo_jax.suites.tau2.tasks import task_of, world_data
from regrpo_jax.suites.tau2.tools import LOADER, Tau2Tools
from regrpo_jax.suites.tau2.world import Tau2World, databases
from regrpo_jax.toolbox.toolset import ToolsetSettings

NAME, WORKFLOW = "tau2_telecom", "tau2_telecom_workflow"
SYSTEM = f"""You are a customer service agent who solves a user's ticket by the policy below. You cannot talk to the
user: you call tools, the company's and those of the user's device. Each step is a thought and one block of Python that
calls a tool:
{STEP}When the ticket is solved, or the policy lets you do no more, call final_answer(...).
<policy>
%s
</policy>
The tools:
{TOOLS}"""


@dataclass(frozen=True)
class Tau2Suite:
    """See above. UserError for a folder without the package, a family that there is not, and unreadable tasks."""

    path: Path
    settings: ToolsetSettings
    families: tuple[str, ...] = ()
    brief: bool = False
    name: str = NAME
    modes: tuple[str, ...] = (EPISODES,)
    predictions_file: str = "predictions.json"
    notes: tuple[str, ...] = ()
    policy_type: str = "manual"  # how the package tells of technical support

    @functools.cached_property
    def package(self) -> Path:
        """Its own folder."""
        return package_folder(self.path)

    @functools.cached_property
    def records(self) -> list[Record]:
        """Those of the families, in the order of the package's file."""
        return chosen_records(read_records(self.package, functions_of(self.package)), self.families, self.name)

    @functools.cached_property
    def held(self) -> Mapping[str, Any]:
        """What both databases hold at first."""
        return databases(self.package)

    @functools.cached_property
    def environment(self) -> Any:
        """The package's own, for what it says of itself."""
        return imported(self.package, ENVIRONMENT).get_environment(solo_mode=True, policy_type=self.policy_type)

    @functools.cached_property
    def tools(self) -> SuiteTools:
        """The tools of both sides."""
        settings = Tau2Tools(builtin=(), path=str(self.path), bare=self.brief)
        system = "" if self.brief else SYSTEM.replace("%s", self.environment.get_policy())
        return SuiteTools(LOADER, settings, hidden_places(self.package), system)

    def all_tasks(self) -> list[Task]:
        """In the order of the package's file. UserError for a folder that cannot be read."""
        return [task_of(record, self.held, self.name) for record in self.records]

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """Of "train" or "test", shuffled by the seed. UserError for another split."""
        return chosen_tasks(self.all_tasks(), split, count, seed, f"{self.name} in {self.path}")

    def questions(self) -> list[Question]:
        """None: the authors know episodes alone."""
        return []

    def write_predictions(self, mode: str, played: Sequence[PlayedTask], path: Path) -> None:
        """A run for each task that was played, as the package's `Results` has them; see `result_files.py`."""
        known = {record.id: record for record in self.records}

        def begin(name: str) -> Tau2World:
            return Tau2World(self.package, world_data(known[name], self.held))

        domain = self.environment.get_domain_name()
        write_results(played, begin, domain, self.environment.get_policy(), path)

    def score(self, paths: Sequence[Path]) -> Score:
        """What result files come to. UserError for a file that cannot be read, or is none of the package's."""
        return score_files(self.package, self.records, sets_of(self.families), self.held, paths)


@dataclass(frozen=True)
class Tau2Workflow(Tau2Suite):
    """The same tasks with the policy as a workflow, which the package calls another domain."""

    name: str = WORKFLOW
    policy_type: str = "workflow"
