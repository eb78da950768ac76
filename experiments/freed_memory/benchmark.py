"""What it costs that XLA gives memory back on a CPU: the same updates with malloc as it is, and keeping what is freed.

    python -m experiments.freed_memory.benchmark --updates=8 --cache=runs/compiled

Each setting is a few environment variables of glibc, and a run of its own of configs/recovery.py without the held-out
tasks; settings take turns. The first two updates of a run are not counted; all runs must tell the same of the last one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

KEEP = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"}
HUGE = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
SETTINGS = {"as it is": {}, "kept": KEEP, "huge pages": HUGE, "kept, huge pages": KEEP | HUGE}
UNCOUNTED = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--cache", type=Path, required=True, help="compiled programs, so that none is compiled twice")
    chosen = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in SETTINGS}
    for number in range(chosen.rounds):
        for name in list(SETTINGS)[:: 1 - 2 * (number % 2)]:
            found[name].append(measured(SETTINGS[name], chosen.updates, chosen.cache))
            print(name, json.dumps(found[name][-1]), flush=True)
    assert len({one["told"] for ones in found.values() for one in ones}) == 1, "the settings changed the numbers"
    base = statistics.median(one["update"] for one in found["as it is"])
    for name, ones in found.items():
        told = {
            key: statistics.median(one[key] for one in ones) for key in ("update", "play", "page_faults", "gigabytes")
        }
        print(f"{name}: {told}, {told['update'] / base:.2f} of the time")


def measured(variables: dict[str, str], updates: int, cache: Path) -> dict[str, Any]:
    """A run: medians of the seconds of an update and of its playing, page faults of its process, its largest size."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "regrpo_jax.main", "--config=configs/recovery.py", f"--workdir={folder}"]
        command += ['--config.stages=("online",)', f"--config.online.steps={updates}"]
        command += [
            f"--config.compilation_cache={cache.resolve()}",
            f"--config.checkpoint.every={updates}",
            "--config.log_every=1",
        ]
        started = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=os.environ | variables)
        _, status, used = os.wait4(started.pid, 0)
        if status:
            sys.exit(f"the run failed: {' '.join(command)}")
        lines = [json.loads(line) for line in (Path(folder) / "metrics.jsonl").read_text().splitlines()]
        lines = [line for line in lines if line["stage"] == "online"][UNCOUNTED:]
        return {
            "update": round(statistics.median(line["seconds"] for line in lines), 2),
            "play": round(statistics.median(line["seconds/play"] for line in lines), 2),
            "page_faults": used.ru_minflt,
            "gigabytes": round(used.ru_maxrss / 2**20, 1),
            "told": _told(Path(folder)),
        }


def _told(workdir: Path) -> str:
    """A hash of the metrics of the last update, times left out."""
    last = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    kept = {name: value for name, value in last.items() if "second" not in name and "memory" not in name}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


if __name__ == "__main__":
    main()
