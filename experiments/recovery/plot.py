"""The eta sweep and the curricula as a picture: recovery against what reflections cost.

python -m experiments.recovery.plot --raw=experiments/recovery/raw/2026-11-21 --to=experiments/recovery/recovery.png
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from regrpo_jax.evaluation.compare import Runs, read_lines
from regrpo_jax.evaluation.recovery_metrics import intervals

# Panel -> label -> (arm, policy) of the files below raw/, as run.py names them.
PANELS = {
    "online ReGRPO, by the price of a reflection": {
        "SFT": ("regrpo", "before"), "eta 0": ("eta_0", "after-regrpo"), "eta 0.05": ("eta_0.05", "after-regrpo"),
        "eta 0.1": ("regrpo", "after-regrpo"), "eta 0.3": ("eta_0.3", "after-regrpo"),
    },
    "offline ReGRPO on executed records, by curriculum": {
        "before": ("curriculum_none", "before"), "none": ("curriculum_none", "after-offline-regrpo"),
        "linear": ("curriculum_linear", "after-offline-regrpo"),
        "success-paced": ("curriculum_success-paced", "after-offline-regrpo"),
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    chosen = parser.parse_args()
    found = {title: compared(chosen.raw, arms) for title, arms in PANELS.items()}
    found = {title: arms for title, arms in found.items() if len(arms) > 1}
    if not found:
        raise SystemExit(f"{chosen.raw}: holds no runs of experiments.recovery.run that could be compared")
    figure, axes = plt.subplots(1, len(found), figsize=(5.5 * len(found), 4.4), sharey=True, squeeze=False)
    for axis, (title, arms) in zip(axes[0], found.items(), strict=True):
        for label, runs in arms.items():
            draw(axis, f"{label} ({len(runs)} seeds)" if len(runs) > 1 else label, runs)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("reflection tokens of an episode")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    axes[0][0].set_ylabel("success after a failure")
    figure.tight_layout()
    figure.savefig(chosen.to, dpi=130)


def compared(raw: Path, arms: Mapping[str, tuple[str, str]]) -> dict[str, Runs]:
    """Those that were run, each with the seeds that all of them have."""
    files = {label: {_seed(path): path for path in raw.glob(f"{arm}-[0-9]*.{policy}.jsonl")}
             for label, (arm, policy) in arms.items()}  # fmt: skip
    files = {label: paths for label, paths in files.items() if paths}
    seeds = sorted(set.intersection(*map(set, files.values()))) if files else []
    return {label: [read_lines(paths[seed]) for seed in seeds] for label, paths in files.items()} if seeds else {}


def _seed(path: Path) -> int:
    return int(path.name.split(".after")[0].split(".before")[0].rsplit("-", 1)[1])


def draw(axis: plt.Axes, label: str, runs: Runs) -> None:
    """A point with its 95 % intervals."""
    told = intervals(runs)
    (x, left, right), (y, low, high) = told["reflection_tokens_per_episode"], told["recovery"]  # type: ignore[misc]
    axis.errorbar(
        [x], [y], xerr=[[x - left], [right - x]], yerr=[[y - low], [high - y]], fmt="o", label=label, capsize=3
    )


if __name__ == "__main__":
    main()
