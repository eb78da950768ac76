"""The numbers of a public suite as one HTML file that needs nothing else; what others wrote is escaped."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from regrpo_jax.environments.viewer import page_template
from regrpo_jax.evaluation.score_table import figure_row
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.suites.benchmark import Score

_FOLDER = Path(__file__).parent
_MOST_CHARACTERS = 300  # of a cell


def write_score_page(score: Score, path: Path) -> None:
    """Writes `score.html`."""
    columns = list(dict.fromkeys(name for record in score.records.values() for name in record))
    page = page_template(_FOLDER / "score.html.jinja").render(
        score=score,
        style=(_FOLDER / "page.css").read_text(encoding="utf-8"),
        figures=[figure_row(figure) for figure in score.figures],
        columns=columns,
        rows=[(name, [_cell(told.get(column)) for column in columns]) for name, told in score.records.items()],
    )
    replace_text(path, page.encode("utf-8", "replace").decode())  # a policy may write half a surrogate


def _cell(value: Any) -> str:
    if value is None:
        return ""
    words = {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
    return words if len(words) <= _MOST_CHARACTERS else f"{words[:_MOST_CHARACTERS]} .."
