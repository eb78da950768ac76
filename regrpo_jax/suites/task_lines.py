"""A person's own task, as a line of JSON or a mapping of Python says it, checked key by key.

id           text, unique
instruction  what is asked
answer       the right answer: text, number, or a list for "set" and "one_of"; not needed where `check` is a function
check        "exact" (default for text), "number" (default for numbers), "set" (default for lists), "one_of",
             "contains", or "package.module:function", called on the host as function(answer, workspace)
tolerance    of a number, absolute
unit         of a number
files        names in the workspace, found beside the line's file under the same names; or name -> other path
images       those of the files that the policy is shown
split        "train", "validation", "test" or "held_out"; without it a hash of the id deals 7 : 1 : 2
tools        names; all of the suite's without it
family       what the report groups by
steps        a script that solves the task, for the data engine alone: a list of {"thought", "code"}, or of codes
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.task import ONE_WAY, OracleStep, Task, TaskFile
from regrpo_jax.errors import UserError
from regrpo_jax.suites.suite import SPLITS

KEYS = ("id", "instruction", "answer", "check", "tolerance", "unit", "files", "images", "split", "tools", "family",
        "steps")  # fmt: skip
_KINDS = tuple(map(str, CheckKind))
Read = Callable[[str], bytes]


def task_of(told: Mapping[str, Any], read: Read, suite: str) -> Task:
    """The task.

    Args:
      read: the content of a file by its path. UserError when it is not there.
      suite: its name, for the task's metadata.
    Raises:
      UserError: naming the key that is wrong.
    """
    if not isinstance(told, Mapping):
        raise UserError(f"a task is an object with the keys {', '.join(KEYS)}, not {type(told).__name__}")
    for key in told:
        if key not in KEYS:
            near = difflib.get_close_matches(str(key), KEYS, n=1)
            raise UserError(f'unknown key "{key}"{f"; did you mean {near[0]!r}?" if near else ""}')
    name = _text(told, "id")
    split = told.get("split", _dealt(name))
    if split not in SPLITS:
        raise UserError(f'"split" is {split!r}; choose one of {", ".join(SPLITS)}')
    return Task(
        id=name,
        family=_text(told, "family", "task"),
        split=split,
        instruction=_text(told, "instruction"),
        checker=checker_of(told),
        files=_files(told, read),
        images=_texts(told, "images"),
        tools=_texts(told, "tools"),
        oracle=_steps(told),
        seed=int(hashlib.sha256(name.encode()).hexdigest()[:8], 16),
        metadata={"suite": suite, ONE_WAY: True},
    )


def checker_of(told: Mapping[str, Any]) -> AnswerChecker:
    """How the answer is checked. UserError for an answer that does not fit its check."""
    check, answer = told.get("check"), told.get("answer")
    if isinstance(check, str) and ":" in check:
        return AnswerChecker(CheckKind.FUNCTION, check)
    if answer is None:
        raise UserError('"answer" is missing; without one, "check" must be a "package.module:function"')
    if not isinstance(answer, str | int | float | list) or isinstance(answer, bool):
        raise UserError(f'"answer" is {answer!r}; it must be text, a number or a list of these')
    kind = check or ("set" if isinstance(answer, list) else "exact" if isinstance(answer, str) else "number")
    if kind not in _KINDS or kind == CheckKind.FUNCTION:
        known = ", ".join(one for one in _KINDS if one != CheckKind.FUNCTION)
        raise UserError(f'"check" is {check!r}; choose {known} or "package.module:function"')
    tolerance = told.get("tolerance", 0.0)
    if not isinstance(tolerance, int | float) or isinstance(tolerance, bool):
        raise UserError(f'"tolerance" is {tolerance!r}; it must be a number')
    return AnswerChecker(
        CheckKind(kind), tuple(answer) if isinstance(answer, list) else answer, tolerance, _text(told, "unit", "")
    )


def _dealt(name: str) -> str:
    """The same for the same id, whatever other tasks there are."""
    place = int(hashlib.sha256(name.encode()).hexdigest(), 16) % 10
    return "test" if place < 2 else "validation" if place == 2 else "train"


def _text(told: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = told.get(key, default)
    if value is None:
        raise UserError(f'"{key}" is missing')
    if isinstance(value, int) and not isinstance(value, bool) and key == "id":
        return str(value)
    if not isinstance(value, str) or not (value.strip() or default == ""):
        raise UserError(f'"{key}" is {value!r}; it must be a text that is not empty')
    return value


def _texts(told: Mapping[str, Any], key: str) -> tuple[str, ...]:
    values = told.get(key, [])
    if not isinstance(values, list | tuple) or not all(isinstance(value, str) and value for value in values):
        raise UserError(f'"{key}" is {values!r}; it must be a list of texts')
    return tuple(values)


def _files(told: Mapping[str, Any], read: Read) -> tuple[TaskFile, ...]:
    files = told.get("files", [])
    named = dict(files) if isinstance(files, Mapping) else {name: name for name in _texts(told, "files")}
    for image in _texts(told, "images"):
        named.setdefault(image, image)
    for name, path in named.items():
        parts = str(name).split("/")
        if not isinstance(path, str) or name.startswith("/") or "\\" in name or {"", ".", ".."} & set(parts):
            raise UserError(f'"files" has {name!r}; a name in the workspace is relative and stays inside it')
    return tuple(TaskFile(name, read(path)) for name, path in named.items())


def _steps(told: Mapping[str, Any]) -> tuple[OracleStep, ...]:
    steps = told.get("steps", [])
    if not isinstance(steps, Sequence) or isinstance(steps, str):
        raise UserError('"steps" must be a list of codes, or of {"thought", "code"}')
    found = []
    for number, step in enumerate(steps):
        plain = {"code": step} if isinstance(step, str) else step
        if not isinstance(plain, Mapping) or not isinstance(plain.get("code"), str) or set(plain) - {"thought", "code"}:
            raise UserError(f'"steps"[{number}] must be a code, or {{"thought", "code"}}')
        found.append(OracleStep(str(plain.get("thought", "next step.")), plain["code"]))
    if found and "final_answer" not in found[-1].code:
        raise UserError('the last of "steps" must call final_answer')
    return tuple(found)
