"""GTA's 60 records, and predictions for them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("gta_data")


def dataset() -> dict[str, Any]:
    """The 60 records, by id."""
    return json.loads(gzip.decompress((DATA / "dataset.subset.json.gz").read_bytes()))


def folder(place: Path, records: dict[str, Any] | None = None) -> Path:
    """A folder of GTA's files without images."""
    place.mkdir(parents=True, exist_ok=True)
    (place / "dataset.json").write_text(json.dumps(dataset() if records is None else records))
    (place / "toolmeta.json").write_bytes((DATA / "toolmeta.json").read_bytes())
    return place


def gold_entries(records: dict[str, Any], *, steps: bool) -> dict[str, Any]:
    """A file of predictions that repeats what is recorded, as GTA's programs write it: numbered from 0."""
    entries = {}
    for number, record in enumerate(records.values()):
        dialog = record["dialogs"]
        own = [place for place, turn in enumerate(dialog) if turn["role"] == "assistant"]
        if steps:
            turns = [dialog[place] for place in own]
            entry = {"gold": turns, "prediction": turns, "origin_prompt": [dialog[:place] for place in own]}
        else:
            entry = {"gold": [dialog[1:]], "prediction": [dialog[1:]], "origin_prompt": [dialog[0]["content"]]}
        entries[str(number)] = json.loads(json.dumps(entry))
    return entries


def written(path: Path, entries: Any) -> Path:
    """The entries as a file."""
    path.write_text(json.dumps(entries), encoding="utf-8")
    return path


def call(name: str, **arguments: Any) -> dict[str, Any]:
    """A turn that calls a tool."""
    function = {"name": name, "arguments": arguments}
    return {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]}


def answer(text: Any) -> dict[str, Any]:
    """A turn that answers."""
    return {"role": "assistant", "content": text}


def result(name: str, text: str) -> dict[str, Any]:
    """What a tool gave."""
    return {"role": "tool", "name": name, "content": {"type": "text", "content": text}}


def record(*turns: dict[str, Any], right: Any, files: tuple[str, ...] = ("image/image_1.jpg",)) -> dict[str, Any]:
    """An invented record in GTA's format, with GTA's own description of its tools."""
    described = json.loads((DATA / "toolmeta.json").read_bytes())
    names = {one["function"]["name"] for turn in turns for one in turn.get("tool_calls", [])}
    return {
        "tools": [described[name] for name in sorted(names) if name in described],
        "files": [{"type": "image", "path": path, "url": None} for path in files],
        "dialogs": list(turns),
        "gt_answer": right,
    }


def asked(text: str) -> dict[str, Any]:
    """A turn of the user."""
    return {"role": "user", "content": text}


def whitelist(*groups: list[str], blacklist: list[list[str]] | None = None) -> dict[str, Any]:
    """The right answer of an objective record."""
    return {"whitelist": list(groups), "blacklist": blacklist}
