"""When two calls of a tool are the same call, however they are written.

A recording answers a call that is equal after this: spaces and letters' case, a box as text or numbers, code with or
without its fence, a default that is told or left out, and where a picture lies make no difference. A picture of the
record may be named without folder or ending (a gold call asks for `/image/image_447.png`, which is
`image/image_447.jpg`); one that a tool made is known by that tool.
"""

from __future__ import annotations

import ast
import json
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from regrpo_jax.records.syntax import syntax_tree
from regrpo_jax.suites.gta.record_types import IMAGE, ToolDescription

_FENCED = re.compile(r"\s*```[^\n]*\n(.*?)```\s*\Z", re.DOTALL)
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def picture_stem(name: object) -> str:
    """A picture's name without folders and ending, in small letters."""
    return PurePosixPath(str(name).replace("\\", "/")).stem.casefold()


@dataclass(frozen=True)
class Pictures:
    """The pictures that a call may name.

    files: paths of the record's own. made: stem of one that a tool made -> that tool's name.
    """

    files: Sequence[str]
    made: dict[str, str] = field(default_factory=dict)


def known_file(name: object, files: Sequence[str]) -> str | None:
    """Which of the files is meant: the same path, else the only one of that name, else the only one of that stem."""
    asked = PurePosixPath(str(name).replace("\\", "/"))
    path = str(asked).lstrip("/")
    if path in files:
        return path
    for part in (lambda one: one.name.casefold(), lambda one: one.stem.casefold()):
        near = [file for file in files if part(PurePosixPath(file)) == part(asked)]
        if len(near) == 1:
            return near[0]
    return None


def call_key(tool: ToolDescription, arguments: Mapping[str, Any], pictures: Pictures) -> str:
    """A text that is the same for equal calls of the tool. arguments: by name."""
    declared = {parameter.name: parameter for parameter in tool.inputs}
    kept: dict[str, Any] = {}
    for name, value in arguments.items():
        parameter = declared.get(name)
        kind = parameter.type if parameter else ""
        plain = _plain(name, kind, value, pictures)
        optional = parameter is not None and parameter.optional
        default = parameter.default if parameter else None
        if not (optional and (value is None or plain == _plain(name, kind, default, pictures))):
            kept[name] = plain
    return json.dumps([tool.name, kept], sort_keys=True, ensure_ascii=False)


def _plain(name: str, kind: str, value: Any, pictures: Pictures) -> Any:
    if kind == IMAGE:
        stem = picture_stem(value)
        if stem in pictures.made:
            return ["made by", pictures.made[stem]]
        return known_file(value, pictures.files) or str(value)
    if kind in ("int", "float"):
        return _number(value)
    if kind == "bool":
        return _truth(value)
    return _BY_NAME.get(name, _words)(value)


def _number(value: Any) -> Any:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return _words(value)


def _truth(value: Any) -> Any:
    words = _words(value)
    return True if words in _TRUE else False if words in _FALSE else words


def _words(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _numbers(value: Any) -> Any:
    """Those of a box or a position; letters such as "mb" where there are none."""
    found = [float(number) for number in _NUMBER.findall(str(value))]
    return found or _words(value)


def _expression(value: Any) -> str:
    return re.sub(r"\s+", "", _words(value))


def _code(value: Any) -> str:
    """The code's syntax tree; its lines without trailing spaces where it is no Python."""
    text = str(value)
    fenced = _FENCED.match(text)
    code = fenced.group(1) if fenced else text
    try:
        return ast.dump(syntax_tree(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return "\n".join(line.rstrip() for line in code.strip().splitlines())


# GTA's names of arguments whose texts are no prose.
_BY_NAME: Mapping[str, Callable[[Any], Any]] = {
    "bbox": _numbers,
    "position": _numbers,
    "expression": _expression,
    "command": _code,
}
