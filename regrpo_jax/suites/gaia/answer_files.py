"""Files of answers as GAIA's leaderboard takes them: a line of JSON a question, with `task_id` and `model_answer`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.records.text_files import replace_text
from regrpo_jax.suites.problems import Problem

MALFORMED, UNKNOWN, DUPLICATE = "malformed line", "answer for an unknown id", "duplicate id"
NO_TEXT = "answer that is no text"


def read_answers(paths: Sequence[Path], known: Iterable[str]) -> tuple[dict[str, str | None], list[Problem]]:
    """Answers by id, of several files together; None for a null. Numbers are taken as Python writes them.

    UserError for a file that cannot be read, or none of whose lines is an answer.
    """
    answers: dict[str, str | None] = {}
    problems: list[Problem] = []
    ids = set(known)
    for path in paths:
        lines = _lines(path)
        read = 0
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            place = f"{path.name}, line {number}"
            try:
                name, answer = _told(line)
            except ValueError as error:
                problems.append(Problem(MALFORMED, place, str(error)))
                continue
            read += 1
            if name not in ids:
                problems.append(Problem(UNKNOWN, place, repr(name[:80])))
                continue
            if name in answers:
                problems.append(Problem(DUPLICATE, place, f"{name}; the last one counts"))
            if not isinstance(answer, str | None):
                problems.append(Problem(NO_TEXT, name, f"{str(answer)[:40]!r} is taken as text"))
            answers[name] = answer if isinstance(answer, str | None) else str(answer)
        if not read:
            raise UserError(
                f'{path}: has no line with "task_id" and "model_answer"; GAIA\'s leaderboard takes a JSON object a line'
            )
    return answers, problems


def write_answers(answers: Sequence[tuple[str, str | None, str]], path: Path) -> None:
    """Lines of (id, answer, what led to it)."""
    lines = [
        json.dumps({"task_id": name, "model_answer": answer, "reasoning_trace": trace}, ensure_ascii=False)
        for name, answer, trace in answers
    ]
    replace_text(path, "".join(f"{line}\n" for line in lines).encode("utf-8", "replace").decode("utf-8"))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_bytes().decode("utf-8-sig", "replace").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


def _told(line: str) -> tuple[str, Any]:
    try:
        told = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"is no JSON ({error})") from error
    if not isinstance(told, Mapping):
        raise ValueError("is no JSON object")
    name = told.get("task_id")
    if not isinstance(name, str):
        raise ValueError('"task_id" is missing, or no text')
    if "model_answer" not in told:
        raise ValueError('"model_answer" is missing')
    return name, told["model_answer"]
