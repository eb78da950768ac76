"""The numbers of the unseen tasks, policy beside policy, as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from regrpo_jax.evaluation.report import ROWS as REPLAY_ROWS
from regrpo_jax.evaluation.rollout_metrics import dropped_alarm
from regrpo_jax.evaluation.trend_alarms import course
from regrpo_jax.report.files import LeftOut, is_number
from regrpo_jax.report.plots import Bar, Bars

Policies = Mapping[str, Mapping[str, Any]]  # see `files.read_recovery`


class _Row(NamedTuple):
    """name: in "metrics". interval: "intervals" has the same. better: 1 for more, -1 for less, 0 for neither."""

    name: str
    label: str
    meaning: str
    share: bool
    interval: bool
    better: int


ROWS = (
    _Row("success", "Task solved", "the right answer at the end", True, True, 1),
    _Row("success_at_worst", "Task solved, at worst", "if every dropped episode had failed", True, True, 1),
    _Row("dropped_share", "Dropped episodes", "trouble of the sandbox; they count for nothing above", True, True, -1),
    _Row("first_attempt_success", "Solved at the first attempt", "without any failed action", True, True, 1),
    _Row("recovery", "Recovered", "solved, of the episodes in which an action failed", True, True, 1),
    _Row(
        "repair_at_1", "Repaired at once", "the action right after the first failure was the right one", True, True, 1
    ),
    _Row("failed", "Met a failure", "episodes in which an action failed", True, False, 0),
    _Row("needless", "Needless reflections", "after actions that had gone well", True, True, -1),
    _Row(
        "trigger_precision", "Gate: precision", "reflections opened by the gate that followed a failure", True, False, 1
    ),
    _Row("trigger_recall", "Gate: recall", "failures that were reflected on", True, False, 1),
    _Row("grounded", "Evidence quoted", "reflections that quote what the tool had said", True, False, 1),
    _Row("malformed", "Malformed reflections", "that break the format", True, False, -1),
    _Row("reflection_tokens", "Tokens of a reflection", "", False, False, 0),
    _Row("reflection_tokens_per_success", "Reflection tokens per success", "their price", False, False, -1),
    _Row("tokens", "Tokens of an episode", "all that the policy wrote", False, True, 0),
    _Row("tool_calls", "Tool calls of an episode", "", False, True, 0),
    _Row("truncated", "Out of tokens", "episodes cut off by the budget", True, False, -1),
    _Row("episodes", "Episodes", "", False, False, 0),
    _Row("dropped", "Dropped, beside those", "trouble of the sandbox", False, False, -1),
)

_BY_NAME = {row.name: row for row in ROWS}
_HEADLINE = [_BY_NAME[name] for name in ("success", "first_attempt_success", "recovery", "needless")]
# Of each family and error type, and how the page calls them there.
PART_LABELS = {"success": "solved", "first_attempt_success": "first attempt", "recovery": "recovered",
               "success_at_worst": "solved at worst", "dropped_share": "dropped"}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A number in words, and as it is. against: "better" or "worse" than the first policy, "" where intervals meet."""

    text: str
    interval: str = ""
    against: str = ""
    value: float | None = None


@dataclass(frozen=True)
class TableRow:
    """A number of each policy."""

    label: str
    meaning: str
    cells: tuple[Cell, ...]


class LengthRow(NamedTuple):
    """Reflections of a policy: how many, and their tokens; nine in ten are no longer than `ninth_decile`."""

    title: str
    reflections: int
    median: int
    ninth_decile: int
    longest: int


def policy_table(policies: Policies) -> list[TableRow]:
    """All that is known, a row for each number that some policy has."""
    table, firsts = [], _compared_with(policies)
    for row in ROWS:
        bars = [_bar(numbers, row) for numbers in policies.values()]
        if any(bar.value is not None for bar in bars):
            cells = tuple(_cell(bar, bars[first], row) for bar, first in zip(bars, firsts, strict=True))
            table.append(TableRow(row.label, row.meaning, cells))
    return table


def dropped_alarms(policies: Policies) -> list[str]:
    """The policies of whose episodes so many were dropped that the numbers may hide failures."""
    found = []
    for title, numbers in policies.items():
        told = _mapping(numbers.get("metrics"))
        played, lost = (told.get(name) for name in ("episodes", "dropped"))
        if is_number(played) and is_number(lost):
            found += [f"{title}: {words}" for words in dropped_alarm(lost, played + lost)]
    return found


def part_table(policies: Policies, key: str) -> list[tuple[str, str, list[tuple[Cell, ...]]]]:
    """The numbers of `PART_LABELS` of each family or error type.

    Args:
      key: "families" or "error_types".
    Returns:
      (name, number of tasks or "", those of each policy). LeftOut where the numbers are not told apart.
    """
    found = [
        (name, _tasks(policies, key, name), [_part_cells(_part(numbers, key, name)) for numbers in policies.values()])
        for name in part_names(policies, key)
    ]
    if not found:
        raise LeftOut(f"recovery.json does not tell {key.replace('_', ' ')} apart")
    return found


def part_bars(policies: Policies, key: str, name: str) -> list[Bars]:
    """One number of `ROWS` for each family or error type and each policy."""
    row = _BY_NAME[name]
    names = part_names(policies, key)
    return [
        Bars(title, [_bar(_part(numbers, key, part), row) for part in names]) for title, numbers in policies.items()
    ]


def part_names(policies: Policies, key: str) -> list[str]:
    """The families or error types that any policy met."""
    return sorted({name for numbers in policies.values() for name in _mapping(numbers.get(key))})


def headline(policies: Policies) -> list[tuple[str, list[tuple[str, Cell]]]]:
    """What matters most, (label, [(policy, value)]), the policies in their order."""
    found = []
    for row in _HEADLINE:
        bars = [_bar(numbers, row) for numbers in policies.values()]
        if any(bar.value is not None for bar in bars):
            places = zip(policies, bars, _compared_with(policies), strict=True)
            found.append((row.label, [(title, _cell(bar, bars[first], row)) for title, bar, first in places]))
    return found


def _compared_with(policies: Policies) -> list[int]:
    """Of each policy, the place of the first one that played the same split: tasks of another say nothing about it."""
    firsts: dict[Any, int] = {}
    return [firsts.setdefault(numbers.get("split"), place) for place, numbers in enumerate(policies.values())]


def training_headline(history: Sequence[Mapping[str, float | None]]) -> list[tuple[str, list[tuple[str, Cell]]]]:
    """Likewise of the episodes of the training, where no policy has played unseen tasks: first and last updates."""
    found = []
    for row in _HEADLINE:
        change = course([values.get(row.name) for values in history])
        if change:
            told = (("first updates", change.early), ("last updates", change.late))
            found.append(
                (row.label, [(title, Cell(number_text(value, row.share), value=value)) for title, value in told])
            )
    return found


def length_row(title: str, lengths: Sequence[int]) -> LengthRow:
    """lengths: tokens of each reflection, at least one."""
    ordered = sorted(lengths)
    ninth = ordered[-(-9 * len(ordered) // 10) - 1]
    return LengthRow(title, len(ordered), ordered[len(ordered) // 2], ninth, ordered[-1])


def replay_table(columns: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Titles of the policies, and the rows of the table that `evaluation.report` prints: label, a text for each."""
    rows = [
        (label, [format(values[name], spec) if is_number(values.get(name)) else "–" for values in columns.values()])
        for name, (label, spec) in REPLAY_ROWS.items()
    ]
    return list(columns), rows


def number_text(value: float | None, share: bool) -> str:
    """As in the tables; a dash for what is not known."""
    if value is None:
        return "–"
    if share:
        return f"{value:.1%}" if 0 < value < 0.1 else f"{value:.0%}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.1f}"


def _bar(numbers: Mapping[str, Any], row: _Row) -> Bar:
    """The mean over tasks with its interval where there is one, else the number over episodes."""
    interval = _mapping(numbers.get("intervals")).get(row.name) if row.interval else None
    if isinstance(interval, Sequence) and len(interval) == 3 and all(is_number(end) for end in interval):
        return Bar(*map(float, interval))
    value = _mapping(numbers.get("metrics")).get(row.name)
    return Bar(float(value) if is_number(value) else None)


def _cell(bar: Bar, first: Bar, row: _Row) -> Cell:
    text = number_text(bar.value, row.share)
    if bar.low is None or bar.high is None:
        return Cell(text, value=bar.value)
    interval = f"{number_text(bar.low, row.share)} – {number_text(bar.high, row.share)}"
    against = ""
    if row.better and first.low is not None and first.high is not None:
        rises, falls = bar.low > first.high, bar.high < first.low
        against = "better" if (rises, falls)[row.better < 0] else "worse" if (falls, rises)[row.better < 0] else ""
    return Cell(text, interval, against, bar.value)


def _part_cells(numbers: Mapping[str, Any]) -> tuple[Cell, ...]:
    bars = [(_bar(numbers, row), row) for row in map(_BY_NAME.__getitem__, PART_LABELS)]
    return tuple(_cell(bar, bar, row) for bar, row in bars)


def _part(numbers: Mapping[str, Any], key: str, name: str) -> Mapping[str, Any]:
    """Families and error types have their own "metrics" and "intervals", or the intervals alone."""
    return _mapping(_mapping(numbers.get(key)).get(name))


def _tasks(policies: Policies, key: str, name: str) -> str:
    counts = [_part(numbers, key, name).get("tasks") for numbers in policies.values()]
    known = [count for count in counts if is_number(count)]
    return number_text(max(known), share=False) if known else ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
