"""Numbers of a replay, and the table that a person reads at the end of a run."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from rich.table import Table

from regrpo_jax.evaluation.replay import Episode

# name -> (what a person reads, number format)
ROWS = {
    "one_shot": ("right at the first attempt", ".1%"),
    "task_success": ("task solved", ".1%"),
    "gate_opened": ("failure injected: gate opens", ".1%"),
    "recovery": ("failure injected: repaired", ".1%"),
    "recovery_gate_open": ("  of those with the gate open", ".1%"),
    "task_success_after_failure": ("failure injected: task solved", ".1%"),
    "reflection_tokens": ("tokens of a reflection", ".1f"),
    "well_formed": ("reflections well formed", ".1%"),
    "evidence_grounded": ("evidence in the observation", ".1%"),
    "error_type_right": ("error type as recorded", ".1%"),
    "needless_reflection": ("needless reflections", ".1%"),
    "correction_preferred": ("correction likelier than failure", ".1%"),
}


def replay_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Shares over episodes; those about reflections are over episodes in which the gate opened."""
    opened = [episode for episode in episodes if episode.gate.open]
    right = [episode for episode in episodes if episode.first_right]
    return {
        "episodes": float(len(episodes)),
        "one_shot": _mean([e.first_right for e in episodes]),
        "task_success": _mean([e.finished_alone for e in episodes]),
        "gate_opened": _mean([e.gate.open for e in episodes]),
        "recovery": _mean([e.repaired for e in episodes]),
        "recovery_gate_open": _mean([e.repaired for e in opened]),
        "task_success_after_failure": _mean([e.finished_after_failure for e in episodes]),
        "reflection_tokens": _mean([e.repair.reflection_tokens for e in opened]),
        "well_formed": _mean([e.reflection is not None for e in opened]),
        "evidence_grounded": _mean([e.grounded for e in opened]),
        "error_type_right": _mean(
            [e.reflection is not None and e.reflection.error_type == e.record.error_type for e in opened]
        ),
        "needless_reflection": _mean([e.needless for e in right]),
    }


def metrics_by_error_type(episodes: Sequence[Episode]) -> dict[str, dict[str, float]]:
    """`replay_metrics` of each error type's records."""
    kinds = sorted({episode.record.error_type for episode in episodes})
    return {kind.value: replay_metrics([e for e in episodes if e.record.error_type == kind]) for kind in kinds}


def print_table(title: str, columns: Mapping[str, Mapping[str, float]]) -> None:
    """One column per stage."""
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for name in columns:
        table.add_column(name, justify="right")
    for key, (label, spec) in ROWS.items():
        table.add_row(label, *(format(values[key], spec) for values in columns.values()))
    Console().print(table)


def print_error_types(columns: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """One-shot success and recovery rate per error type, before and after."""
    table = Table(title="by error type: one-shot success / recovery rate", title_justify="left")
    table.add_column("")
    table.add_column("records", justify="right")
    for name in columns:
        table.add_column(name, justify="right")
    last = list(columns.values())[-1]
    for kind, values in last.items():
        cells = [f"{stage[kind]['one_shot']:.0%} / {stage[kind]['recovery']:.0%}" for stage in columns.values()]
        table.add_row(kind, f"{values['episodes']:.0f}", *cells)
    Console().print(table)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0
