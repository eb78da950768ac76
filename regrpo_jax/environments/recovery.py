"""What became of many episodes: success, first attempts, recoveries, per family and per error type."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regrpo_jax.environments.episode_result import EpisodeResult
from regrpo_jax.records.actions import FINAL_ANSWER
from regrpo_jax.records.types import Status

FAILURES = frozenset({Status.EMPTY, Status.TOOL_ERROR, Status.TIMEOUT, Status.INVALID_ACTION})
NO_ERROR_TYPE = "none"
MOST_DROPPED = 0.02  # share of the episodes; more of them could hide what a policy does
_WIDTH = 96  # characters of the table
# name -> (what a person reads, format)
COLUMNS: Mapping[str, tuple[str, str]] = {
    "tasks": ("tasks", ".0f"),
    "surprises": ("surprise", ".0%"),
    "success": ("success", ".1%"),
    "success_at_worst": ("at worst", ".1%"),
    "dropped": ("dropped", ".0f"),
    "first_attempt_success": ("1st try", ".1%"),
    "recovery": ("recovery", ".1%"),
    "steps": ("steps", ".2f"),
    "tool_calls": ("calls", ".2f"),
}


def statuses(result: EpisodeResult) -> list[Status]:
    """What the runtime said of each step."""
    return [step.observation.status for step in result.steps if step.observation is not None]


def failed(result: EpisodeResult) -> bool:
    """Whether any step of the episode failed."""
    return bool(FAILURES.intersection(statuses(result)))


def tool_calls(result: EpisodeResult) -> int:
    """How many tools were called, final_answer left out."""
    return sum(run.name != FINAL_ANSWER for runs in result.tool_runs for run in runs)


def metrics(results: Sequence[EpisodeResult]) -> dict[str, float | None]:
    """Shares and means over the episodes that count; None where nothing counts.

    tasks: those that count; dropped: infra errors, which do not; dropped_share: of all. success_at_worst: of all, as if
    the dropped ones had failed. surprises: share of tasks whose natural first
    action fails. first_attempt_success: success without any failed step. failed: share with a failed step. recovery:
    success among those. reflections, steps, tool_calls: per task.
    """
    counted = [result for result in results if not result.dropped]
    fallen = [result for result in counted if failed(result)]
    return {
        "tasks": float(len(counted)),
        "dropped": float(len(results) - len(counted)),
        "dropped_share": _mean([result.dropped for result in results]),
        "success_at_worst": _mean([result.success and not result.dropped for result in results]),
        "surprises": _mean([result.task.error_type is not None for result in counted]),
        "success": _mean([result.success for result in counted]),
        "first_attempt_success": _mean([result.success and not failed(result) for result in counted]),
        "failed": _mean([failed(result) for result in counted]),
        "recovery": _mean([result.success for result in fallen]),
        "reflections": _mean([sum(step.reflection is not None for step in result.steps) for result in counted]),
        "steps": _mean([len(result.steps) for result in counted]),
        "tool_calls": _mean([tool_calls(result) for result in counted]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _grouped(results: Sequence[EpisodeResult], key: Callable[[EpisodeResult], str]) -> dict[str, dict[str, Any]]:
    names = sorted({key(result) for result in results})
    return {name: metrics([result for result in results if key(result) == name]) for name in names}


def summary(results: Sequence[EpisodeResult]) -> dict[str, Any]:
    """Everything that the table shows, as JSON can hold it: overall, by family, error type and difficulty."""
    counts = Counter(str(status) for result in results for status in statuses(result))
    return {
        "overall": metrics(results),
        "by_family": _grouped(results, lambda result: result.task.family),
        "by_error_type": _grouped(results, lambda result: str(result.task.error_type or NO_ERROR_TYPE)),
        "by_difficulty": _grouped(results, lambda result: str(result.task.difficulty)),
        "statuses": {str(status): counts[str(status)] for status in Status},
        "outcomes": dict(sorted(Counter(str(result.outcome) for result in results).items())),
    }


def table_rows(told: Mapping[str, Any]) -> list[dict[str, dict[str, str]]]:
    """The numbers of a summary as a person reads them: all, by family, by error type; row -> column -> text."""
    sections = ({"all": told["overall"]}, told["by_family"], told["by_error_type"])

    def shown(values: Mapping[str, float | None]) -> dict[str, str]:
        cells = {label: (values[key], form) for key, (label, form) in COLUMNS.items()}
        return {label: "-" if value is None else format(value, form) for label, (value, form) in cells.items()}

    return [{name: shown(values) for name, values in section.items()} for section in sections]


def print_summary(title: str, told: Mapping[str, Any]) -> None:
    """The table that a person reads at the end of a run."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 0))
    table.add_column("", no_wrap=True)
    for label, _ in COLUMNS.values():
        table.add_column(label, justify="right", no_wrap=True)
    for section in table_rows(told):
        for name, cells in section.items():
            table.add_row(name, *cells.values())
        table.add_section()
    console = Console(width=max(Console().width, _WIDTH))  # a table in a narrow window or a file is never cut
    console.print(table)
    counts = ", ".join(f"{name} {count}" for name, count in told["statuses"].items() if count)
    console.print(f"statuses of steps: {counts}", highlight=False)
    if told["overall"]["dropped"]:
        alarm = "ALARM: " * ((told["overall"]["dropped_share"] or 0.0) > MOST_DROPPED)
        words = "episodes are not counted (infra_error); 'at worst' is the success if all of them had failed"
        console.print(f"{alarm}{told['overall']['dropped']:.0f} {words}", highlight=False)


def to_json(result: EpisodeResult) -> dict[str, Any]:
    """An episode as a line of results.jsonl; `seconds` alone differs between two runs."""
    task = result.task
    return {
        "id": task.id,
        "family": task.family,
        "split": task.split,
        "difficulty": task.difficulty,
        "error_type": None if task.error_type is None else str(task.error_type),
        "surprise": task.metadata.get("surprise", ""),
        "instruction": task.instruction,
        "outcome": str(result.outcome),
        "success": result.success,
        "failed": failed(result),
        "answer": result.answer,
        "error": result.error,
        "steps": [
            {
                "text": step.text,
                "status": None if step.observation is None else str(step.observation.status),
                "observation": None if step.observation is None else step.observation.text,
                "images": [] if step.observation is None else list(step.observation.images),
                "tools": [[run.name, str(run.status)] for run in runs],
            }
            for step, runs in zip(result.steps, result.tool_runs, strict=True)
        ],
        "seconds": round(result.seconds, 4),
    }
