"""The numbers of README.md: every baseline on every profile and split, and whether repetitions give the same bytes.

python experiments/toolrepair_baselines/measure.py --compact=1000 --full=270 --workdir=runs/baselines
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

POLICIES, PROFILES, SPLITS = ("oracle", "never_repairs", "random"), ("compact", "full"), ("test", "held_out")
FIELDS = {
    "policy": "baselines.policy",
    "profile": "suite.profile",
    "split": "recovery.splits",
    "tasks": "recovery.tasks",
    "workers": "environment.workers",
}


def run(workdir: Path, **fields: Any) -> tuple[dict[str, Any], float]:
    """The summary of a run of the command, and how many seconds it took, start included."""
    overrides = [f"--config.{FIELDS[name]}={value}" for name, value in fields.items()]
    arguments = ["--config=configs/toolrepair.py", f"--workdir={workdir}", *overrides]
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "regrpo_jax.main", *arguments], check=True, stdout=subprocess.DEVNULL)
    return json.loads((workdir / "summary.json").read_text()), time.monotonic() - started


def digest(workdir: Path) -> str:
    """SHA-256 of results.jsonl without the seconds."""
    hashed = hashlib.sha256()
    for line in (workdir / "results.jsonl").read_text(encoding="utf-8").splitlines():
        found = json.loads(line)
        del found["seconds"]
        hashed.update(json.dumps(found, sort_keys=True).encode())
    return hashed.hexdigest()


def shown(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--compact", type=int, default=1000, help="tasks of the compact profile")
    parser.add_argument("--full", type=int, default=270, help="tasks of the full profile")
    parser.add_argument("--workdir", type=Path, default=Path("runs/baselines"))
    chosen = parser.parse_args()
    tasks = {"compact": chosen.compact, "full": chosen.full}
    columns = ("profile", "split", "policy", "no surprise", "success", "at worst", "dropped", "first try", "recovery",
               "steps", "calls", "seconds")  # fmt: skip
    print(f"| {' | '.join(columns)} |")
    print(f"| {' | '.join(['---'] * len(columns))} |")
    for profile in PROFILES:
        for split in SPLITS:
            for policy in POLICIES:
                fields = {"profile": profile, "split": split, "policy": policy, "tasks": tasks[profile]}
                told, seconds = run(chosen.workdir / f"{profile}-{split}-{policy}", **fields)
                all_ = told["overall"]
                cells = [
                    profile,
                    split,
                    policy,
                    *map(shown, (1 - all_["surprises"], all_["success"], all_["success_at_worst"])),
                    f"{all_['dropped']:.0f}",
                    *map(shown, (all_["first_attempt_success"], all_["recovery"])),
                    f"{all_['steps']:.2f}",
                    f"{all_['tool_calls']:.2f}",
                ]
                print(f"| {' | '.join([*cells, f'{seconds:.0f}'])} |", flush=True)
    for profile in PROFILES:
        digests = {}
        for name, workers in (("again", 2), ("one worker", 1), ("eight workers", 8)):
            workdir = chosen.workdir / f"{profile}-{name.replace(' ', '-')}"
            run(workdir, profile=profile, tasks=tasks[profile], workers=workers)
            digests[name] = digest(workdir)
        digests["first run"] = digest(chosen.workdir / f"{profile}-test-oracle")
        print(f"{profile}: {len(set(digests.values()))} different results.jsonl in {len(digests)} runs: {digests}")


if __name__ == "__main__":
    main()
