"""Which files the code of a trajectory needs, which it makes, and which of its texts only look like a file's name.

A file is needed where code reads it: as an argument of a tool that is about a file, or of a function that opens one.
Numbers, addresses and questions are no files, and neither is what the code writes before it reads it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from regrpo_jax.engine.cases import ToolShape
from regrpo_jax.engine.perturb.scene import Role, wanted_role
from regrpo_jax.records.actions import parse_python

_NAME = re.compile(r"[^\n<>|*?\"]{1,300}\.(?=[A-Za-z])[A-Za-z0-9]{1,5}\Z")
_OPENING = frozenset(
    ["open", "imread", "load", "loadtxt", "genfromtxt", "load_workbook", "Document", "Presentation", "PdfReader",
     "PdfFileReader", "ZipFile", "read_text", "read_bytes"]
)  # fmt: skip
_READS = re.compile(r"(?:read|load|open)_\w+\Z")
_WRITING = frozenset(
    ["save", "savefig", "imwrite", "imsave", "write_image", "write_text", "write_bytes", "write_html", "savetxt",
     "to_csv", "to_excel", "to_json", "to_html", "to_parquet", "to_pickle", "ExcelWriter", "VideoWriter"]
)  # fmt: skip


@dataclass(frozen=True)
class NamedFiles:
    """Names as the code writes them. said: texts that could be a file's name. read: those that something reads.
    written: those that the code writes."""

    said: tuple[str, ...]
    read: tuple[str, ...]
    written: frozenset[str]


def named_files(code: Sequence[str], tools: Mapping[str, ToolShape]) -> NamedFiles:
    """The files that code names. tools: what their arguments are for decides which of them are files."""
    trees = [tree for tree in map(parse_python, code) if tree is not None]
    values: dict[str, list[str]] = {}
    for tree in trees:
        for node in ast.walk(tree):
            _bind(node, values)
    read, written = dict[str, None](), dict[str, None]()
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                read |= dict.fromkeys(_read_by(node, values, tools))
                written |= dict.fromkeys(_written_by(node, values))
    said = dict.fromkeys(text for tree in trees for text in _texts(tree) if could_be_file(text))
    return NamedFiles(tuple(said), tuple(name for name in read if name not in written), frozenset(written))


def could_be_file(text: str) -> bool:
    """Whether a text has the form of a file's name: an ending that begins with a letter, no address, no sentence."""
    return _NAME.match(text) is not None and "://" not in text and not text.rpartition(".")[0].endswith((" ", "."))


def _texts(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value


def _bind(node: ast.AST, values: dict[str, list[str]]) -> None:
    """Texts that a name may stand for, wherever it gets them."""
    match node:
        case ast.Assign(targets=targets, value=value):
            names = [target.id for target in targets if isinstance(target, ast.Name)]
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            names = [name]
        case ast.For(target=target, iter=value) | ast.comprehension(target=target, iter=value):
            names = [inner.id for inner in ast.walk(target) if isinstance(inner, ast.Name)]
        case _:
            return
    for name in names:
        values.setdefault(name, []).extend(_plain(value, values))


def _plain(node: ast.expr, values: Mapping[str, list[str]]) -> list[str]:
    """Texts that an expression is, or lists, or stands for; none that calls and operations make of others."""
    match node:
        case ast.Constant(value=str() as text):
            return [text]
        case ast.Name(id=name):
            return values.get(name, [])
        case ast.List(elts=parts) | ast.Tuple(elts=parts):
            return [text for part in parts for text in _plain(part, values)]
        case ast.Call(func=ast.Name(id="enumerate" | "zip" | "Path" | "str"), args=parts):
            return [text for part in parts for text in _plain(part, values)]
        case ast.Dict(values=parts):
            return [text for part in parts for text in _plain(part, values)]
    return []


def _called(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _read_by(call: ast.Call, values: Mapping[str, list[str]], tools: Mapping[str, ToolShape]) -> Iterator[str]:
    name = _called(call)
    if name in tools:
        given = _arguments(call, [(one.name, wanted_role(one)) for one in tools[name].arguments])
    elif (name in _OPENING or _READS.match(name)) and not _writes(call):
        owner = [call.func.value] if isinstance(call.func, ast.Attribute) and not call.args else []
        given = [*call.args[:1], *owner]
    else:
        return
    for node in given:
        yield from (text for text in _plain(node, values) if could_be_file(text) or _is_path(text))


def _is_path(text: str) -> bool:
    """Whether it has folders: where a file belongs, a name without an ending is one, too."""
    return "/" in text and "://" not in text and not any(character.isspace() for character in text)


def _arguments(call: ast.Call, declared: Sequence[tuple[str, Role]]) -> Iterable[ast.expr]:
    """Those that are about files."""
    files = {name for name, role in declared if role == Role.FILE}
    places = [name for name, _ in declared]
    yield from (node for at, node in enumerate(call.args) if at < len(places) and places[at] in files)
    yield from (word.value for word in call.keywords if word.arg in files)


def _writes(call: ast.Call) -> bool:
    """Whether `open` opens to write."""
    modes = [*call.args[1:2], *(word.value for word in call.keywords if word.arg == "mode")]
    return any(isinstance(mode, ast.Constant) and set(str(mode.value)) & set("wax") for mode in modes)


def _written_by(call: ast.Call, values: Mapping[str, list[str]]) -> Iterator[str]:
    name = _called(call)
    if name not in _WRITING and not (name == "open" and _writes(call)):
        return
    owner = [call.func.value] if isinstance(call.func, ast.Attribute) else []
    for node in (*call.args, *(word.value for word in call.keywords), *owner):
        yield from (text for text in _plain(node, values) if could_be_file(text))
