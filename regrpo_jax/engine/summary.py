"""What a corpus came out as: a table for the terminal, numbers for a program, one picture for a person."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regrpo_jax.engine.journal import Entry
from regrpo_jax.engine.schedule import Committed
from regrpo_jax.engine.slots import Slot
from regrpo_jax.records.actions import code_of, extract_tool_calls, primary_tool
from regrpo_jax.records.execution import EXECUTED, RECORDED

CLEAN = "clean"


def _kind(slot: Slot) -> str:
    return CLEAN if slot.error_type is None else str(slot.error_type)


def _got(slot: Slot, entry: Entry) -> str:
    """The type of the record, which may be another than the slot's."""
    return _kind(slot) if slot.error_type is None or not entry.record else entry.record["rot_meta"]["error_type"]


def _ordered(names: Sequence[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def summarise(slots: Sequence[Slot], committed: Committed) -> dict[str, Any]:
    """Counts by type (asked and got), proposer, status, tool and rejecting rule; lists of lengths and complexities."""
    records = [entry.record for slot, entry in committed.filled if slot.error_type is not None and entry.record]
    executions = [record["execution"] for record in records]
    asked, got = Counter(map(_kind, slots)), Counter(_got(slot, entry) for slot, entry in committed.filled)
    return {
        "records": len(records),
        "clean": got[CLEAN],
        "executed": sum(one["kind"] == EXECUTED for one in executions),
        "recorded": sum(one["kind"] == RECORDED for one in executions),
        "asked": dict(asked),
        "got": {kind: got[kind] for kind in asked | got},
        "of_other_types": sum(_got(slot, entry) != _kind(slot) for slot, entry in committed.filled),
        "proposers": _ordered([one["proposer"] for one in executions]),
        "statuses": _ordered([_failed_status(one) for one in executions]),
        "tools": _ordered([_tool(record) for record in records]),
        "rejects": _ordered([rule for reject in committed.rejects for rule in reject["rules"]]),
        "reflection_words": [one["complexity"]["length"] for one in executions],
        "complexity": [one["complexity"]["score"] for one in executions],
        "turns": [len(record["conversations"]) for record in records],
    }


def _failed_status(execution: Mapping[str, Any]) -> str:
    steps = execution["steps"]
    return steps[execution["failed_step"]]["status"] if steps else "made up"


def _tool(record: Mapping[str, Any]) -> str:
    names = frozenset(record["execution"]["tools"])
    return primary_tool(extract_tool_calls(code_of(record["rot_meta"]["corrected_action"]), names)) or "(none)"


def print_summary(told: Mapping[str, Any], seconds: float) -> None:
    """The table that a person reads at the end of the stage."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, padding=(0, 0), title="records by error type", title_justify="left")
    for label in ("", "asked", "got", "share"):
        table.add_column(label, justify="left" if not label else "right", no_wrap=True)
    for kind, got in told["got"].items():
        share = "-" if kind == CLEAN else f"{got / max(told['records'], 1):.1%}"
        table.add_row(kind, str(told["asked"].get(kind, 0)), str(got), share)
    console = Console()
    console.print(table)
    for label, key in (("near misses by", "proposers"), ("what came back", "statuses"), ("tools", "tools")):
        console.print(f"{label}: {_listed(told[key])}", highlight=False)
    if told["of_other_types"]:
        console.print(
            f"{told['of_other_types']} slots hold failures of other types: the source has too few of theirs",
            highlight=False,
        )
    console.print(f"refused attempts: {_listed(told['rejects']) or 'none'}", highlight=False)
    lengths = sorted(told["reflection_words"]) or [0]
    console.print(
        f"{told['records']} records, {told['executed']} executed, {told['recorded']} with recorded results, "
        f"reflections of {lengths[0]} to {lengths[-1]} words "
        f"(median {lengths[len(lengths) // 2]}), in {seconds:.0f} s",
        highlight=False,
    )


def _listed(counts: Mapping[str, int], most: int = 8) -> str:
    shown = [f"{name} {count}" for name, count in list(counts.items())[:most]]
    return ", ".join(shown) + (f" and {len(counts) - most} more" if len(counts) > most else "")


def draw_summary(told: Mapping[str, Any], path: Path) -> None:
    """The same as one picture: types beside what was asked, tools, refusals, lengths, complexity."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 7), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, 3)
    kinds = [kind for kind in told["asked"] if told["asked"][kind]]
    places = range(len(kinds))
    panels[0][0].bar([at - 0.2 for at in places], [told["asked"][kind] for kind in kinds], 0.4, label="asked")
    panels[0][0].bar([at + 0.2 for at in places], [told["got"][kind] for kind in kinds], 0.4, label="got")
    panels[0][0].set_xticks(list(places), kinds, rotation=20, ha="right")
    panels[0][0].set_title("records by error type")
    panels[0][0].margins(y=0.25)  # room for the legend
    panels[0][0].legend()
    _bars(panels[0][1], told["tools"], "tool of the corrected action")
    _bars(panels[0][2], told["proposers"], "who made the near miss")
    _bars(panels[1][0], told["rejects"], "refused attempts by rule")
    _histogram(panels[1][1], told["reflection_words"], "words of a reflection")
    _histogram(panels[1][2], told["complexity"], "complexity")
    figure.suptitle(
        f"{told['records']} RoT records, {told['executed']} of them executed, {told['recorded']} with recorded results"
    )
    figure.savefig(path, dpi=110)


def _bars(panel: Any, counts: Mapping[str, int], title: str, most: int = 12) -> None:
    names = list(counts)[:most][::-1]
    panel.barh(names, [counts[name] for name in names])
    panel.set_title(title)


def _histogram(panel: Any, values: Sequence[float], title: str) -> None:
    panel.hist(list(values) or [0], bins=20)
    panel.set_title(title)
    panel.set_ylabel("records")
