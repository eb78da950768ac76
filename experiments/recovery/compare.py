"""The arms side by side: means with 95 % intervals over tasks and seeds, and differences on the same tasks and seeds.

    python -m experiments.recovery.compare runs/arms --baseline=sft

Reads every `played.json` below the folder that `arms` wrote; the folders of one arm are its seeds.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from regrpo_jax.evaluation.intervals import mean_interval, paired_difference


def arms_below(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Arm (the name of its folder up to the last "-") -> its runs, by name."""
    found = defaultdict(list)
    for path in sorted(folder.glob("*/played.json")):
        found[path.parent.name.rpartition("-")[0] or path.parent.name].append(json.loads(path.read_text()))
    return dict(found)


def by_task(runs: list[dict[str, Any]], name: str, families: tuple[str, ...] = ()) -> np.ndarray:
    """A field's mean over the samples of each task that count.  # [seed, task]"""
    return np.array([
        [_mean(row[name], row["dropped"]) for row in run["tasks"] if not families or row["family"] in families]
        for run in runs
    ])  # fmt: skip


def recovery(runs: list[dict[str, Any]]) -> np.ndarray:
    """Share of the samples with a failure that succeed; nan for a task without one.  # [seed, task]"""

    def of(row: dict[str, Any]) -> float:
        fallen = [done for done, failed, dropped in zip(row["success"], row["failed"], row["dropped"], strict=True)
                  if failed and not dropped]  # fmt: skip
        return float(np.mean(fallen)) if fallen else float("nan")

    return np.array([[of(row) for row in run["tasks"]] for run in runs])


def _mean(values: list[float], dropped: list[bool]) -> float:
    counted = [float(value) for value, lost in zip(values, dropped, strict=True) if not lost]
    return float(np.mean(counted)) if counted else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--baseline", default="sft")
    chosen = parser.parse_args()
    arms = arms_below(chosen.folder)
    for name, runs in arms.items():
        tokens = mean_interval(by_task(runs, "tokens"))
        seconds = np.mean([run["seconds"] for run in runs])
        needless = np.mean([run["metrics"]["needless"] or 0.0 for run in runs])
        print(f"{name:<14} seeds {len(runs)}  success {mean_interval(by_task(runs, 'success'))}  "
              f"recovery {mean_interval(recovery(runs))}  tokens {tokens.mean:.1f}  needless {needless:.1%}  "
              f"trained {seconds:.0f} s")  # fmt: skip
    base = arms[chosen.baseline]
    for name, runs in arms.items():
        if name != chosen.baseline and len(runs) % len(base) == 0:
            same = [base[number % len(base)] for number in range(len(runs))]
            print(
                f"{name} - {chosen.baseline}: {paired_difference(by_task(same, 'success'), by_task(runs, 'success'))}"
            )


if __name__ == "__main__":
    main()
