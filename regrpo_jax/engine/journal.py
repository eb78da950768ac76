"""What has been found out so far, one line a slot, appended as it happens: kill -9 loses no line that was written.

A line that a kill cut off is recognised and dropped; its slot is filled again, with the same result.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError


@dataclass(frozen=True)
class Entry:
    """What became of a slot, tried from `first_attempt` on.

    attempt: the one that gave the record, or the last one. record: None where none could be had. rejects: the
    refused attempts, as (attempt, reason, what was tried).
    """

    slot: int
    first_attempt: int
    attempt: int
    record: dict[str, Any] | None
    rejects: tuple[dict[str, Any], ...]

    def to_line(self) -> str:
        return json.dumps(vars(self) | {"rejects": list(self.rejects)}, ensure_ascii=False, sort_keys=True) + "\n"


class Journal:
    """Entries of a run in a file, safe to append to from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self.entries = {(entry.slot, entry.first_attempt): entry for entry in _read(path)}
        try:
            self._stream = path.open("a", encoding="utf-8")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror})") from error

    def add(self, entry: Entry) -> None:
        """Write an entry down; the line reaches the system in one piece before this returns."""
        with self._lock:
            self._stream.write(entry.to_line())
            self._stream.flush()
            self.entries[entry.slot, entry.first_attempt] = entry

    def close(self) -> None:
        self._stream.close()


def _read(path: Path) -> Iterator[Entry]:
    """The whole lines of a journal; what follows the last of them is cut off. UserError for a line that is none."""
    if not path.exists():
        return
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    for number, line in enumerate(data[: whole - 1].decode("utf-8").split("\n") if whole else (), 1):
        try:
            found = json.loads(line)
            yield Entry(
                int(found["slot"]),
                int(found["first_attempt"]),
                int(found["attempt"]),
                found["record"],
                tuple(found["rejects"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: no entry of a journal; remove the file to start over") from error
