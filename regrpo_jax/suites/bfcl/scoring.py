"""BFCL's figures: a record is right when the authors' checker says so; 200 a set, 800 in all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.suites.benchmark import Figure, Score
from regrpo_jax.suites.bfcl.calls import UNKNOWN, decoded, runnable
from regrpo_jax.suites.bfcl.functions import Function
from regrpo_jax.suites.bfcl.records import SETS, Record
from regrpo_jax.suites.bfcl.result_files import read_results
from regrpo_jax.suites.bfcl.tasks import world_data
from regrpo_jax.suites.bfcl.verdict import Verdict, judged

SCORER = "BFCL"
MISSING, NO_LIST = "missing", "multi_turn:inference_error"
_PREFIX = "multi_turn_"


def score_files(
    package: Path, records: Sequence[Record], functions: Mapping[str, Function], paths: Sequence[Path]
) -> Score:
    """Figures by set, over all, and over each half of our split. UserError for a file that is none of BFCL's."""
    results, known = read_results(paths), {record.id for record in records}
    others = [name for name in results.by_id if name not in known]
    if results.by_id and len(others) == len(results.by_id):
        raise UserError(f"{paths[0]}: no id is one of the records that were asked for, the first is {others[0]!r}")
    verdicts: dict[str, Verdict] = {}
    not_run = 0
    for record in records:
        own = {name for name, function in functions.items() if function.owner in record.classes}
        steps = _steps(results.by_id.get(record.id), own)
        not_run += sum(call == UNKNOWN for turn in steps or () for step in turn for call in step)
        if record.id not in results.by_id:
            verdicts[record.id] = Verdict(False, MISSING)
        elif steps is None:
            verdicts[record.id] = Verdict(False, NO_LIST, "the result is no list of lists")
        else:
            verdicts[record.id] = judged(package, world_data(record), steps)
    notes = _notes(results.twice, others, verdicts, not_run)
    told = {
        name: {SCORER: {"valid": one.valid, "kind": one.kind, "words": one.words}} for name, one in verdicts.items()
    }
    return Score("BFCL multi-turn", _figures(records, verdicts), notes, told)


def _steps(result: Any, known: Collection[str]) -> list[list[list[str]]] | None:
    """Calls that can be run, by request and step; None for a result of another shape."""
    if not isinstance(result, list) or not all(isinstance(turn, list) for turn in result):
        return None
    return [[[runnable(call, known) for call in decoded(step)] for step in turn] for turn in result]


def _figures(records: Sequence[Record], verdicts: Mapping[str, Verdict]) -> tuple[Figure, ...]:
    found = []
    groups = {f"{_PREFIX}{name}": [one for one in records if one.set == name] for name in SETS}
    groups["all"] = list(records)
    groups |= {f"{split} half": [one for one in records if one.split == split] for split in ("train", "test")}
    for name, group in groups.items():
        right = sum(verdicts[record.id].valid for record in group)
        missing = sum(verdicts[record.id].kind == MISSING for record in group)
        note = f"{missing} have no result and count as wrong" if missing else ""
        if group:
            found.append(Figure(name, SCORER, right, len(group), note))
    return tuple(found)


def _notes(
    twice: Sequence[str], others: Sequence[str], verdicts: Mapping[str, Verdict], not_run: int
) -> tuple[str, ...]:
    found = []
    if twice:
        found.append(f"{len(twice)} ids came twice, the last one counts: {_few(twice)}.")
    if others:
        found.append(f"{len(others)} ids are none of the records, and count for nothing: {_few(others)}.")
    broken = [name for name, verdict in verdicts.items() if verdict.kind == NO_LIST]
    if broken:
        found.append(f"{len(broken)} results are no list of lists: {_few(broken)}.")
    if not_run:
        found.append(
            f"{not_run} calls are of no function of their record, or hold more than data; each counts as failed."
        )
    return tuple(found)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", .." if len(names) > 5 else "")
