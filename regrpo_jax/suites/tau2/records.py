"""The telecom tasks as the package's own files have them.

data/tau2/domains/telecom/tasks.json        a list of tasks, read by the package's own class as well
data/tau2/domains/telecom/split_tasks.json  {"base": [id, ..], "train", "test", "small", "full"}
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.suites.tau2.functions import ASSISTANT, USER, Function, toolkit
from regrpo_jax.suites.tau2.package import DATA, TASKS, imported

TASKS_FILE, SPLITS_FILE = "tasks.json", "split_tasks.json"
SETS = ("base", "small", "full")
HALVES = ("train", "test")
_JUDGED = ("DB", "ENV_ASSERTION", "ACTION")  # what a reward may rest on here
_KIND, _PERSONA = re.compile(r"\[(\w+)\]"), re.compile(r"\[PERSONA:[^\]]*\]$")


@dataclass(frozen=True)
class GoldCall:
    """A call that solves a part of a task. arguments: by name, plain data."""

    name: str
    arguments: Mapping[str, Any]

    @property
    def code(self) -> str:
        """As Python writes it."""
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


@dataclass(frozen=True)
class Record:
    """A task. sets: those of `SETS` that list it. kind: of the user's trouble, the first bracket of the id.

    split: "train" or "test". told: the package's own words.
    """

    id: str
    sets: tuple[str, ...]
    kind: str
    split: str
    ticket: str
    gold: tuple[GoldCall, ...]
    told: Mapping[str, Any]


def read_records(package: Path, functions: Mapping[str, Function]) -> list[Record]:
    """All tasks in the order of the file. UserError naming file, task and what is wrong with it."""
    path = package / DATA / TASKS_FILE
    tasks, splits = _json(path), _splits(package / DATA / SPLITS_FILE)
    if not isinstance(tasks, list) or not tasks:
        raise UserError(f"{path}: a list of tasks is expected, not {type(tasks).__name__} of nothing to play")
    sides = {side: set(dir(toolkit(package, side))) for side in (ASSISTANT, USER)}
    kind = imported(package, TASKS).Task
    found: dict[str, Record] = {}
    for number, told in enumerate(tasks):
        record = _record(told, f"{path}, task {number}", splits, functions)
        if record.id in found:
            raise UserError(f'{path}, task {number}: a second task has the "id" {record.id!r}')
        _check_calls(record, path, sides)
        try:
            kind.model_validate(told)
        except ValueError as error:
            raise UserError(f"{path}, task {record.id!r}: the package cannot read it: {error}") from error
        found[record.id] = record
    _check_splits(package / DATA / SPLITS_FILE, splits, found)
    return list(found.values())


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON: {error}; install the package again") from error


def _splits(path: Path) -> dict[str, set[str]]:
    told = _json(path)
    for name in (*SETS, *HALVES):
        names = told.get(name) if isinstance(told, dict) else None
        if not isinstance(names, list) or not all(isinstance(one, str) for one in names):
            raise UserError(f'{path}: "{name}" must be a list of ids')
    return {name: set(told[name]) for name in (*SETS, *HALVES)}


def _check_splits(path: Path, splits: Mapping[str, Collection[str]], known: Collection[str]) -> None:
    for name, names in splits.items():
        if others := sorted(one for one in names if one not in known):
            raise UserError(f'{path}: "{name}" has {others[0]!r}, which is no task of {TASKS_FILE}')
    if both := sorted(one for one in splits["train"] if one in splits["test"]):
        raise UserError(f'{path}: {both[0]!r} is in "train" and in "test"')


def _record(told: Any, place: str, splits: Mapping[str, Collection[str]], functions: Mapping[str, Function]) -> Record:
    if not isinstance(told, dict) or not isinstance(told.get("id"), str):
        raise UserError(f'{place}: an object with a text "id" is expected')
    name = told["id"]
    place = f"{place} ({name})"
    ticket, criteria = told.get("ticket"), told.get("evaluation_criteria")
    if not isinstance(ticket, str) or not ticket.strip():
        raise UserError(f'{place}: it has no "ticket", without which there is nothing to do when there is no user')
    if not isinstance(criteria, dict) or not isinstance(criteria.get("actions"), list):
        raise UserError(f'{place}: "evaluation_criteria" must be an object with a list of "actions"')
    basis = criteria.get("reward_basis")
    if not isinstance(basis, list) or not basis or not set(map(str, basis)) <= set(_JUDGED):
        raise UserError(f'{place}: "reward_basis" is {basis!r}; what is judged here is {", ".join(_JUDGED)}')
    gold = tuple(_gold(one, place, functions) for one in criteria["actions"])
    sets = tuple(one for one in SETS if name in splits[one])
    half = next((one for one in HALVES if name in splits[one]), "") or _half(name)
    kind = _KIND.match(name)
    return Record(name, sets, kind.group(1) if kind else "", half, ticket, gold, told)


def _half(name: str) -> str:
    """By a hash of the id without the user's character, so that one trouble is on one side."""
    return HALVES[hashlib.sha256(_PERSONA.sub("", name).encode()).digest()[0] % 2]


def _gold(told: Any, place: str, functions: Mapping[str, Function]) -> GoldCall:
    if not isinstance(told, dict) or not isinstance(told.get("arguments"), dict):
        raise UserError(f'{place}: an action must be an object with "name" and "arguments"')
    name, owner = str(told.get("name")), told.get("requestor", ASSISTANT)
    if name not in functions or functions[name].owner != owner:
        there = ", ".join(sorted(key for key, one in functions.items() if one.owner == owner))
        raise UserError(f"{place}: an action calls {name!r}, which is no tool of the {owner}; there are {there}")
    return GoldCall(name, told["arguments"])


def _check_calls(record: Record, path: Path, sides: Mapping[str, Collection[str]]) -> None:
    """UserError where the beginning or an assertion names what its side does not have."""
    begun = (record.told.get("initial_state") or {}).get("initialization_actions") or []
    claims = record.told["evaluation_criteria"].get("env_assertions") or []
    for call in (*begun, *claims):
        side, name = (call.get("env_type"), call.get("func_name")) if isinstance(call, dict) else (None, None)
        if name not in sides.get(str(side), ()):
            raise UserError(f"{path}, task {record.id!r}: there is no {name!r} of the {side}, which it asks for")


def sets_of(families: Sequence[str]) -> tuple[str, ...]:
    """The sets that are named among families; "base" where none is."""
    return tuple(one for one in SETS if one in families) or ("base",)


def chosen_records(records: Sequence[Record], families: Sequence[str], suite: str) -> list[Record]:
    """Those of the named sets ("base" where none is) and kinds (all where none is). UserError for other names."""
    kinds = sorted({record.kind for record in records})
    for family in families:
        if family not in (*SETS, *kinds):
            there = ", ".join((*SETS, *kinds))
            raise UserError(f"config.suite.families has {family!r}; {suite} has the sets and kinds {there}")
    sets = set(sets_of(families))
    wanted = {one for one in families if one in kinds} or set(kinds)
    found = [record for record in records if sets & set(record.sets) and record.kind in wanted]
    if not found:
        raise UserError(f"config.suite.families is {tuple(families)}: no task is in these sets and of these kinds")
    return found
