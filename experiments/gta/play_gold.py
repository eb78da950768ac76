"""GTA's recorded dialogs, played end to end through the environment: how far they run, and what comes of them.

    python -m experiments.gta.play_gold shared/data/gta

Three ways: with stand-in pictures and recordings where a tool is missing, without any picture, and without recordings.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

from experiments.gta.stand_ins import with_stand_ins
from regrpo_jax.config.base_config import base_config
from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.episode_result import EpisodeResult
from regrpo_jax.environments.starting import start_environment
from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import Status, Step
from regrpo_jax.suites.gta.suite import GtaSuite
from regrpo_jax.toolbox.toolset import ALWAYS, MISSING, NEVER, ToolsetSettings

_MARK = "[recorded: "
_WALL_SECONDS = 120.0  # of an action: the machine may have other work, and a slow one is not what is measured


@dataclass(frozen=True)
class Played:
    """Episodes of one way of playing, in the order of the records; records without an answer are none."""

    results: list[EpisodeResult]

    @property
    def ran(self) -> list[EpisodeResult]:
        """Those in which nothing failed."""
        return [one for one in self.results if _statuses(one) <= {Status.OK} and one.answer is not None]

    @property
    def recorded_calls(self) -> int:
        """Calls whose answer was recorded, as the host was told of them."""
        return sum(run.result.startswith(_MARK) for one in self.results for runs in one.tool_runs for run in runs)


def gold(task: Task, steps: tuple[Step, ...]) -> str:
    """The dialog's next turn."""
    return task.oracle[min(len(steps), len(task.oracle) - 1)].turn()


def play(folder: Path, settings: ToolsetSettings, records: list[str] | None = None) -> Played:
    """Play the dialogs of all records, or of those with these ids."""
    suite = GtaSuite(folder, settings)
    wanted = None if records is None else {f"gta/{name}" for name in records}
    tasks = [task for task in suite.all_tasks() if task.oracle and (wanted is None or task.id in wanted)]
    tools, chosen = suite.tools, base_config().environment
    chosen.wall_seconds = _WALL_SECONDS
    with start_environment(chosen, tools.loader, tools.settings, max_steps=40, hidden=tools.hidden) as environment:
        return Played(run_episodes(environment, tasks, gold))


def _statuses(result: EpisodeResult) -> set[Status]:
    return {step.observation.status for step in result.steps if step.observation is not None}


def _others(played: Played) -> Counter[str]:
    """Statuses of actions that failed though none of their calls did, each once an episode."""
    found = {
        (one.task.id, str(step.observation.status))
        for one in played.results
        for step, runs in zip(one.steps, one.tool_runs, strict=True)
        if step.observation is not None and step.observation.status != Status.OK
        if all(run.status == Status.OK for run in runs)
    }
    return Counter(status for _, status in found)


def _rows(played: Played) -> list[str]:
    families = Counter(one.task.family for one in played.results)
    right = Counter(one.task.family for one in played.results if one.success)
    outcomes = Counter(str(one.outcome) for one in played.results)
    failed = Counter(
        f"{run.name} {run.status}"
        for one in played.results
        for runs in one.tool_runs
        for run in runs
        if run.status != Status.OK
    )
    return [
        f"  run without a failed call: {len(played.ran)} of {len(played.results)}; outcomes {dict(outcomes)}",
        f"  success: {', '.join(f'{name} {right[name]}/{families[name]}' for name in sorted(families))}",
        f"  calls that a recording answered: {played.recorded_calls}",
        f"  calls that failed: {dict(failed.most_common()) or 'none'}",
        f"  episodes with an action that failed otherwise: {dict(_others(played)) or 'none'}",
        *(f"  infra error {one.task.id}: {one.error}" for one in played.results if one.dropped),
    ]


def main(source: Path) -> None:
    """Print what each way comes to."""
    plain = ToolsetSettings()
    with tempfile.TemporaryDirectory() as place:
        pictures = with_stand_ins(source, Path(place))
        ways = {
            "stand-in pictures, recordings where a tool is missing": (pictures, replace(plain, recorded=MISSING)),
            "no pictures, recordings where a tool or a picture is missing": (source, replace(plain, recorded=MISSING)),
            "recordings for every call": (source, replace(plain, recorded=ALWAYS)),
            "stand-in pictures, no recordings": (pictures, replace(plain, recorded=NEVER)),
        }
        for name, (folder, settings) in ways.items():
            print(name)
            print("\n".join(_rows(play(folder, settings))), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
