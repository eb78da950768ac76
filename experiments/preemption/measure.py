"""Runs that are killed at random moments and started again: do they end where an undisturbed one does, bit for bit?

    python -m experiments.preemption.measure --folder=runs/preemption [--times=20] [--at_most=5] [--seed=0]

Each trial is a tiny run whose process is sent SIGKILL or SIGTERM, and which is started again, a few times over; then it
is let go to its end, and all arrays of its last checkpoints are compared. A moment is a random number of lines of
metrics, and a random part of two seconds behind them; where a start finds as many lines already, a random part of the
time until it trains. So a busy machine does not move all of them to where nothing has happened yet. Trials are kept in
trials.jsonl; the same command goes on where it was stopped. Prints a table.

A run is a process of its own, forked from this one when everything is imported: of the seconds that a tiny run takes
from the shell nearly all are imports, in which there is nothing to lose. This process itself never computes.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import app, flags, logging
from rich.console import Console
from rich.table import Table

import regrpo_jax.run.walk as _walk  # noqa: F401, imported before anything is forked
import regrpo_jax.stages.online as _online  # noqa: F401
import regrpo_jax.stages.sft as _sft  # noqa: F401
from regrpo_jax.main import run_from_command_line

_FOLDER = flags.DEFINE_string("folder", None, "Of the runs and their results.", required=True)
_TIMES = flags.DEFINE_integer("times", 20, "Moments of each signal, for each run.")
_AT_MOST = flags.DEFINE_integer("at_most", 5, "Of them to one run, which may end before.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.")
_RUNS = flags.DEFINE_list("runs", ["sft", "online"], "Which of them.")
_SIGNALS = flags.DEFINE_list("signals", ["SIGKILL", "SIGTERM"], "Which of them.")

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds for a run of seconds
# Checkpoints by count, and by time as often as there are lines.
SHARED = {"log_every": 1, "checkpoint.minutes": 0.01}
SUITE = {"suite.families": "('moved', 'service')"}
# Of the online run; it is not disturbed.
WARM_START: dict[str, object] = {"stages": "('sft',)", "sft.steps": 12, **SUITE}
RUNS: dict[str, dict[str, object]] = {
    "sft": {"stages": "('sft',)", "sft.steps": 60, "checkpoint.every": 16},
    "online": {
        "stages": "('sft', 'online')",
        "sft.steps": 12,
        "online.steps": 4,
        "online.tasks": 2,
        "online.branches": 4,
        **SUITE,
        "agent.turn_tokens": 48,
        "agent.episode_tokens": 96,
        "checkpoint.every": 2,
    },
}


@dataclasses.dataclass(frozen=True)
class Trial:
    """One disturbed run.

    Attributes:
      moments: seconds after each start at which it got the signal.
      lines: of metrics that it had written then, without those of a warm start.
      statuses: its process ended with.
      seconds: from the signal to that end.
      same: whether every array of its last checkpoints is that of the undisturbed run.
    """

    run: str
    signal: str
    number: int
    moments: list[float]
    lines: list[int]
    statuses: list[int]
    seconds: list[float]
    same: bool


def main(arguments: list[str]) -> None:
    del arguments
    folder = Path(_FOLDER.value).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    trials = list(stored(folder))
    for run in _RUNS.value:
        undisturbed, seconds = undisturbed_run(folder, run)
        for how in (signal.Signals[name] for name in _SIGNALS.value):
            while left := _TIMES.value - len(moments_of(trials, run, how.name)):
                number = sum((trial.run, trial.signal) == (run, how.name) for trial in trials)
                most = min(left, _AT_MOST.value)
                trials.append(disturbed_run(folder, run, how, number, undisturbed, seconds, most))
                with (folder / "trials.jsonl").open("a") as lines:
                    lines.write(json.dumps(dataclasses.asdict(trials[-1])) + "\n")
                print(trials[-1], flush=True)
    Console(width=140).print(table(trials))


def stored(folder: Path) -> Iterator[Trial]:
    """Those of earlier starts."""
    path = folder / "trials.jsonl"
    for line in path.read_text().splitlines() if path.exists() else []:
        yield Trial(**json.loads(line))


def moments_of(trials: Sequence[Trial], run: str, how: str) -> list[float]:
    return [moment for trial in trials if (trial.run, trial.signal) == (run, how) for moment in trial.moments]


def undisturbed_run(folder: Path, run: str) -> tuple[Path, float]:
    """Its workdir, and the seconds until its first line when nothing has to be compiled."""
    workdir, told = folder / f"{run}-undisturbed", folder / f"{run}-undisturbed.seconds"
    if not told.exists():
        if run == "online":
            finish(forked_run(WARM_START, folder, folder / "warm-start"))
        for _ in range(2):  # the second finds its programs compiled
            begin(folder, run, workdir)
            begun, process = time.monotonic(), start(folder, run, workdir)
            wait_for_lines(process, workdir, run, 1)
            seconds = time.monotonic() - begun
            finish(process)
        told.write_text(str(seconds))
    return workdir, float(told.read_text())


def disturbed_run(
    folder: Path, run: str, how: signal.Signals, number: int, undisturbed: Path, first: float, most: int
) -> Trial:
    """A run that gets the signal so many times, or until it ends before a moment comes.

    Args:
      first: seconds until a start trains.
    """
    workdir, chance = folder / f"{run}-disturbed", random.Random(f"{_SEED.value} {run} {how.name} {number}")
    begin(folder, run, workdir)
    trial = Trial(run, how.name, number, [], [], [], [], same=False)
    for lines in sorted(chance.randrange(int(str(RUNS[run][f"{run}.steps"]))) for _ in range(most)):
        there, began, process = lines_of(workdir, run) >= lines, time.monotonic(), start(folder, run, workdir)
        wait_for_lines(process, workdir, run, lines)
        process.join(chance.uniform(0, first if there else 2.0))
        if not process.is_alive():
            finish(process)
            break
        os.kill(pid_of(process), how)
        sent = time.monotonic()
        trial.moments.append(round(sent - began, 3))
        trial.lines.append(lines_of(workdir, run))
        trial.statuses.append(ended(process))
        trial.seconds.append(round(time.monotonic() - sent, 3))
    finish(start(folder, run, workdir))
    same = ended(forked(compare, workdir, undisturbed, run)) == 0
    return dataclasses.replace(trial, same=same)


def begin(folder: Path, run: str, workdir: Path) -> None:
    """What a run finds where it starts."""
    shutil.rmtree(workdir, ignore_errors=True)
    if run == "online":
        shutil.copytree(folder / "warm-start", workdir)


def start(folder: Path, run: str, workdir: Path) -> BaseProcess:
    return forked_run(RUNS[run], folder, workdir)


def forked_run(fields: Mapping[str, object], folder: Path, workdir: Path) -> BaseProcess:
    """`python -m regrpo_jax.main`, whose words go to a file beside the workdir."""
    overrides = (f"--config.{name}={value}" for name, value in (SHARED | dict(fields)).items())
    arguments = [f"--config={ROOT / 'tests' / 'tiny_config.py'}", f"--workdir={workdir}", *overrides]
    return forked(in_child, arguments, workdir.with_suffix(".log"), folder / "compiled")


def in_child(arguments: list[str], words: Path, compiled: Path) -> None:
    jax.config.update("jax_compilation_cache_dir", str(compiled))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # all: programs are small here
    stream = os.open(words, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.argv[1:] = arguments
    run_from_command_line()


def forked(target: Callable[..., None], *arguments: object) -> BaseProcess:
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def pid_of(process: BaseProcess) -> int:
    if process.pid is None:
        raise RuntimeError("a process was asked for its id before it was started")
    return process.pid


def ended(process: BaseProcess) -> int:
    """Its status, minus a signal's number where that ended it."""
    process.join(PATIENCE)
    if process.exitcode is None:
        process.kill()
        raise SystemExit(f"a run did not end within {PATIENCE} s")
    return process.exitcode


def finish(process: BaseProcess) -> None:
    if status := ended(process):
        raise SystemExit(f"a run ended with {status}; see the .log files")


def wait_for_lines(process: BaseProcess, workdir: Path, run: str, lines: int) -> None:
    """Until a run has written so many, or has ended."""
    while process.is_alive() and lines_of(workdir, run) < lines:
        time.sleep(0.02)


def lines_of(workdir: Path, run: str) -> int:
    path = workdir / "metrics.jsonl"
    return path.read_text().count(f'"stage": "{run}"') if path.exists() else 0


def compare(workdir: Path, other: Path, run: str) -> None:
    """Ends with 1 if any array differs in any bit."""
    logging.set_verbosity(logging.ERROR)
    found, expected = arrays(workdir, run), arrays(other, run)
    same = found.keys() == expected.keys() and all(
        found[name].dtype == array.dtype and found[name].tobytes() == array.tobytes()
        for name, array in expected.items()
    )
    sys.exit(0 if same and expected else 1)


def arrays(workdir: Path, run: str) -> dict[str, np.ndarray]:
    """Of the last checkpoint of every stage."""
    found = {}
    for stage in ("sft", "online"):
        if steps := RUNS[run].get(f"{stage}.steps"):
            state = workdir / "checkpoints" / stage / str(steps) / "state"
            tree = ocp.StandardCheckpointer().restore(state)
            found |= {f"{stage} {path}": np.asarray(x) for path, x in ocp.tree.to_flat_dict(tree).items()}
    return found


def table(trials: Sequence[Trial]) -> Table:
    shown = Table("run", "signal", "moments", "before a line", "exit status", "slowest exit", "runs", "same bits")
    for run, how in sorted({(trial.run, trial.signal) for trial in trials}, reverse=True):
        these = [trial for trial in trials if (trial.run, trial.signal) == (run, how)]
        statuses = [status for trial in these for status in trial.statuses]
        seconds = [seconds for trial in these for seconds in trial.seconds]
        shown.add_row(
            run,
            how,
            str(len(statuses)),
            str(sum(lines == 0 for trial in these for lines in trial.lines)),
            ", ".join(f"{status}: {statuses.count(status)}" for status in sorted(set(statuses))),
            f"{max(seconds, default=0.0):.1f} s",
            str(len(these)),
            str(sum(trial.same for trial in these)),
        )
    return shown


if __name__ == "__main__":
    app.run(main)
