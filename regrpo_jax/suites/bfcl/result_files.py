"""BFCL's result files: a line of JSON for each record, {"id": .., "result": [[step, ..] of each request]}.

A step is what the model said; as we write it, a list of calls in Python's words, which is how the authors prompt
for them. What a model says at the end of a request is no list of calls, and counts for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.records.actions import FINAL_ANSWER
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.suites.benchmark import PlayedTask
from regrpo_jax.suites.bfcl.answer import told_answer


@dataclass
class Results:
    """By id, what files say; twice: ids that came again (the last one counts)."""

    by_id: dict[str, Any] = field(default_factory=dict)
    twice: list[str] = field(default_factory=list)


def write_results(played: Sequence[PlayedTask], path: Path) -> None:
    """Write what was played, in the given order."""
    lines = [json.dumps({"id": one.id, "result": result_of(one)}, ensure_ascii=False) for one in played]
    replace_text(path, "".join(f"{line}\n" for line in lines))


def result_of(played: PlayedTask) -> list[list[str]]:
    """Steps by request, one call a step.

    Of an episode that was answered the world tells every call as it was made. One that broke off has told none, so
    that the calls are those of its turns, whose long arguments are cut; the checker takes it for cut short anyway,
    unless it came to the last request.
    """
    told = told_answer(played.answer).get("calls")
    if told is not None:
        return [[f"[{call}]" for call in turn] for turn in told]
    found: list[list[str]] = [[]]
    for turn in played.turns:
        for call in turn.calls:
            if call.name != FINAL_ANSWER:
                found[-1].append(f"[{call.name}({call.arguments})]")
            else:
                found.append([])
    return found


def read_results(paths: Sequence[Path]) -> Results:
    """What the files say together. UserError naming file and line."""
    results = Results()
    for path in paths:
        try:
            lines = path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: cannot be read: {error}") from error
        for number, line in enumerate(lines, 1):
            if line.strip():
                _take(results, line, f"{path}, line {number}")
    return results


def _take(results: Results, line: str, place: str) -> None:
    try:
        told = json.loads(line)
        name, result = told["id"], told["result"]
    except (ValueError, KeyError, TypeError) as error:
        words = f"{type(error).__name__}: {error}"
        raise UserError(f'{place}: no line of a BFCL result file, {{"id": .., "result": ..}} ({words})') from error
    if not isinstance(name, str):
        raise UserError(f'{place}: "id" is {name!r}; it must be a text')
    if name in results.by_id:
        results.twice.append(name)
    results.by_id[name] = result
