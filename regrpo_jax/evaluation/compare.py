"""Policies that played the same unseen tasks, side by side, with what each lacks to the last one.

    python -m regrpo_jax.evaluation.compare SFT=runs/sft/recovery/before ReGRPO=runs/regrpo/recovery/after-regrpo

Each argument is NAME=FOLDER[,FOLDER ..]: folders below `recovery/` of a run (or their tasks.jsonl), one for each seed.
Intervals are 95 % bootstraps over tasks and seeds; differences are between numbers of the table, on the same draws.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.intervals import paired_difference
from regrpo_jax.evaluation.recovery_metrics import AT_WORST, DROPPED, Row, grouped, intervals, task_means
from regrpo_jax.evaluation.rollout_metrics import dropped_alarm

ROWS_FILE = "tasks.jsonl"
# name -> (what a person reads, in per cent)
SHOWN = {
    "success": ("success", True),
    AT_WORST: ("success if all dropped had failed", True),
    DROPPED: ("dropped episodes", True),
    "first_attempt_success": ("right without a failure", True),
    "recovery": ("success after a failure", True),
    "repair_at_1": ("next action repairs it", True),
    "needless": ("needless reflections", True),
    "reflection_tokens_per_episode": ("reflection tokens", False),
    "tokens": ("tokens sampled", False),
    "tool_calls": ("tool calls", False),
}
Runs = list[list[Row]]  # one list of rows for each seed


def read_arm(argument: str) -> tuple[str, Runs]:
    """The name and the rows of NAME=FOLDER[,FOLDER ..].

    Raises:
      UserError: it has another form, or a folder holds no rows.
    """
    name, equals, folders = argument.partition("=")
    if not (name and equals and folders):
        raise UserError(f"{argument!r} is not NAME=FOLDER[,FOLDER ..]")
    return name, [read_rows(Path(folder)) for folder in folders.split(",")]


def read_rows(place: Path) -> list[Row]:
    """The rows that the recovery stage wrote into a folder, or a copy of them. UserError when there are none."""
    return read_lines(place if place.is_file() else place / ROWS_FILE)


def read_lines(path: Path) -> list[Row]:
    """The rows of one file. UserError when it cannot be read."""
    try:
        return [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); name a folder below recovery/ of a run") from error


def check_same_tasks(arms: Mapping[str, Runs]) -> None:
    """Raises UserError when two runs played different tasks: their numbers could not be compared."""
    first_name, first = next(iter(arms.items()))
    wanted = [(row["task"], row.get("content")) for row in first[0]]
    for name, runs in arms.items():
        for number, rows in enumerate(runs):
            found = [(row["task"], row.get("content")) for row in rows]
            if len(found) != len(wanted) or any(map(_differ, found, wanted)):
                raise UserError(
                    f"run {number} of {name} played other tasks than {first_name}; play the same ones "
                    "(config.recovery.seed, tasks, families, surprises and split)"
                )


def _differ(first: tuple[str, str | None], second: tuple[str, str | None]) -> bool:
    """Whether they are other tasks; rows that were kept before contents were told are compared by the id alone."""
    return first[0] != second[0] or (None not in (first[1], second[1]) and first[1] != second[1])


def overview(arms: Mapping[str, Runs], played: str = "tasks") -> Table:
    """A column for each policy."""
    table = _table(f"{played}, mean [95 % interval]", arms)
    told = {name: intervals(runs) for name, runs in arms.items()}
    table.add_row("tasks x episodes x seeds", *(_size(runs) for runs in arms.values()))
    for key, (label, per_cent) in SHOWN.items():
        table.add_row(label, *(interval_text(values[key], per_cent) for values in told.values()))
    return table


def by_key(arms: Mapping[str, Runs], key: str) -> Table:
    """Success and recovery of each family, or error type; where episodes were dropped, how many and what that hides."""
    title = f"by {key.replace('_', ' ')}: success / success after a failure (dropped: success if all had failed)"
    table = _table(title, arms)
    for name in grouped(next(iter(arms.values()))[0], key):
        table.add_row(name, *(_part([grouped(rows, key)[name] for rows in runs]) for runs in arms.values()))
    return table


def _part(runs: Runs) -> str:
    told, lost = intervals(runs), dropped(runs)
    shares = " / ".join(_share(told[shown]) for shown in ("success", "recovery"))
    return shares + (f" ({lost}: {_share(told[AT_WORST])})" if lost else "")


def dropped(runs: Runs) -> int:
    """How many episodes were."""
    return sum(row["dropped"] for rows in runs for row in rows)


def alarms(arms: Mapping[str, Runs]) -> list[str]:
    """What should worry a person about the comparison: policies of whose episodes too many were dropped."""
    found = []
    for name, runs in arms.items():
        played = sum(len(row["success"]) for rows in runs for row in rows)
        found += [f"{name}: {words}" for words in dropped_alarm(dropped(runs), dropped(runs) + played)]
    return found


def differences(arms: Mapping[str, Runs]) -> Mapping[str, Mapping[str, str]]:
    """By how much the last policy is ahead of each other one: name -> what is compared -> mean [interval] in points."""
    last_name = list(arms)[-1]
    found = {}
    for name, runs in arms.items():
        if name != last_name and len(runs) == len(arms[last_name]):
            found[name] = {key: _difference(runs, arms[last_name], key) for key in ("success", AT_WORST, "recovery")}
    return found


def _difference(first: Runs, second: Runs, name: str) -> str:
    """Of the numbers in the table."""
    values = [np.array([task_means(rows, name) for rows in runs]) for runs in (first, second)]  # [seed, task]
    if any(np.isnan(one).all() for one in values):
        return "-"
    return interval_text(list(paired_difference(values[0], values[1])), per_cent=True, sign="+")


def _share(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.0%}"


def interval_text(interval: Sequence[float] | None, per_cent: bool, sign: str = "") -> str:
    """Mean and ends, in per cent or as they are; "-" of nothing."""
    if interval is None:
        return "-"
    scale, unit = (100, " %") if per_cent else (1, "")
    mean, low, high = (format(scale * value, f"{sign}.1f") for value in interval)
    return f"{mean}{unit} [{low}, {high}]"


def _size(runs: Runs) -> str:
    episodes = max(len(row["success"]) + row["dropped"] for row in runs[0])
    return f"{len(runs[0])} x {episodes} x {len(runs)}"


def _table(title: str, arms: Mapping[str, Runs]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1))
    table.add_column("")
    for name in arms:
        table.add_column(name, justify="right")
    return table


def print_comparison(arms: Mapping[str, Runs], played: str = "tasks") -> None:
    """All tables, and the differences.

    Args:
      played: what the tasks are, for the title.

    Raises:
      UserError: the runs played different tasks.
    """
    check_same_tasks(arms)
    console = Console(width=max(Console().width, 34 + 26 * len(arms)))  # a table in a file is never folded
    console.print(overview(arms, played))
    console.print(by_key(arms, "family"))
    console.print(by_key(arms, "error_type"))
    last = list(arms)[-1]
    for name, told in differences(arms).items():
        shown = ", ".join(f"{SHOWN[key][0]} {text}" for key, text in told.items())
        console.print(f"{last} - {name}, on the same tasks and seeds: {shown}", highlight=False)
    for words in alarms(arms):
        console.print(f"ALARM: {words}", highlight=False)


def main() -> None:
    arguments = sys.argv[1:]
    if not arguments or {"--help", "-h"} & set(arguments):
        print(__doc__)
        return
    try:
        print_comparison(dict(map(read_arm, arguments)))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
