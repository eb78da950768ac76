"""GTA's own files: `dataset.json` (a record a task: its tools, images, recorded dialog, answer) and `toolmeta.json`.

Records are typed and frozen, in the file's order. Whatever is odd is a `Problem` of the data, and what cannot be read
as a record is left out of it; a record keeps its position among all that the file has, because files of predictions
number records by it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.suites.gta.record_problems import problems_of
from regrpo_jax.suites.gta.record_types import (
    Answer,
    DialogTurn,
    GtaData,
    GtaRecord,
    RecordFile,
    ToolCall,
    ToolDescription,
    ToolParameter,
    ToolResult,
)
from regrpo_jax.suites.json_text import parsed
from regrpo_jax.suites.problems import Problem

FILE, TOOLS_FILE = "dataset.json", "toolmeta.json"
MALFORMED, DUPLICATE = "malformed record", "duplicate key"


class Malformed(Exception):
    """A part of a record that cannot be read; the message names the key."""


def read_gta(folder: Path) -> GtaData:
    """All of a folder's records.

    Raises:
      UserError: there is no dataset file, or it is no JSON object.
    """
    path = dataset_file(folder)
    told, twice = _json_object(path)
    problems = [Problem(DUPLICATE, f"{path.name}: {place}", "the last one counts") for place in twice]
    records = []
    for position, (name, one) in enumerate(told.items()):
        try:
            records.append(record_of(name, one, position))
        except Malformed as error:
            problems.append(Problem(MALFORMED, f"record {name}", str(error)))
    if not records:
        raise UserError(f"{path}: holds no record that can be read; name the folder of GTA's {FILE}")
    described, odd = _described_tools(folder / TOOLS_FILE)
    problems += odd
    for record in records:
        problems += problems_of(record, folder, described)
    return GtaData(path, tuple(records), len(told), described, tuple(problems))


def dataset_file(folder: Path) -> Path:
    """`dataset.json`, else the only `dataset*.json`. UserError where there is none, or there are several."""
    if (folder / FILE).is_file():
        return folder / FILE
    found = sorted(path for path in folder.glob("dataset*.json") if path.is_file())
    if len(found) == 1:
        return found[0]
    there = f"there are {', '.join(path.name for path in found)}" if found else "there is no dataset*.json either"
    raise UserError(f"{folder}: has no {FILE}, and {there}; config.suite.path names the folder of GTA's files")


def record_of(name: str, told: Any, position: int) -> GtaRecord:
    """A record from its JSON. Malformed naming the key."""
    told = _object(told, "the record")
    return GtaRecord(
        id=name,
        position=position,
        tools=tuple(_tool(tool, f'"tools"[{place}]') for place, tool in enumerate(_list(told, "tools"))),
        files=tuple(_file(file, f'"files"[{place}]') for place, file in enumerate(_list(told, "files"))),
        dialog=_dialog(_list(told, "dialogs")),
        answer=_answer(told),
    )


def _json_object(path: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    try:
        found, twice = parsed(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise UserError(f"{path}: is no JSON ({error}); get the file anew") from error
    if not isinstance(found, dict):
        raise UserError(f"{path}: must be a JSON object of records by id, not {type(found).__name__}")
    return found, twice


def _described_tools(path: Path) -> tuple[dict[str, ToolDescription], list[Problem]]:
    """What `toolmeta.json` says; none where the file is missing, as a problem."""
    if not path.is_file():
        return {}, [Problem("missing file", path.name, "tools are as each record describes them")]
    told, twice = _json_object(path)
    problems = [Problem(DUPLICATE, f"{path.name}: {place}", "the last one counts") for place in twice]
    tools = {}
    for name, tool in told.items():
        try:
            tools[name] = _tool(tool, f'"{name}"')
        except Malformed as error:
            problems.append(Problem("malformed tool", f"{path.name}: {name}", str(error)))
    return tools, problems


def _dialog(turns: list[Any]) -> tuple[DialogTurn, ...]:
    found = tuple(_turn(turn, f'"dialogs"[{place}]') for place, turn in enumerate(turns))
    if not found or found[0].role != "user":
        raise Malformed('"dialogs" must begin with a turn of the user')
    return found


def _turn(told: Any, place: str) -> DialogTurn:
    told = _object(told, place)
    role, content = told.get("role"), told.get("content")
    if role not in ("user", "assistant", "tool"):
        raise Malformed(f'{place}: "role" is {role!r}; it must be user, assistant or tool')
    if role == "user" and not isinstance(content, str):
        raise Malformed(f'{place}: "content" of the user must be text, not {type(content).__name__}')
    if role != "tool" and not isinstance(content, str | None):
        raise Malformed(f'{place}: "content" must be text or missing, not {type(content).__name__}')
    thought = told.get("thought")
    return DialogTurn(
        role=role,
        content=content if role != "tool" else None,
        thought=thought if isinstance(thought, str) else None,
        calls=_calls(told, place) if "tool_calls" in told else (),
        name=str(told.get("name", "")),
        result=_result(content, place) if role == "tool" else None,
        error=None if told.get("error") is None else json.dumps(told["error"], ensure_ascii=False),
        told=told,
    )


def _calls(told: Mapping[str, Any], place: str) -> tuple[ToolCall, ...]:
    calls = []
    for number, call in enumerate(_list(told, "tool_calls", place)):
        function = _object(_object(call, f'{place} "tool_calls"[{number}]').get("function"), f'{place} "function"')
        name, arguments = function.get("name"), function.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, Mapping):
            raise Malformed(f'{place} "tool_calls"[{number}]: must have a "name" and an object of "arguments"')
        calls.append(ToolCall(name, arguments))
    if not calls:
        raise Malformed(f'{place}: "tool_calls" is empty')
    return tuple(calls)


def _result(content: Any, place: str) -> ToolResult:
    """What a tool gave: `{"type", "content"}`, or a bare text."""
    if isinstance(content, str):
        return ToolResult("text", content)
    if (
        isinstance(content, Mapping)
        and isinstance(content.get("type"), str)
        and isinstance(content.get("content"), str)
    ):
        return ToolResult(content["type"], content["content"])
    raise Malformed(f'{place}: "content" of a tool must be text or {{"type", "content"}}')


def _answer(told: Mapping[str, Any]) -> Answer:
    if "gt_answer" not in told:
        raise Malformed('"gt_answer" is missing')
    answer = told["gt_answer"]
    if answer is None:
        return Answer()
    if isinstance(answer, list):
        return Answer(references=_texts(answer, '"gt_answer"'))
    if not isinstance(answer, Mapping):
        raise Malformed(f'"gt_answer" must be an object, a list or null, not {type(answer).__name__}')
    return Answer(
        whitelist=_groups(answer.get("whitelist"), '"whitelist"'),
        blacklist=_groups(answer.get("blacklist") or [], '"blacklist"'),
        objective=True,
    )


def _groups(told: Any, place: str) -> tuple[tuple[str, ...], ...]:
    if not isinstance(told, list):
        raise Malformed(f"{place} must be a list of lists of texts")
    return tuple(_texts(group, place) for group in told)


def _texts(told: Any, place: str) -> tuple[str, ...]:
    if not isinstance(told, list) or not all(isinstance(one, str) for one in told):
        raise Malformed(f"{place} must be made of lists of texts")
    return tuple(told)


def _tool(told: Any, place: str) -> ToolDescription:
    told = _object(told, place)
    name = told.get("name")
    if not isinstance(name, str) or not name:
        raise Malformed(f'{place}: "name" is {name!r}; it must be a text')
    return ToolDescription(
        name,
        str(told.get("description") or ""),
        tuple(_parameter(one, place) for one in _list(told, "inputs", place, needed=False)),
        tuple(_parameter(one, place) for one in _list(told, "outputs", place, needed=False)),
    )


def _parameter(told: Any, place: str) -> ToolParameter:
    told = _object(told, place)
    return ToolParameter(
        str(told.get("name") or ""),
        str(told.get("type") or ""),
        str(told.get("description") or ""),
        bool(told.get("optional")),
        told.get("default"),
    )


def _file(told: Any, place: str) -> RecordFile:
    told = _object(told, place)
    path = told.get("path")
    if not isinstance(path, str) or not path:
        raise Malformed(f'{place}: "path" is {path!r}; it must be a text')
    return RecordFile(str(told.get("type") or ""), path, str(told.get("url") or ""))


def _object(told: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(told, Mapping):
        raise Malformed(f"{place} must be an object, not {type(told).__name__}")
    return told


def _list(told: Mapping[str, Any], key: str, place: str = "", *, needed: bool = True) -> list[Any]:
    value = told.get(key)
    if value is None and not needed:
        return []
    if not isinstance(value, list):
        before = f"{place}: " if place else ""
        raise Malformed(f'{before}"{key}" must be a list, not {type(value).__name__ if key in told else "missing"}')
    return value
