"""The four multi-turn sets as the package's own files have them: a record a line, and its gold calls in another file.

data/BFCL_v4_multi_turn_base.json                  {"id", "question": a list of messages for each request,
                                                    "initial_config", "involved_classes", "missed_function"?}
data/possible_answer/BFCL_v4_multi_turn_base.json  {"id", "ground_truth": a list of calls for each request}

"miss_func" holds functions back until a request of no words brings them, "miss_param" leaves something unsaid until the
next request, "long_context" loads the classes with more than is needed. The number at the end of an id names the
scenario, which is the same in all four.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError

SETS = ("base", "miss_func", "miss_param", "long_context")
_DATA, _ANSWERS = "data", "data/possible_answer"
_SIZES = ("long_context", "composite")  # in an id: of a set whose classes are loaded with more


@dataclass(frozen=True)
class Record:
    """A record with its gold calls.

    messages: of the user, by request; "" where functions are brought instead. held_back: names of functions by the
    request (from 0) that brings them. gold: calls by request, as Python writes them.
    """

    id: str
    set: str
    messages: tuple[str, ...]
    config: Mapping[str, Any]
    classes: tuple[str, ...]
    held_back: Mapping[int, tuple[str, ...]]
    gold: tuple[tuple[str, ...], ...]

    @property
    def scenario(self) -> str:
        """What the record has in common with those of the other sets."""
        return self.id.rpartition("_")[2]

    @property
    def split(self) -> str:
        """ "train" or "test", by a hash of the scenario, so that all of a scenario are on one side."""
        return "test" if hashlib.sha256(f"multi_turn_{self.scenario}".encode()).digest()[0] % 2 else "train"

    @property
    def long_context(self) -> bool:
        """Whether the classes are loaded with more than is needed."""
        return any(size in self.id for size in _SIZES)


def hidden_files(package: Path) -> tuple[str, ...]:
    """What no worker may read: tasks and answers."""
    found = sorted((package / _DATA).glob("BFCL_*.json"))
    return (str(package / _ANSWERS), *map(str, found))


def read_records(package: Path) -> list[Record]:
    """All records, set by set. UserError naming file, line and key."""
    return [record for name in SETS for record in _of_set(package, name)]


def _of_set(package: Path, name: str) -> list[Record]:
    asked, answered = _file(package / _DATA, name), _file(package / _ANSWERS, name)
    answers: dict[str, Any] = {}
    for place, line in _lines(answered):
        answers[_key(line, "id", str, place)] = _calls(_key(line, "ground_truth", list, place), place)
    found: dict[str, Record] = {}
    for place, line in _lines(asked):
        record = _record(line, name, answers, place)
        if record.id in found:
            raise UserError(f'{place}: a second record has the "id" {record.id!r}')
        found[record.id] = record
    if not found:
        raise UserError(f"{asked}: holds no record")
    return list(found.values())


def _file(folder: Path, name: str) -> Path:
    found = sorted(folder.glob(f"BFCL_*_multi_turn_{name}.json"))
    if len(found) != 1:
        told = f"{len(found)} files" if found else "no file"
        raise UserError(f"{folder}: there is {told} BFCL_*_multi_turn_{name}.json; one is read")
    return found[0]


def _lines(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each object of the file with the words that name its place."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            told = json.loads(line)
        except ValueError as error:
            raise UserError(f"{place}: not JSON: {error}") from error
        if not isinstance(told, dict):
            raise UserError(f"{place}: an object is expected, not {type(told).__name__}")
        yield place, told


def _key(told: Mapping[str, Any], key: str, kind: type, place: str) -> Any:
    if not isinstance(told.get(key), kind):
        raise UserError(f'{place}: "{key}" must be a {kind.__name__}, and is {told.get(key)!r:.80}')
    return told[key]


def _record(told: Mapping[str, Any], name: str, answers: Mapping[str, Any], place: str) -> Record:
    known = _key(told, "id", str, place)
    if known not in answers:
        raise UserError(f"{place}: no ground truth is there for {known!r}")
    messages = tuple(_message(turn, place) for turn in _key(told, "question", list, place))
    held_back = _held_back(told.get("missed_function", {}), place)
    if len(messages) != len(answers[known]):
        raise UserError(f'{place}: "question" has {len(messages)} requests, its ground truth {len(answers[known])}')
    silent = {number for number, message in enumerate(messages) if not message}
    if not messages or 0 in silent or not silent <= set(held_back):
        raise UserError(f"{place}: a request says nothing, and brings no function either")
    classes = _key(told, "involved_classes", list, place)
    config = _key(told, "initial_config", dict, place)
    return Record(known, name, messages, config, tuple(map(str, classes)), held_back, answers[known])


def _message(turn: Any, place: str) -> str:
    if not isinstance(turn, list) or not all(isinstance(one, dict) and "content" in one for one in turn):
        raise UserError(f'{place}: a request in "question" must be a list of messages with "content"')
    return "\n".join(str(one["content"]) for one in turn)


def _held_back(told: Any, place: str) -> dict[int, tuple[str, ...]]:
    if not isinstance(told, dict) or not all(
        str(turn).isdigit() and isinstance(names, list) for turn, names in told.items()
    ):
        raise UserError(f'{place}: "missed_function" must map numbers of requests to lists of names')
    return {int(turn): tuple(map(str, names)) for turn, names in told.items()}


def _calls(told: list[Any], place: str) -> tuple[tuple[str, ...], ...]:
    if not all(isinstance(turn, list) and all(isinstance(call, str) for call in turn) for turn in told):
        raise UserError(f'{place}: "ground_truth" must be a list of lists of calls')
    return tuple(map(tuple, told))
