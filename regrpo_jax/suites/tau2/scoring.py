"""The package's figures: a run is right when its evaluators say so of the calls in the file, made again.

pass^k is the chance that k runs drawn from those of a task are all right, meant over tasks; pass^1 is the mean reward.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError, listed
from regrpo_jax.suites.benchmark import Figure, Score
from regrpo_jax.suites.tau2.package import SIMULATIONS, TASKS, imported
from regrpo_jax.suites.tau2.records import HALVES, Record
from regrpo_jax.suites.tau2.result_files import read_results
from regrpo_jax.suites.tau2.verdict import Verdict, judged
from regrpo_jax.suites.tau2.world import constructor

SCORER = "tau2"
_ENDED = ("agent_stop", "user_stop")
_SHOWN = 5


def score_files(
    package: Path, records: Sequence[Record], sets: Sequence[str], held: Mapping[str, Any], paths: Sequence[Path]
) -> Score:
    """Figures by set (those in `sets`, which the records are of), half and kind.

    Raises:
      UserError: a file is none of the package's.
    """
    runs, known = read_results(paths).simulations, {record.id: record for record in records}
    others = [run["task_id"] for _, run in runs if run["task_id"] not in known]
    if runs and len(others) == len(runs):
        raise UserError(f"{paths[0]}: no task is one of those that were asked for, the first is {others[0]!r}")
    verdicts: dict[str, list[Verdict]] = {name: [] for name in known}
    with_user = 0
    for place, run in runs:
        if run["task_id"] in known:
            verdict, alone = _verdict(package, known[run["task_id"]], held, run, place)
            verdicts[run["task_id"]].append(verdict)
            with_user += not alone
    notes = []
    if others:
        notes.append(f"{len(others)} runs are of no task that was asked for: {listed(others, _SHOWN)}.")
    if with_user:
        notes.append(f"{with_user} runs have a user in them: they are judged as such, and are not solo mode's.")
    told = {
        name: {SCORER: {"valid": all(one.valid for one in found) and bool(found), "runs": len(found),
                        "right": sum(one.valid for one in found),
                        "words": next((one.words for one in found if not one.valid), "")}}
        for name, found in verdicts.items()
    }  # fmt: skip
    return Score("tau-bench telecom, solo mode", _figures(records, sets, verdicts), tuple(notes), told)


def _verdict(
    package: Path, record: Record, held: Mapping[str, Any], run: Mapping[str, Any], place: str
) -> tuple[Verdict, bool]:
    """What a run comes to, and whether the agent was alone in it."""
    try:
        found = imported(package, SIMULATIONS).SimulationRun.model_validate(run)
    except ValueError as error:
        raise UserError(f"{place}: the package cannot read it: {error}") from error
    alone = all(message.role != "user" for message in found.messages)
    reason = str(found.termination_reason.value)
    if reason not in _ENDED:
        return Verdict(False, {}, f"ended by {reason}"), alone
    task = imported(package, TASKS).Task.model_validate(record.told)
    return judged(package, constructor(package, held), task, found.messages, solo=alone), alone


def _figures(
    records: Sequence[Record], sets: Sequence[str], verdicts: Mapping[str, Sequence[Verdict]]
) -> tuple[Figure, ...]:
    groups = {name: [one for one in records if name in one.sets] for name in sets}
    groups |= {f"{half} half": [one for one in records if one.split == half] for half in HALVES}
    groups |= {kind: [one for one in records if one.kind == kind] for kind in sorted({one.kind for one in records})}
    found = []
    for name, group in groups.items():
        if group:
            found += _passes(name, [verdicts[record.id] for record in group])
    return tuple(found)


def _passes(name: str, group: Sequence[Sequence[Verdict]]) -> list[Figure]:
    missing = sum(not one for one in group)
    note = f"{missing} have no run and count as wrong" if missing else ""
    fewest = min((len(one) for one in group if one), default=1)
    found = []
    for size in range(1, fewest + 1):
        hits = sum(comb(sum(run.valid for run in one), size) / comb(len(one), size) for one in group if one)
        found.append(Figure(f"{name}, pass^{size}", SCORER, hits, len(group), note))
    return found
