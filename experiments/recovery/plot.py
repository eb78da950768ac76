"""The eta sweep and the curricula as a picture: recovery against what reflections cost.

python -m experiments.recovery.plot --raw=experiments/recovery/raw --to=experiments/recovery/recovery.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from regrpo_jax.evaluation.compare import Runs, read_lines
from regrpo_jax.evaluation.recovery_metrics import intervals

# Panel -> label -> files below raw/, as run.py and curricula.py name them.
PANELS = {
    "online ReGRPO, by the price of a reflection": {
        "SFT": "regrpo-*.before", "eta 0": "eta_0-*.after-regrpo", "eta 0.05": "eta_0.05-*.after-regrpo",
        "eta 0.1": "regrpo-*.after-regrpo", "eta 0.3": "eta_0.3-*.after-regrpo",
    },
    "offline ReGRPO on executed records, by curriculum": {
        "before": "curriculum_none-*.before", "none": "curriculum_none-*.after-offline-regrpo",
        "linear": "curriculum_linear-*.after-offline-regrpo",
        "success-paced": "curriculum_success-paced-*.after-offline-regrpo",
    },
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--to", type=Path, required=True)
    chosen = parser.parse_args()
    found = {title: {label: runs for label, pattern in arms.items() if (runs := read(chosen.raw, pattern))}
             for title, arms in PANELS.items()}  # fmt: skip
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


def read(raw: Path, pattern: str) -> Runs:
    """One list of rows for each seed."""
    return [read_lines(path) for path in sorted(raw.glob(f"{pattern}.jsonl"))]


def draw(axis: plt.Axes, label: str, runs: Runs) -> None:
    """A point with its 95 % intervals."""
    told = intervals(runs)
    (x, left, right), (y, low, high) = told["reflection_tokens_per_episode"], told["recovery"]  # type: ignore[misc]
    axis.errorbar(
        [x], [y], xerr=[[x - left], [right - x]], yerr=[[y - low], [high - y]], fmt="o", label=label, capsize=3
    )


if __name__ == "__main__":
    main()
