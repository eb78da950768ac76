"""The functions of the package's classes, as its documents describe them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.suites.bfcl.package import BACKEND, DOCUMENTS, imported

_KINDS = {
    "string": "string", "integer": "integer", "float": "number", "number": "number", "boolean": "boolean",
    "array": "array", "tuple": "array", "dict": "object", "object": "object",
}  # fmt: skip
_HEADING = "Tool description: "  # before it stands what the class is for, the same for each of its functions


@dataclass(frozen=True)
class Function:
    """A function of a class. inputs: as smolagents' tools have them, "default" beside "nullable" where one is told."""

    name: str
    owner: str
    description: str
    inputs: Mapping[str, Mapping[str, Any]]


def functions_of(package: Path, classes: Sequence[str]) -> dict[str, Function]:
    """All functions of the classes by name. UserError for a class without a document, and two of one name."""
    files: Mapping[str, str] = imported(package, BACKEND).MULTI_TURN_FUNC_DOC_FILE_MAPPING
    found: dict[str, Function] = {}
    for owner in classes:
        if owner not in files:
            raise UserError(f"{package}: no document describes the class {owner}; there are {', '.join(files)}")
        for function in _described(package / DOCUMENTS / files[owner], owner):
            if function.name in found:
                other = found[function.name].owner
                raise UserError(f"{package}: {other} and {owner} both have a function {function.name}")
            found[function.name] = function
    return found


def _described(path: Path, owner: str) -> list[Function]:
    try:
        told = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
        return [_function(one, owner) for one in told]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no list of functions, one a line: {type(error).__name__}: {error}") from error


def _function(told: Mapping[str, Any], owner: str) -> Function:
    parameters, needed = told["parameters"]["properties"], told["parameters"].get("required", [])
    description = str(told["description"]).rpartition(_HEADING)[2]
    inputs = {name: _input(declared, name in needed) for name, declared in parameters.items()}
    return Function(str(told["name"]), owner, description, inputs)


def _input(declared: Mapping[str, Any], needed: bool) -> dict[str, Any]:
    found = {"type": _KINDS.get(declared["type"], "any"), "description": str(declared.get("description", ""))}
    return found if needed else found | {"nullable": True, "default": declared.get("default")}
