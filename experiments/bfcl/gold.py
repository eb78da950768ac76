"""BFCL's gold calls through our environment: every record must be right, by the checker in the world and from a file.

PYTHONPATH=$PWD python experiments/bfcl/gold.py DIR FOLDER

DIR is where `pip install --no-deps --target DIR bfcl-eval==2026.3.23` put the package. Episodes are kept in FOLDER as
they end, and a second start goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import Progress

from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits, EpisodeResult
from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import Status, Step
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.benchmark import EPISODES, PlayedTask
from regrpo_jax.suites.bfcl.suite import BfclSuite
from regrpo_jax.toolbox.toolset import ToolsetSettings

_AT_ONCE = 40  # episodes between two looks at the disk
_TOLD = 200  # wrong episodes that are named


def oracle(task: Task, steps: tuple[Step, ...]) -> str:
    """The next turn of the script that came with the task."""
    return task.oracle[len(steps)].turn()


def told(result: EpisodeResult, seconds: float) -> dict[str, object]:
    """What is kept of an episode."""
    statuses = Counter(str(step.observation.status) for step in result.steps if step.observation is not None)
    return {
        "id": result.task.id,
        "outcome": str(result.outcome),
        "success": result.success,
        "answer": result.answer,
        "steps": len(result.steps),
        "statuses": dict(statuses),
        "failed": sum(number for status, number in statuses.items() if status != Status.OK),
        "error": result.error,
        "seconds": seconds,
    }


def played(suite: Any, folder: Path, workers: int, play: Callable[..., str] = oracle) -> list[dict[str, Any]]:
    """What is kept of each of the suite's episodes, in a file of the folder, from which a second start goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "episodes.jsonl"
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    waiting = [task for task in suite.all_tasks() if task.id not in {one["id"] for one in known}]
    if waiting:
        sandbox = SandboxSettings(workers=workers, hidden=suite.tools.hidden)
        with (
            Environment.start(sandbox, suite.tools.settings, EpisodeLimits(max_steps=64), suite.tools.loader) as place,
            Progress() as bar,
        ):
            shown = bar.add_task("episodes", total=len(known) + len(waiting), completed=len(known))
            for first in range(0, len(waiting), _AT_ONCE):
                begun, tasks = time.monotonic(), waiting[first : first + _AT_ONCE]
                results = run_episodes(place, tasks, play, progress=lambda done, _: bar.update(shown, advance=1))
                seconds = (time.monotonic() - begun) / len(tasks)
                with kept.open("a") as file:
                    file.writelines(json.dumps(told(result, seconds)) + "\n" for result in results)
    return [json.loads(line) for line in kept.read_text().splitlines()]


def report(suite: Any, episodes: list[dict[str, Any]], file: Path) -> None:
    """Print what the episodes came to, and score them again from a result file."""
    right = sum(bool(one["success"]) for one in episodes)
    seconds, steps = (sum(float(one[name]) for one in episodes) for name in ("seconds", "steps"))
    print(f"{right} of {len(episodes)} episodes right, {seconds:.0f} s; {steps:.0f} steps")
    for one in [one for one in episodes if not one["success"]][:_TOLD]:
        print(f"wrong: {one['id']} {one['outcome']} {one['error']} .. {str(one['answer'])[-260:]}")
    statuses: Counter[str] = Counter()
    for one in episodes:
        statuses.update(one["statuses"])
    failing = sum(bool(one["failed"]) for one in episodes)
    print("statuses of the steps:", dict(statuses), "episodes with a failed step:", failing)
    answered = [PlayedTask(one["id"], (), one["answer"]) for one in episodes if one["answer"] is not None]
    begun = time.monotonic()
    suite.write_predictions(EPISODES, answered, file)
    written = time.monotonic()
    score = suite.score([file])
    for figure in score.figures:
        print(f"{figure.scorer} {figure.name}: {figure.hits:g}/{figure.of} {figure.note}")
    print(*score.notes, f"written in {written - begun:.0f} s, scored in {time.monotonic() - written:.0f} s", sep="\n")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    suite = BfclSuite(chosen.path.resolve(), ToolsetSettings())
    report(suite, played(suite, chosen.folder, chosen.workers), chosen.folder / "BFCL_multi_turn_result.json")


if __name__ == "__main__":
    main()
