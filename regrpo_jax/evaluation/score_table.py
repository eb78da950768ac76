"""The numbers of a public suite, as a table and as a file: none without its scorer and its denominator."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from regrpo_jax.records.text_files import replace_text
from regrpo_jax.suites.benchmark import Figure, Score

COLUMNS = ("figure", "scorer", "percent", "of", "")


def figure_row(figure: Figure) -> tuple[str, str, str, str, str]:
    """A figure in words, as `COLUMNS` has them."""
    percent = "-" if figure.percent is None else f"{figure.percent:.3f}"
    return figure.name, figure.scorer, percent, f"{figure.hits:g} / {figure.of}", figure.note


def score_json(score: Score) -> dict[str, Any]:
    """All of it as JSON can hold it."""
    figures = [{**vars(figure), "percent": figure.percent} for figure in score.figures]
    return {"title": score.title, "figures": figures, "notes": list(score.notes), "records": dict(score.records)}


def write_score(score: Score, path: Path) -> None:
    """Writes `score.json`."""
    replace_text(path, json.dumps(score_json(score), ensure_ascii=False, indent=1) + "\n")


def print_score(score: Score, most_notes: int = 20) -> None:
    """What a person reads; all notes stand in the file."""
    console = Console(markup=False)
    table = Table(title=score.title, title_justify="left", box=SIMPLE_HEAD)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in ("percent", "of") else "left")
    for figure in score.figures:
        table.add_row(*figure_row(figure))
    console.print(table)
    for words in _shown(score.notes, most_notes):
        console.print(f"- {words}")


def _shown(notes: Sequence[str], most: int) -> list[str]:
    left = len(notes) - most
    return [*notes[:most], *([f"and {left} more, in score.json"] if left > 0 else [])]
