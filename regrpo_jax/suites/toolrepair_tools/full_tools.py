"""Tools that the full profile has beside the toolbox's own.

Documents lie in the workspace, for the task gives them to the policy. A register that is only looked up in and what
became of figures are behind the tools (`toolbox.behind`).
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.document_tools import document_text
from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.files import existing_file, quoted
from regrpo_jax.toolbox.signatures import CheckedTool

APPROVALS = "approvals.json"  # version -> what became of it
_FILE = {"type": "string", "description": "name of the file"}
_REGISTER = {"type": "string", "description": "name of the register"}


class FindLines(CheckedTool):
    name = "find_lines"
    description = "The lines of a document (txt, csv, json, html, xlsx, docx, pdf) that hold the given words."
    inputs = {"file_path": _FILE, "words": {"type": "string", "description": "words, in any order"}}
    output_type = "string"

    def warm_up(self) -> None:
        import markitdown  # noqa: F401  (a second of imports)

    def forward(self, file_path: str, words: str) -> str:
        wanted = words.casefold().split()
        lines = document_text(existing_file(file_path), file_path).splitlines()
        found = [line.strip() for line in lines if all(word in line.casefold() for word in wanted)]
        if not found:
            raise EmptyResult(f'No line of "{file_path}" has the words "{words}".')
        return "\n".join(found)


class JsonValue(CheckedTool):
    name = "json_value"
    description = 'A value of a JSON file by its path of keys, such as "staff.Ann.pay".'
    inputs = {"file_path": _FILE, "path": {"type": "string", "description": "keys, with dots between"}}
    output_type = "string"

    def forward(self, file_path: str, path: str) -> str:
        try:
            value: Any = json.loads(existing_file(file_path).read_text(encoding="utf-8"))
        except ValueError as error:
            raise ToolError(f'"{file_path}" is no JSON: {error}.') from error
        for key in path.split("."):
            if not isinstance(value, dict) or key not in value:
                known = f"Keys here: {quoted(list(value))}." if isinstance(value, dict) else "There are no keys here."
                raise ToolError(f'No key "{key}" of "{path}" in "{file_path}". {known}')
            value = value[key]
        return value if isinstance(value, str) else json.dumps(value)


class Lookup(CheckedTool):
    name = "lookup"
    description = "The row of a csv register whose first column is the key, as `column: value` lines."
    inputs = {"file_path": _REGISTER, "key": {"type": "string", "description": "what the first column holds"}}
    output_type = "string"

    def forward(self, file_path: str, key: str) -> str:
        content = behind.read(file_path)
        if content is None:
            known = [name for name in behind.names() if name.endswith(".csv")]
            raise ToolError(f'There is no register "{file_path}". Registers: {quoted(known) or "none"}.')
        header, *rows = list(csv.reader(io.StringIO(content.decode("utf-8"), newline=""))) or [[]]
        found = [row for row in rows if row and row[0] == key]
        if not found:
            raise EmptyResult(f'No results found for "{key}". Keys: {quoted([row[0] for row in rows if row])}.')
        return "\n".join(f"{name}: {value}" for name, value in zip(header, found[0], strict=False))


class SubmitFigure(CheckedTool):
    name = "submit_figure"
    description = "Submits one figure, a number, as the approved one."
    inputs = {"figure": {"type": "string", "description": "the figure"}}
    output_type = "string"
    done = "Submitted"

    def forward(self, figure: str) -> str:
        if not figure.replace(".", "", 1).isdigit():
            told = json.loads(behind.read(APPROVALS) or b"{}")
            told = " ".join(f"Version {version} was {outcome}." for version, outcome in told.items())
            raise ToolError(f'Not {self.done.lower()}: "{figure}" does not commit to one figure. {told}'.rstrip())
        return f"{self.done}: {figure}"


class SignOff(SubmitFigure):
    name = "sign_off"
    description = "Signs one figure off, a number."
    done = "Signed"
