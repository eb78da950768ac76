"""Four small tools over a workspace folder, and the executor that runs one action of an agent on them.

The compact corpus must be honest: what stands in an observation is what a tool said about real files. An
action is parsed with `ast` into one call with literal arguments and dispatched; no code of an agent is ever
executed, so there is nothing to sandbox. Anything that keeps a call from reaching a tool is an
`invalid_action`; what a tool cannot do is a `tool_error`.
"""

from __future__ import annotations

import ast
import csv
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from regrpo_jax.engine.compact_cards import COLOURS, colours_in
from regrpo_jax.records.actions import extract_code
from regrpo_jax.records.types import Observation, Status

NOTES_FILE = "notes.txt"  # lines "person, place, year, pay", read by `search`
TEXT_ENDINGS = (".txt", ".md")


@dataclass(frozen=True)
class _Tool:
    """A tool: parameter names, how many of them are required, and the function of (workspace, *arguments)."""

    parameters: tuple[str, ...]
    required: int
    function: Callable[..., Observation]


class _BadAction(Exception):
    """Why an action does not reach a tool; becomes the text of an `invalid_action` observation."""


def _error(text: str) -> Observation:
    return Observation(Status.TOOL_ERROR, f"Error: {text}")


def _quoted(names: list[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _missing_file(workspace: Path, name: str) -> Observation | None:
    # Only names that the folder really lists are opened, so "../x" and absolute paths are simply not there.
    names = sorted(path.name for path in workspace.iterdir() if path.is_file())
    return None if name in names else _error(f'no file "{name}". Files: {_quoted(names)}.')


def inspect_file_as_text(workspace: Path, file_path: str) -> Observation:
    """Read a text file; a missing one lists the files that are there, a table or an image is refused."""
    missing = _missing_file(workspace, file_path)
    if missing is not None:
        return missing
    if not file_path.endswith(TEXT_ENDINGS):
        kind = {".csv": "a table", ".png": "an image"}.get(Path(file_path).suffix, "no text")
        return _error(f'"{file_path}" is {kind}.')
    text = (workspace / file_path).read_text(encoding="utf-8").strip()
    if not text:
        return Observation(Status.EMPTY, f"Get empty content from file {file_path}.")
    return Observation(Status.OK, text)


def visualizer(workspace: Path, image: str, colour: str) -> Observation:
    """Look for the card of a colour in an image, by its pixels, and read its code.

    Codes come from the image's sidecar, the JSON object colour -> code ("card.png" has "card.json").
    """
    missing = _missing_file(workspace, image)
    if missing is not None:
        return missing
    if not image.endswith(".png"):
        return _error(f'"{image}" is no image.')
    if colour not in COLOURS:
        return _error(f'no colour "{colour}". Colours: {_quoted(list(COLOURS))}.')
    with Image.open(workspace / image) as picture:
        found = colours_in(picture)
    if colour not in found:
        return Observation(Status.EMPTY, "No object found.")
    codes = json.loads((workspace / image).with_suffix(".json").read_text(encoding="utf-8"))
    return Observation(Status.OK, f'"{colour}" card, code "{codes[colour]}"')


def table_query(workspace: Path, file: str, key: str) -> Observation:
    """Return the second column of the CSV row whose first column is `key`; the header names the value."""
    missing = _missing_file(workspace, file)
    if missing is not None:
        return missing
    if not file.endswith(".csv"):
        return _error(f'"{file}" is no table.')
    with (workspace / file).open(encoding="utf-8", newline="") as stream:
        header, *rows = list(csv.reader(stream))
    values = [row[1] for row in rows if row[0] == key]
    if not values:
        return Observation(Status.EMPTY, f'No results found for "{key}".')
    return Observation(Status.OK, f'{header[1]} "{values[0]}"')


def search(workspace: Path, name: str, place_or_year: str = "") -> Observation:
    """Find the one line of the notes about a person; several are an error that counts places and years."""
    missing = _missing_file(workspace, NOTES_FILE)
    if missing is not None:
        return missing
    lines = (workspace / NOTES_FILE).read_text(encoding="utf-8").splitlines()
    rows = [row for row in (line.split(", ") for line in lines) if row[0] == name]
    if place_or_year:
        rows = [row for row in rows if place_or_year in row[1:3]]
    if not rows:
        asked = f'"{name}", "{place_or_year}"' if place_or_year else f'"{name}"'
        return Observation(Status.EMPTY, f"No results found for {asked}.")
    if len(rows) == 1:
        return Observation(Status.OK, f'pay "{rows[0][3]}"')
    counts = [pair for column in (1, 2) for pair in sorted(Counter(row[column] for row in rows).items())]
    return _error("ambiguous. " + ", ".join(f'"{label}": {count}' for label, count in counts) + ".")


def final_answer(workspace: Path, answer: str) -> Observation:
    """End the task; the observation repeats the answer (no turn is written for it)."""
    return Observation(Status.OK, answer)


_TOOLS = {
    "inspect_file_as_text": _Tool(("file_path",), 1, inspect_file_as_text),
    "visualizer": _Tool(("image", "colour"), 2, visualizer),
    "table_query": _Tool(("file", "key"), 2, table_query),
    "search": _Tool(("name", "place_or_year"), 1, search),
    "final_answer": _Tool(("answer",), 1, final_answer),
}
TOOL_NAMES = frozenset(_TOOLS)


def execute_action(action: str, workspace: Path) -> Observation:
    """Run an assistant turn (text with one fenced block) against the files of `workspace`.

    Returns what the tool said, or an `invalid_action` observation that says why no tool could be called.
    """
    try:
        name, arguments = _parse_call(extract_code(action))
    except _BadAction as problem:
        return Observation(Status.INVALID_ACTION, f"Error: {problem}.")
    try:
        return _TOOLS[name].function(workspace, *arguments)
    except (OSError, ValueError, LookupError) as problem:  # a damaged file: not an image, no rows, not UTF-8
        return _error(f"{name} cannot read its file ({type(problem).__name__}).")


def _parse_call(code: str) -> tuple[str, tuple[str, ...]]:
    """Read code as one call of a known tool with literal texts: (tool, arguments by parameter)."""
    try:
        statements = ast.parse(code).body
    except (SyntaxError, ValueError) as problem:
        raise _BadAction(f"SyntaxError in line {getattr(problem, 'lineno', 1)}") from problem
    calls = [statement.value for statement in statements if isinstance(statement, ast.Expr)]
    if len(statements) > 1:
        raise _BadAction(f"{len(statements)} statements, give one call")
    if not calls or not isinstance(calls[0], ast.Call):
        raise _BadAction("no tool call")
    return _bind(calls[0])


def _bind(call: ast.Call) -> tuple[str, tuple[str, ...]]:
    name = ast.unparse(call.func)
    if name not in _TOOLS:
        raise _BadAction(f'"{name}" is no tool')
    tool = _TOOLS[name]
    if len(call.args) > len(tool.parameters):
        raise _BadAction(f"TypeError: {name} takes {len(tool.parameters)} arguments, not {len(call.args)}")
    bound = {parameter: _text(node, parameter) for parameter, node in zip(tool.parameters, call.args, strict=False)}
    for keyword in call.keywords:
        if keyword.arg not in tool.parameters or keyword.arg in bound:
            raise _BadAction(f'TypeError: {name} cannot take "{keyword.arg or "**"}" here')
        bound[keyword.arg] = _text(keyword.value, keyword.arg)
    for parameter in tool.parameters[: tool.required]:
        if parameter not in bound:
            raise _BadAction(f'TypeError: {name} misses "{parameter}"')
    return name, tuple(bound.get(parameter, "") for parameter in tool.parameters)


def _text(node: ast.expr, parameter: str) -> str:
    """The text of a literal argument; a bare name is the NameError that running the code would raise."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    root = node
    while isinstance(root, ast.Attribute):
        root = root.value
    if isinstance(root, ast.Name):
        raise _BadAction(f'NameError: "{root.id}" is not defined')
    if isinstance(node, ast.Constant):
        raise _BadAction(f'TypeError: "{parameter}" must be text')
    raise _BadAction(f'"{parameter}" is not a literal')
