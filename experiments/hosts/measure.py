"""One run over one, two and four processes on this machine, and how it ends when a process does.

    python -m experiments.hosts.measure --folder=runs/hosts [--parts=losses,ends]

Devices are simulated, four in all; the processes meet over this machine's own address. Everything is in float64.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.hosts.processes import ROOT, begin, ended

CONFIG = f"--config={ROOT / 'tests' / 'hosts' / 'small_config.py'}"
OF_THE_CLOCK = ("second", "memory", "mfu")
LEFT_OUT = ("stage", "reward")  # a name, and a mean of rewards, which are float32 always
LONG = ("--config.stages=sft", "--config.sft.steps=500", "--config.hosts.heartbeat=10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--parts", default="losses,ends")
    options = parser.parse_args()
    if "losses" in options.parts:
        print_losses(options.folder)
    if "ends" in options.parts:
        print_ends(options.folder)


def start(workdir: Path, processes: int, *more: str) -> list[Any]:
    """The processes of a run, each with its share of four devices."""
    arguments = [CONFIG, f"--workdir={workdir}", *more]
    options = {"module": "tests.hosts.one_process", "float64": True}
    return begin(arguments, processes=processes, devices=4 // processes, **options)


def lines(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_losses(folder: Path) -> None:
    """The three stages that train, over one, two and four processes."""
    print("| processes x devices | seconds | lines | largest difference of a number |\n| --- | --- | --- | --- |")
    first: Sequence[Mapping[str, Any]] = []
    for processes in (1, 2, 4):
        workdir = folder / f"losses-{processes}"
        shutil.rmtree(workdir, ignore_errors=True)
        begun = time.monotonic()
        ends = ended(start(workdir, processes))
        assert [end.status for end in ends] == [0] * processes, ends
        told = lines(workdir)
        first = first or told
        difference = largest_difference(first, told)
        seconds = time.monotonic() - begun
        print(f"| {processes} x {4 // processes} | {seconds:.0f} | {len(told)} | {difference:.1e} |", flush=True)


def largest_difference(one: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> float:
    """Over all numbers of all lines that are float64 and not of the clock; relative where they are above 1."""
    assert [(a["stage"], a["step"]) for a in one] == [(b["stage"], b["step"]) for b in other]
    return max(
        abs(value - b[name]) / max(1.0, abs(value))
        for a, b in zip(one, other, strict=True)
        for name, value in a.items()
        if name not in LEFT_OUT and not any(word in name for word in OF_THE_CLOCK)
    )


def print_ends(folder: Path) -> None:
    """What happens to two processes when one of them is ended, and whether one, two or four go on."""
    print("| what | statuses | seconds | kept update | last words of the others |\n| --- | --- | --- | --- | --- |")
    for number, (name, victim, whole) in enumerate(
        (
            ("SIGKILL of 1", 1, False), ("SIGKILL of 0", 0, False), ("1 and what is above it", 1, True),
            ("0 and what is above it", 0, True), ("SIGTERM at 1", 1, None), ("SIGTERM at 0", 0, None),
        )
    ):  # fmt: skip
        workdir = folder / f"ends-{number}"
        shutil.rmtree(workdir, ignore_errors=True)
        print(ending(workdir, name, victim, whole), flush=True)
        again = (4, 1, 2)[number % 3]
        print(going_on(workdir, again), flush=True)


def ending(workdir: Path, name: str, victim: int, whole: bool | None) -> str:
    """A row; whole: the process above is killed, too. None tells the run to end."""
    started = start(workdir, 2, *LONG)
    while len(lines(workdir)) < 5:
        assert all(process.poll() is None for process in started), ended(started)
        time.sleep(0.2)
    above = started[victim]
    below = int(Path(f"/proc/{above.pid}/task/{above.pid}/children").read_text())
    begun = time.monotonic()
    if whole is None:
        above.send_signal(signal.SIGTERM)
    else:
        for process in ([above.pid] if whole else []) + [below]:
            os.kill(process, signal.SIGKILL)
    ends = ended(started)
    words = ends[1 - victim].words.splitlines()[-1].replace(str(workdir), "WORKDIR")
    statuses = ", ".join(str(end.status) for end in ends)
    return f"| {name} | {statuses} | {time.monotonic() - begun:.1f} | {kept(workdir)} | {words} |"


def going_on(workdir: Path, processes: int) -> str:
    """A row: so many processes go on for three updates."""
    done = kept(workdir)
    begun = time.monotonic()
    ends = ended(start(workdir, processes, *LONG, f"--config.sft.steps={done + 3}"))
    said = next((line for line in ends[0].out.splitlines() if "resuming at" in line), "it did not go on")
    statuses = ", ".join(str(end.status) for end in ends)
    seconds = time.monotonic() - begun
    return f"| again, {processes} x {4 // processes} | {statuses} | {seconds:.0f} | {kept(workdir)} | {said} |"


def kept(workdir: Path) -> int:
    """The last update that is in a checkpoint."""
    folders = (workdir / "checkpoints" / "sft").iterdir()
    return max((int(folder.name) for folder in folders if folder.name.isdigit()), default=0)


if __name__ == "__main__":
    main()
