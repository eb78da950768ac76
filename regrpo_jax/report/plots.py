"""Plots as SVG that lies in the page: text stays text, and colours are the page's own, dark or light.

matplotlib draws with stand-in colours, which are then replaced by the variables of the style sheet.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from regrpo_jax.report.curves import Panel
from regrpo_jax.report.files import LeftOut

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = 6  # --c0 .. --c5 of the style sheet; more curves begin anew
_WIDTH, _HEIGHT = 4.9, 2.6  # inches of 72 units
_MOST_CHARACTERS = 28  # of a name in a plot
_LEGEND_CHARACTERS = 72  # in a row of a legend
_INK, _SOFT, _LINE = "#0a0b01", "#0a0b02", "#0a0b03"
_VARIABLES = {_INK: "var(--ink)", _SOFT: "var(--soft)", _LINE: "var(--line)"} | {
    f"#0a0c{number:02x}": f"var(--c{number})" for number in range(COLORS)
}
_DASHES = ("solid", (0, (5, 2)), (0, (1, 1.5)), (0, (4, 1.5, 1, 1.5)))


class Bar(NamedTuple):
    """A value, and the ends of its interval where it has one; None draws nothing."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Bars(NamedTuple):
    """One bar for each name."""

    label: str
    bars: Sequence[Bar]


def line_plot(stage: str, panel: Panel) -> str:
    """A panel of a stage as SVG: each update faint, the running mean strong. LeftOut without matplotlib."""
    with _figure(_WIDTH, _HEIGHT) as (figure, axes):
        from matplotlib.ticker import MaxNLocator

        for number, curve in enumerate(panel.curves):
            shown = curve.smooth or curve.values
            marker = "o" if len(shown) == 1 else ""
            axes.plot(
                curve.steps, shown, color=_color(number), linestyle=_dash(number), label=curve.label, marker=marker
            )
            if curve.smooth:
                axes.plot(curve.steps, curve.values, color=_color(number), linewidth=0.8, alpha=0.3)
        axes.set_xlabel("update")
        if panel.share:
            _in_percent(axes.yaxis, [value for curve in panel.curves for value in curve.values])
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
        labels = [curve.label for curve in panel.curves]
        if labels != [panel.title.lower()]:
            _legend(figure, labels)
        return _svg(figure, f"{stage} {panel.title}")


def bar_plot(title: str, names: Sequence[str], rows: Sequence[Bars]) -> str:
    """Shares as bars beside each other, the policies of each name in turn, with their intervals. LeftOut."""
    thickness, labels = 0.8 / max(1, len(rows)), [_cut(row.label) for row in rows]
    height = 0.55 + _legend_height(labels) + len(names) * (0.16 + 0.15 * len(rows))
    with _figure(_WIDTH, height) as (figure, axes):
        for number, row in enumerate(rows):
            drawn = [(place + (number + 0.5) * thickness - 0.4, bar) for place, bar in enumerate(row.bars)]
            known = [(y, bar.value) for y, bar in drawn if bar.value is not None]
            axes.barh([y for y, _ in known], [value for _, value in known], thickness * 0.86,
                      color=_color(number), label=labels[number])  # fmt: skip
            for y, bar in drawn:
                if bar.low is not None and bar.high is not None:
                    axes.plot([bar.low, bar.high], [y, y], color=_INK, linewidth=1.1, solid_capstyle="butt")
        axes.set_yticks(range(len(names)), [_cut(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_xlim(0, 1)
        axes.grid(False, axis="y")
        axes.grid(True, axis="x", color=_LINE, linewidth=0.6)
        _in_percent(axes.xaxis, [])
        _legend(figure, labels)
        return _svg(figure, title)


def histogram(title: str, label: str, rows: Sequence[tuple[str, Sequence[int]]]) -> str:
    """How often lengths occur, as a share of each row's own. LeftOut."""
    values = [value for _, row in rows for value in row]
    top = max(values, default=1)
    width = max(1, -(-(top + 1) // 30))
    edges = [width * number - 0.5 for number in range(top // width + 2)]
    labels = [_cut(name) for name, _ in rows]
    with _figure(_WIDTH, 2.3 + _legend_height(labels)) as (figure, axes):
        for number, (_, row) in enumerate(rows):
            shares = [1 / len(row)] * len(row)
            axes.hist(row, edges, weights=shares, color=_color(number), alpha=0.22)
            axes.hist(row, edges, weights=shares, color=_color(number), histtype="step", linewidth=1.6,
                      linestyle=_dash(number), label=labels[number])  # fmt: skip
        axes.set_xlabel(label)
        _in_percent(axes.yaxis, None)
        _legend(figure, labels)
        return _svg(figure, title)


@contextmanager
def _figure(width: float, height: float) -> Iterator[tuple[Figure, Axes]]:
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise LeftOut(f"{error.name} is missing; plots need: pip install 'regrpo_jax[tools]'") from error
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",  # the same run gives the same bytes
        "text.parse_math": False,  # names come from data, a dollar sign is one
        "font.size": 9,
        "lines.linewidth": 1.8,
        "axes.linewidth": 0.8,
    }
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.add_subplot()
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_LINE)
        axes.tick_params(colors=_SOFT, length=0)
        axes.xaxis.label.set_color(_SOFT)
        axes.grid(True, axis="y", color=_LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        yield figure, axes


def _in_percent(axis: Any, values: Sequence[float] | None) -> None:
    """values: what is drawn; the axis then ends at 100 % or, where all is small, a little above. None: as it falls."""
    from matplotlib.ticker import PercentFormatter

    axis.set_major_formatter(PercentFormatter(1, decimals=None))
    if values is not None:
        top = max(values, default=1.0)
        end = 1.02 if top > 0.3 else max(0.05, 1.2 * top)
        axis.set_view_interval(-0.01 * end, end, ignore=True)


def _legend_columns(labels: Sequence[str]) -> int:
    """How many labels stand beside each other over a plot of `_WIDTH`."""
    return max(1, min(3, len(labels), _LEGEND_CHARACTERS // (5 + max(map(len, labels), default=1))))


def _legend_height(labels: Sequence[str]) -> float:
    """Inches."""
    return 0.2 * -(-len(labels) // _legend_columns(labels))


def _legend(figure: Figure, labels: Sequence[str]) -> None:
    figure.legend(loc="outside upper left", ncols=_legend_columns(labels), frameon=False, labelcolor=_INK,
                  borderaxespad=0.2, handlelength=1.8, columnspacing=1.4)  # fmt: skip


def _cut(name: str) -> str:
    return name if len(name) <= _MOST_CHARACTERS else f"{name[: _MOST_CHARACTERS - 1]}…"


def _color(number: int) -> str:
    return f"#0a0c{number % COLORS:02x}"


def _dash(number: int) -> Any:
    return _DASHES[number % len(_DASHES)]


def _svg(figure: Figure, title: str) -> str:
    """The figure without what only a file of its own needs; ids are made different from those of other plots."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r' id="(?:figure|axes|patch|matplotlib|xtick|ytick|line2d|text|legend|grid)[^"]*"', "", text)
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, variable)
    size = re.search(r'<svg [^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"', text)
    assert size is not None  # matplotlib always writes it
    head = f'<svg viewBox="0 0 {size[1]} {size[2]}" role="img" style="max-width: {float(size[1]) * 1.35:.0f}px">'
    return re.sub(r"<svg [^>]*>", head, text, count=1).strip()
