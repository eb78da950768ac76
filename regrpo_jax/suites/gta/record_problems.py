"""What is odd in a record that can be read: missing files, tools that nobody describes, images from nowhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from regrpo_jax.suites.gta.record_types import IMAGE, GtaRecord, ToolDescription
from regrpo_jax.suites.problems import Problem

MISSING_IMAGE, UNKNOWN_TOOL, FOREIGN_IMAGE = "missing image", "unknown tool", "image that is none of the record's"


def problems_of(record: GtaRecord, folder: Path, described: Mapping[str, ToolDescription]) -> list[Problem]:
    """The odd things of a record. described: of `toolmeta.json`; without any, records describe their own tools."""
    return [
        *_missing_files(record, folder),
        *_unknown_tools(record, described),
        *_foreign_images(record),
    ]


def _missing_files(record: GtaRecord, folder: Path) -> list[Problem]:
    found = []
    for file in record.files:
        place = folder / file.path
        if not place.resolve().is_relative_to(folder.resolve()):
            found.append(Problem(MISSING_IMAGE, f"record {record.id}", f"{file.path} is outside the folder"))
        elif not place.is_file():
            found.append(Problem(MISSING_IMAGE, f"record {record.id}", file.path))
    return found


def _unknown_tools(record: GtaRecord, described: Mapping[str, ToolDescription]) -> list[Problem]:
    own = {tool.name for tool in record.tools}
    called = dict.fromkeys(call.name for turn in record.dialog for call in turn.calls)
    where = f"record {record.id}"
    strange = [name for name in dict.fromkeys((*own, *called)) if described and name not in described]
    undeclared = [name for name in called if name not in own and name not in strange]
    return [
        *(Problem(UNKNOWN_TOOL, where, f"{name} is not in toolmeta.json") for name in sorted(strange)),
        *(Problem(UNKNOWN_TOOL, where, f"{name} is called, but not among its tools") for name in undeclared),
    ]


def _foreign_images(record: GtaRecord) -> list[Problem]:
    """Images that a call names and that are neither a file of the record nor what an earlier tool made."""
    known = {file.path for file in record.files}
    images = {(tool.name, one.name) for tool in record.tools for one in tool.inputs if one.type == IMAGE}
    found: dict[str, Problem] = {}
    for turn in record.dialog:
        if turn.result is not None and turn.result.type == IMAGE:
            known.add(turn.result.content)
        for call in turn.calls:
            for key, value in call.arguments.items():
                if (call.name, key) in images and isinstance(value, str) and value not in known:
                    found.setdefault(value, Problem(FOREIGN_IMAGE, f"record {record.id}", value))
    return list(found.values())
