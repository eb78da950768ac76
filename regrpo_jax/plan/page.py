"""A plan as tables: on the screen, and as Markdown and JSON in the run's folder."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from regrpo_jax.plan.chips import GIB, Chip
from regrpo_jax.plan.figures import Figures

MEMORY = ("step", "weights", "optimizer", "batch, caches", "beside", "temporaries", "needed", "fits")
WORK = ("step", "TFLOP", "of it again", "sends", "at least", "bound by", "compiled in")


def memory_rows(found: Sequence[Figures], chip: Chip | None) -> list[tuple[str, ...]]:
    """Columns of `MEMORY`, in GiB of a device."""
    return [
        (
            one.name,
            *(_gib(part) for part in (one.weights, one.optimizer, one.batch, one.beside)),
            "?" if one.temporaries is None else _gib(one.temporaries),
            _gib(one.needed),
            verdict(one, chip),
        )
        for one in found
    ]


def verdict(one: Figures, chip: Chip | None) -> str:
    """Whether it fits, and by how much."""
    if chip is None:
        return "compiles" if not one.failure else "no"
    left = chip.memory - one.needed
    return f"yes, {_gib(left)} left" if one.fits(chip) else f"no, {_gib(-left)} over" if left < 0 else "no"


def work_rows(found: Sequence[Figures], chip: Chip | None) -> list[tuple[str, ...]]:
    """Columns of `WORK`, of one run on one device."""
    rows: list[tuple[str, ...]] = []
    for one in found:
        seconds = one.seconds(chip) if chip else {}
        bound = max(seconds, key=lambda name: seconds[name]) if seconds and not one.failure else "-"
        sent = ", ".join(f"{count} {kind} {_gib(one.exchanged[kind])}" for kind, count in one.exchange_counts.items())
        rows.append(
            (
                one.name,
                f"{one.flops / 1e12:.3g}",
                f"{1 - one.model_flops / one.flops:.0%}" if one.flops else "-",
                sent or "nothing",
                f"{1000 * seconds[bound]:.3g} ms" if bound in seconds else "-",
                bound,
                f"{one.compile_seconds:.0f} s",
            )
        )
    return rows


def print_plan(title: str, found: Sequence[Figures], chip: Chip | None, notes: Sequence[str]) -> None:
    """The tables and what they mean."""
    console = Console(soft_wrap=False)
    for name, columns, rows in _tables(found, chip):
        table = Table(title=f"{title}: {name}", title_justify="left")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*row)
        console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def write_plan(
    folder: Path, title: str, command: str, found: Sequence[Figures], chip: Chip | None, notes: Sequence[str]
) -> None:
    """`plan.md` and `plan.json`."""
    lines = [f"# Plan: {title}", "", "```", command, "```", ""]
    for name, columns, rows in _tables(found, chip):
        lines += [f"{name[0].upper()}{name[1:]}", ""]
        lines += [_line(columns), _line(["---"] * len(columns)), *(_line(row) for row in rows), ""]
    lines += [f"- {note}" for note in notes]
    (folder / "plan.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    content: dict[str, Any] = {
        "title": title,
        "command": command,
        "chip": dataclasses.asdict(chip) | {"flops": chip.flops} if chip else None,
        "steps": [dataclasses.asdict(one) for one in found],
        "notes": list(notes),
    }
    (folder / "plan.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _tables(found: Sequence[Figures], chip: Chip | None) -> list[tuple[str, Sequence[str], list[tuple[str, ...]]]]:
    return [
        ("memory of each device, GiB", MEMORY, memory_rows(found, chip)),
        ("work of each device, exchanges in GiB", WORK, work_rows(found, chip)),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _gib(count: float) -> str:
    return f"{count / GIB:.2f}" if abs(count) >= GIB / 100 or not count else f"{count / GIB:.1g}"
