"""What the tools answered when GTA's dialogs were recorded, so that a tool which is missing here can be replayed.

The recordings of a record go with its task as a file that lies behind the tools: they hold the gold calls, so no action
may read them, and an episode has those of its own record alone.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from regrpo_jax.suites.gta.call_keys import Pictures, call_key, picture_stem
from regrpo_jax.suites.gta.record_types import IMAGE, DialogTurn, GtaRecord, ToolCall, ToolDescription, ToolResult

RECORDINGS_FILE = "gta_recordings.json"
DUMMY = "dummy_generated_image"
"""The name, without its ending, that GTA's dialogs give to every picture that a tool made."""


@dataclass(frozen=True)
class AnsweredCall:
    """A call of the dialog. result: what its tool gave, None for one that nobody answered."""

    call: ToolCall
    result: ToolResult | None


def answered_calls(record: GtaRecord) -> Iterator[tuple[DialogTurn, tuple[AnsweredCall, ...]]]:
    """Each turn of the assistant, with its calls and what they came to; no calls for one that only says something.

    The tools' turns that follow answer the calls in order, by name where the names differ.
    """
    turns = record.dialog
    for place, turn in enumerate(turns):
        if turn.role != "assistant":
            continue
        waiting = []
        for later in turns[place + 1 :]:
            if later.role != "tool":
                break
            waiting.append(later)
        yield turn, tuple(AnsweredCall(call, _taken(waiting, call.name)) for call in turn.calls)


def _taken(waiting: list[DialogTurn], name: str) -> ToolResult | None:
    """The first result of that tool, which is then no other call's."""
    for turn in waiting:
        if turn.name in (name, ""):
            waiting.remove(turn)
            return turn.result
    return None


def recordings_of(record: GtaRecord, described: Mapping[str, ToolDescription]) -> bytes:
    """The file that lies behind the tools of the record's task; b"" where nothing was recorded."""
    pictures = Pictures([file.path for file in record.files])
    found = []
    for _, calls in answered_calls(record):
        for one in calls:
            tool = described.get(one.call.name)
            if one.result is None or tool is None:
                continue
            key = call_key(tool, one.call.arguments, pictures)
            found.append({"key": key, "type": one.result.type, "content": one.result.content})
            if one.result.type == IMAGE:
                pictures.made[picture_stem(one.result.content)] = one.call.name
    told = {"files": pictures.files, "calls": found}
    return json.dumps(told, ensure_ascii=False, sort_keys=True).encode() if found else b""


class Recordings:
    """The recordings of one record. A call that was made several times is answered as it was each time, in order."""

    def __init__(self, content: bytes) -> None:
        told = json.loads(content) if content else {"files": [], "calls": []}
        self.files: tuple[str, ...] = tuple(told["files"])
        self._results: dict[str, list[ToolResult]] = {}
        for one in told["calls"]:
            self._results.setdefault(one["key"], []).append(ToolResult(one["type"], one["content"]))
        self._asked: Counter[str] = Counter()

    def answer(self, key: str) -> ToolResult | None:
        """What the call of that key came to; None when it was never made. After the last time comes the last again."""
        results = self._results.get(key)
        if results is None:
            return None
        number = self._asked[key]
        self._asked[key] += 1
        return results[min(number, len(results) - 1)]
