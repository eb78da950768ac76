"""Where numbers go: `metrics.jsonl` (one object a line), boards that show it, and a progress bar a person can read."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from regrpo_jax.hosts.role import role
from regrpo_jax.records.text_files import replace_text


class Board(Protocol):
    """Something that shows the lines of a run as they come, and forgets none.

    run_id: what it calls the run, "" where the folder of the run is enough.
    """

    run_id: str

    def write(self, stage: str, step: int, values: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class MetricsWriter:
    """Appends to `metrics.jsonl` of a run, and tells its boards.

    Lines that cannot be written, because a disk is full, wait until the next one is: training goes on.
    """

    def __init__(self, workdir: Path, boards: Sequence[Board] = ()) -> None:
        self._path = workdir / "metrics.jsonl"
        self._waiting: list[str] = []
        self._boards = list(boards)
        self._keep(lambda line: _entry(line) is not None)

    def drop_after(self, stage: str, step: int) -> None:
        """Forgets lines of `stage` beyond `step`: a resumed run writes them again."""
        self._keep(lambda line: not _is_after(line, stage, step))

    def write(self, stage: str, step: int, values: dict[str, float]) -> None:
        """One line: {"stage": .., "step": .., name: value, ..}."""
        self._append(json.dumps({"stage": stage, "step": step, **values}) + "\n")
        self._tell(lambda board: board.write(stage, step, values))

    def close(self) -> None:
        """Ends the boards."""
        self._tell(lambda board: board.close())

    def _append(self, line: str) -> None:
        size = self._path.stat().st_size if self._path.exists() else 0
        self._waiting.append(line)
        try:
            with self._path.open("a") as lines:
                lines.write("".join(self._waiting))
        except OSError as error:
            if self._path.exists():
                os.truncate(self._path, size)  # half a line must not have a whole one behind it
            if len(self._waiting) == 1:
                print(
                    f"warning: {self._path}: cannot be written ({error.strerror}); its lines wait until it can",
                    file=sys.stderr, flush=True,
                )  # fmt: skip
        else:
            self._waiting.clear()

    def _tell(self, say: Callable[[Board], None]) -> None:
        """A board that fails, such as a server that is gone, is told no more; a night's training goes on."""
        for board in tuple(self._boards):
            try:
                say(board)
            except Exception as error:  # whatever a library of somebody else ends in
                self._boards.remove(board)
                with contextlib.suppress(Exception):
                    board.close()
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                print(
                    f"warning: {type(board).__name__} shows no more of this run, {self._path} does: {reason}",
                    file=sys.stderr, flush=True,
                )  # fmt: skip

    def _keep(self, wanted: Callable[[str], bool]) -> None:
        if self._path.exists():
            lines = [line for line in self._path.read_text().splitlines() if wanted(line)]
            replace_text(self._path, "".join(f"{line}\n" for line in lines))


class UnwrittenMetrics(MetricsWriter):
    """Of the processes of a run beside the first, which writes what all of them know."""

    def _append(self, line: str) -> None:
        """Nothing."""

    def _keep(self, wanted: Callable[[str], bool]) -> None:
        """Nothing."""


def _entry(line: str) -> dict[str, Any] | None:
    """The object of a line, None for one that a crash cut short."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) else None


def _is_after(line: str, stage: str, step: int) -> bool:
    entry = _entry(line)
    return entry is None or (entry.get("stage") == stage and entry.get("step", 0) > step)


class StageProgress:
    """A bar with time left on a terminal; a line now and then where the output is a file."""

    def __init__(self, title: str, total: int, *, done: int = 0, seconds_between_lines: float = 20.0) -> None:
        self._console = Console(file=sys.stderr)
        self._bar = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=self._console,
            disable=not (self._console.is_terminal and role().writes),
        )
        self._task = self._bar.add_task(title, total=total, completed=done, note="")
        self._title, self._total, self._done = title, total, done
        self._started, self._first = time.monotonic(), done
        self._seconds_between_lines, self._last_line = seconds_between_lines, time.monotonic()

    def __enter__(self) -> "StageProgress":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def advance(self, count: int = 1, note: str = "") -> None:
        """`count` more are done."""
        self._done += count
        fields: dict[str, Any] = {"note": note} if note else {}
        self._bar.update(self._task, advance=count, **fields)
        now = time.monotonic()
        due = now - self._last_line >= self._seconds_between_lines or self._done == self._total
        if not self._console.is_terminal and due and note and role().writes:
            elapsed = now - self._started
            left = elapsed / max(1, self._done - self._first) * (self._total - self._done)
            print(
                f"{self._title} {self._done}/{self._total}  {elapsed:.0f} s, {left:.0f} s left  {note}",
                file=sys.stderr,
                flush=True,
            )
            self._last_line = now
