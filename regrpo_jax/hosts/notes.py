"""What processes of a run leave for each other in the run's folder when they end, or are told to.

workdir/hosts/START/began-N     where process N runs
workdir/hosts/START/told-N      process N was told to end
workdir/hosts/START/ended-N     how process N ended, where that is no success

The folder is the one thing that all of them share whatever became of jax and of the process that coordinates. START is
a word of each start, so that no note of an earlier one is taken for news.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from regrpo_jax.records.text_files import replace_text

FOLDER = "hosts"


@dataclass(frozen=True)
class Note:
    """index: of the process. host: where it ran. told: whether it was told to end. words: how it ended, a sentence."""

    index: int
    host: str
    told: bool
    words: str


class Notes:
    """Of one start of a run."""

    def __init__(self, workdir: Path, start: str) -> None:
        self.folder = workdir / FOLDER / start

    def begin(self) -> None:
        """Makes the folder, and removes those of earlier starts; of one process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for other in self.folder.parent.iterdir():
            if other != self.folder:
                shutil.rmtree(other, ignore_errors=True)

    def began(self, index: int) -> None:
        """Process `index` runs here."""
        self._leave(f"began-{index}", Note(index, socket.gethostname(), False, ""))

    def host_of(self, index: int) -> str:
        """Where a process runs, "" where nobody knows."""
        return next((note.host for note in self._found("began", but=-1) if note.index == index), "")

    def told_to_end(self, index: int) -> None:
        """Process `index` was told to end, and all of them end with it."""
        self._leave(f"told-{index}", Note(index, socket.gethostname(), True, ""))

    def ended(self, index: int, words: str, *, told: bool = False) -> None:
        """Process `index` has ended before the run has."""
        self._leave(f"ended-{index}", Note(index, socket.gethostname(), told, words))

    def told(self, but: int) -> list[Note]:
        """Of other processes that were told to end."""
        return self._found("told", but)

    def others(self, but: int) -> list[Note]:
        """Of other processes that have ended."""
        return self._found("ended", but)

    def _leave(self, name: str, note: Note) -> None:
        with contextlib.suppress(OSError):  # no folder, no space: others learn of it by what they do not hear
            replace_text(self.folder / name, json.dumps(asdict(note)) + "\n")

    def _found(self, kind: str, but: int) -> list[Note]:
        found = []
        for path in sorted(self.folder.glob(f"{kind}-*")):
            try:
                note = Note(**json.loads(path.read_text()))
            except (OSError, ValueError, TypeError):
                continue  # half written, or of another version
            if note.index != but:
                found.append(note)
        return found
