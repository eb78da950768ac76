"""The process that a person started, which runs the training in one below it and has the last word.

jax ends a process from C++, in the middle of whatever it does, when another process of the run dies; and a process that
is killed says nothing at all. This one never imports jax, so it lives on: it tells in one sentence which process is
gone, lets the other hosts know, and passes on what it is told (SIGTERM, Ctrl-C).

What the process below writes to its standard error is passed on, but for what jax's coordination says of a death, page
by page; that is kept in a file that the sentence names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from regrpo_jax.hosts.notes import Note, Notes

VARIABLE = "REGRPO_JAX_SUPERVISOR"  # in the environment of the process below: the descriptor that it reports to
TOLD = 75  # its status when it was told to end; ours is 0 then
FAILED = 2
AGAIN = "start again with the same --workdir to go on"
_GRACE = 5.0  # seconds in which a process may end by itself when another has failed
_STOP = 60.0  # seconds in which it may end by itself when another was told to end and has ended
_NEWS = 3.0  # seconds in which the note of whoever died first may arrive
_POLL = 0.2
_JAX = re.compile(rb"^[EF]\d{4} [\d:.]+ +\d+ (coordination_service|client\.h|distributed_runtime)")
_SILENT = re.compile(rb"stopped sending heartbeats\):\s*([\d,\s]+)|Task (\d+) heartbeat timeout")
_LEADER = re.compile(rb"Either the leader task|Failed to send RPC to coordination service")


def is_supervised() -> bool:
    """Whether this is the process below."""
    return VARIABLE in os.environ


def report(index: int, count: int, start: str) -> None:
    """Tells the process above who this one is; nothing where there is none."""
    if is_supervised():
        with contextlib.suppress(OSError):
            told = json.dumps({"index": index, "count": count, "start": start})
            os.write(int(os.environ[VARIABLE]), told.encode() + b"\n")


def supervise(arguments: Sequence[str], workdir: Path, module: str = "regrpo_jax.main") -> int:
    """Runs `python -m MODULE` with these arguments below this process; the status to exit with."""
    return _Supervisor(arguments, workdir, module).run()


class _Supervisor:
    def __init__(self, arguments: Sequence[str], workdir: Path, module: str) -> None:
        self._workdir = workdir
        self._index, self._count, self._notes = -1, 0, None  # type: tuple[int, int, Notes | None]
        self._told = self._passed_on = False
        reading, writing = os.pipe()
        os.set_inheritable(writing, True)
        self._child = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=os.environ | {VARIABLE: str(writing)},
            pass_fds=(writing,),
            stderr=subprocess.PIPE,
            start_new_session=True,  # what the shell or Slurm sends to all is passed on once
        )
        os.close(writing)
        assert self._child.stderr is not None
        self._relay = _Relay(self._child.stderr)
        self._listener = threading.Thread(target=self._listen, args=(reading,), daemon=True)

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._signalled)
        self._listener.start()
        self._relay.start()
        while self._child.poll() is None:
            if self._told and self._notes is not None and not self._passed_on:
                self._passed_on = True
                self._notes.told_to_end(self._index)
            if (ending := self._look_at_others()) is not None:
                return ending
            time.sleep(_POLL)
        self._relay.join(10)
        return self._ended(self._child.returncode)

    def _listen(self, descriptor: int) -> None:
        with os.fdopen(descriptor) as lines:
            for line in lines:
                told = json.loads(line)
                self._index, self._count = told["index"], told["count"]
                self._notes = Notes(self._workdir, told["start"])
                self._notes.began(self._index)

    def _signalled(self, number: int, frame: Any) -> None:
        if not self._told:
            self._told = True
            self._tell_to_end()

    def _tell_to_end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._child.send_signal(signal.SIGTERM)  # for Ctrl-C, too, so that all end in the same way

    def _look_at_others(self) -> int | None:
        """Ends the process below where another has ended; the status then."""
        notes = self._notes
        if notes is None:
            return None
        if not self._told and notes.told(self._index):
            self._told = self._passed_on = True
            self._tell_to_end()
        ended = notes.others(self._index)
        if not ended or not self._outlives(_STOP if all(note.told for note in ended) else _GRACE):
            return None
        self._child.kill()
        self._child.wait()
        return self._because_of(ended)

    def _outlives(self, seconds: float) -> bool:
        """Whether the process below goes on after so many seconds."""
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return True
        return False

    def _ended(self, status: int) -> int:
        """How the process below ended by itself."""
        if status == 0:
            self._relay.tell_held()
            return 0
        if status == TOLD:
            self._leave("it was told to end", told=True)
            return 0
        if status > 0:  # it has said why
            self._relay.tell_held()
            self._leave(self._relay.last_words or f"it ended with status {status}")
            return status
        return self._killed(-status)

    def _killed(self, number: int) -> int:
        held = self._relay.held
        by_jax = number == signal.SIGABRT and held
        if by_jax and (others := self._others_that_failed(_NEWS)):
            return self._because_of(others)
        if by_jax and self._notes is None:
            return self._say(
                "config.hosts: not all processes met within config.hosts.wait seconds; see that all of them are "
                "started, and that they reach the address of the first",
                self._kept(held),
            )
        name = signal.Signals(number).name
        if by_jax and (gone := _gone(held)):
            names = " and ".join(self._name(index, self._host_of(index)) for index in gone)
            return self._say(f"{names} {'is' if len(gone) == 1 else 'are'} not heard of any more", self._kept(held))
        words = f"it was ended by {name}"
        words += ", as Linux does when memory runs out" if number == signal.SIGKILL else ""
        self._leave(words)
        return self._say(f"{self._name(self._index)} is gone: {words}", self._kept(held) if by_jax else "")

    def _others_that_failed(self, seconds: float) -> list[Note]:
        """Waits so long for what others have to tell of their end."""
        last = time.monotonic() + seconds
        while self._notes is not None:
            found = [note for note in self._notes.others(self._index) if not note.told]
            if found or time.monotonic() >= last:
                return found
            time.sleep(_POLL)
        return []

    def _because_of(self, ended: Sequence[Note]) -> int:
        failed = [note for note in ended if not note.told]
        if not failed:
            print(f"{self._name(ended[0].index, ended[0].host)} was told to end; {AGAIN}", file=sys.stderr, flush=True)
            return 0
        note = failed[0]
        return self._say(f"{self._name(note.index, note.host)} is gone: {note.words}", "")

    def _say(self, words: str, kept: str) -> int:
        print(f"error: {words}; {AGAIN}{kept}", file=sys.stderr, flush=True)
        return FAILED

    def _name(self, index: int, host: str = "") -> str:
        if index < 0:
            return "the process that trains"
        return f"process {index} of {self._count}" + (f" (on {host})" if host else "")

    def _host_of(self, index: int) -> str:
        return self._notes.host_of(index) if self._notes is not None else ""

    def _leave(self, words: str, *, told: bool = False) -> None:
        if self._notes is not None:
            self._notes.ended(self._index, words, told=told)

    def _kept(self, held: bytes) -> str:
        """Where it is kept what jax said; "" where it cannot be."""
        folder = self._notes.folder if self._notes is not None else self._workdir / "hosts"
        path = folder / f"jax-{max(self._index, 0)}.txt"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(held)
        except OSError:
            return ""
        return f" (what jax said is in {path})"


def _gone(held: bytes) -> list[int]:
    """Which processes jax says are gone; none where it does not say. The first one coordinates all."""
    if match := _SILENT.search(held):
        return [int(number) for number in re.findall(rb"\d+", match[1] or match[2])]
    return [0] if _LEADER.search(held) else []


class _Relay(threading.Thread):
    """Passes the lines of standard error on, and holds back what jax says from its first word of a death on."""

    def __init__(self, source: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self._source, self._target = source, sys.stderr.buffer
        self._held: list[bytes] = []
        self._last: deque[bytes] = deque(maxlen=1)

    @property
    def held(self) -> bytes:
        """What was held back."""
        return b"".join(self._held)

    @property
    def last_words(self) -> str:
        """The last line that was passed on, as a part of a sentence."""
        words = self._last[0].decode(errors="replace").strip() if self._last else ""
        return words.removeprefix("error: ").removesuffix(f"; {AGAIN}")

    def run(self) -> None:
        holding = False
        for line in self._source:
            holding = holding or bool(_JAX.match(line))
            if holding:
                self._held.append(line)
                continue
            if line.strip():
                self._last.append(line)
            self._write(line)

    def tell_held(self) -> None:
        """All the same, where no death came of it."""
        self._write(self.held)
        self._held.clear()

    def _write(self, words: bytes) -> None:
        self._target.write(words)
        self._target.flush()
