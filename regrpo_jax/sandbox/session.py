"""One episode as the host sees it: run actions, read files, close.

What comes from the episode's processes is checked field by field here; whatever does not fit ends them. Statuses,
kills and infra errors are decided here and nowhere else: by what the process of the tools tells of its calls, by how
processes ended, and by the clock. Nothing that an action prints or sends is taken for any of these.
"""

from __future__ import annotations

import dataclasses
import secrets
import select
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.host_worker import HostWorker, Line, Opening
from regrpo_jax.sandbox.journal import Journal
from regrpo_jax.sandbox.protocol import Closed, Late, ProtocolError
from regrpo_jax.sandbox.remote_calls import Answers, RemoteCalls, Room
from regrpo_jax.sandbox.results import ActionResult, SandboxError, Tape
from regrpo_jax.sandbox.settings import SandboxSettings

RESTARTED = "The sandbox was restarted: variables and files made so far are gone, the input files are there again."
_MOST_CODE = 2**20
_LOOK_SECONDS = 0.05  # between looks at whether the action is still wanted
_ENDED_SECONDS = 2.0  # for the worker to tell how a process ended whose channel is closed


class _Killed(Exception):
    """The episode's processes are (to be) gone, and why.

    suspect: they did more than to hang or die, so that their worker is thrown away.
    """

    def __init__(self, reason: str, words: str, status: Status = Status.TOOL_ERROR, *, suspect: bool = False) -> None:
        super().__init__(words)
        self.reason, self.text, self.status, self.suspect = reason, f"{words} {RESTARTED}", status, suspect


class _BrokenOff(Exception):
    """Somebody wants the action no more."""


class _Run:
    """An action that is being run: what is known of it so far."""

    def __init__(self, remote: Answers, seconds: float) -> None:
        self.token = secrets.token_hex(8)
        self.journal, self.remote = Journal(), remote
        self.deadline = time.monotonic() + seconds


class Workers(Protocol):
    """Where an episode's worker comes from and goes to: `SandboxPool`, which says what each of these does."""

    settings: SandboxSettings

    def take(self) -> HostWorker: ...
    def give_back(self, worker: HostWorker) -> None: ...
    def clean_up(self, worker: HostWorker, reason: str) -> None: ...
    def discard(self, worker: HostWorker, reason: str) -> None: ...
    def finished(self, session: SandboxSession) -> None: ...
    def remote_tools(self) -> Mapping[str, Callable[..., Any]]: ...


class SandboxSession:
    """An open episode; made by `SandboxPool.open`, used by one thread at a time."""

    def __init__(self, pool: Workers, opening: Opening, paths: Mapping[str, Path]) -> None:
        self._pool, self._opening, self._paths = pool, opening, dict(paths)
        self._settings = pool.settings
        self._worker: HostWorker | None = None
        self._line: Line | None = None
        self._closed = self._broken_off = False
        self._room = Room(self._settings.workspace_bytes)
        self._open()

    def __enter__(self) -> SandboxSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> None:
        files = contents_of({**self._opening.files, **self._paths}, self._settings)
        opening = dataclasses.replace(self._opening, files=files)
        worker = self._pool.take()
        try:
            self._line = worker.open(opening)
        except UserError:
            self._pool.give_back(worker)
            raise
        except OSError as error:
            self._pool.give_back(worker)
            raise UserError(f"the episode cannot be opened: {error}") from error
        except BaseException as error:
            self._pool.discard(worker, f"opening an episode broke off: {type(error).__name__} {error}")
            raise
        self._worker = worker

    def run(self, code: str, tape: Tape | None = None, *, answers: Answers | None = None) -> ActionResult:
        """Run one action. Never raises for what the action does; INFRA_ERROR when the sandbox itself failed.

        tape: takes the calls of remote tools; it has those that this action made when it ran before. answers: who
        answers these calls, if not the tools of the pool.
        """
        if self._closed:
            raise UserError("this session is closed")
        started = time.monotonic()
        try:
            result = self._run(code, Tape() if tape is None else tape, answers)
        except SandboxError as error:
            result = ActionResult(Status.INFRA_ERROR, f"the sandbox failed: {error}")
            self._drop(result.text)
        return dataclasses.replace(result, elapsed=time.monotonic() - started)

    def _run(self, code: str, tape: Tape, answers: Answers | None) -> ActionResult:
        data = code.encode("utf-8", "surrogatepass")
        if len(data) > _MOST_CODE:
            words = f"Error: the code has {len(data)} bytes; at most {_MOST_CODE} are run."
            return ActionResult(Status.INVALID_ACTION, words, size=len(words))
        if self._worker is None:
            self._open()
        assert self._worker is not None and self._line is not None
        worker, line = self._worker, self._line
        remote = answers or RemoteCalls(self._pool.remote_tools, worker, self._room, tape, lambda: not self._broken_off)
        run = _Run(remote, self._settings.wall_seconds)
        try:
            result = self._played(worker, line, run, data)
        except _Killed as killed:
            result = self._of_a_kill(run, killed)
            self._drop(killed.text, suspect=killed.suspect)
        except _BrokenOff:
            result = ActionResult(Status.INFRA_ERROR, "the action was broken off from outside")
            self._drop(result.text, suspect=False)
        if remote.infra:
            result = dataclasses.replace(result, status=Status.INFRA_ERROR, text=remote.infra)
        return dataclasses.replace(result, called=dict(run.journal.called))

    def _played(self, worker: HostWorker, line: Line, run: _Run, code: bytes) -> ActionResult:
        """What came of an action that came to its end. _Killed, _BrokenOff, SandboxError."""
        try:
            line.tools.send({"action": True}, deadline=run.deadline)
            line.action.send({"run": run.token}, code, deadline=run.deadline)
            while True:
                done = line.action.receive_now()
                self._hear_tools(worker, line, run)  # all that they told before the end has arrived by now
                if done is not None:
                    if done[0].get("done") != run.token:
                        raise ProtocolError("a message nobody asked for")
                    return run.journal.result(*done)
                self._await(worker, line, run.deadline)
        except Late:
            words = f"Timeout: killed after {self._settings.wall_seconds:g} seconds."
            raise _Killed("wall", words, Status.TIMEOUT) from None
        except ProtocolError:
            raise _interfered() from None
        except Closed:
            raise self._ended(worker) from None

    def _hear_tools(self, worker: HostWorker, line: Line, run: _Run) -> None:
        while (message := line.tools.receive_now()) is not None:
            header, _ = message
            if "remote" in header:
                asked = time.monotonic()
                line.tools.send({"answer": run.remote.answer(header)}, deadline=asked + self._settings.wall_seconds)
                run.deadline += time.monotonic() - asked
            elif "broken" in header:
                if header["broken"] == "closed":  # by the end of the action's process, or by its code
                    raise self._ended(worker)
                raise _interfered()
            else:
                run.journal.hear(header)

    def _await(self, worker: HostWorker, line: Line, deadline: float) -> None:
        """Until a process of the episode says something, or the worker says that one ended."""
        if worker.ended is not None:
            raise Closed
        poll = select.poll()
        for channel in (line.action, line.tools, worker.control):
            poll.register(channel, select.POLLIN)
        ready: set[int] = set()
        while not ready:
            if self._broken_off:
                raise _BrokenOff
            left = deadline - time.monotonic()
            if left <= 0:
                raise Late
            ready = {fd for fd, _ in poll.poll(min(_LOOK_SECONDS, left) * 1000)}
        if ready == {worker.control.fileno()}:
            worker.wait_ended(1.0)
            raise Closed

    @staticmethod
    def _of_a_kill(run: _Run, killed: _Killed) -> ActionResult:
        return ActionResult(
            killed.status,
            killed.text,
            tool_calls=run.journal.runs,
            size=len(killed.text),
            killed=killed.reason,
            working=run.journal.working,
        )

    def _ended(self, worker: HostWorker) -> Exception:
        """What the end of a process of the episode means for the action that was running."""
        try:
            ended = worker.wait_ended(_ENDED_SECONDS)
        except Closed:
            if worker.command.weak:  # nothing keeps an action from ending it
                return _Killed("signal", "killed: the worker's first process is gone.", suspect=True)
            return SandboxError("the worker's first process is gone")
        if ended is None:  # it closed its channel and lives on
            return _Killed("protocol", "killed: the action closed the sandbox's own channel.", suspect=True)
        suspect = "limit" in ended or "unclean" in ended
        if "limit" in ended:
            return _Killed(ended["limit"], f"killed: exceeded {ended['words']}.", suspect=True)
        number = ended.get("signal")
        if number == signal.SIGXCPU:
            words = f"Timeout: killed after {self._settings.cpu_seconds} CPU seconds."
            return _Killed("cpu", words, Status.TIMEOUT, suspect=suspect)
        whose = "the action's process" if ended["who"] == "action" else "the tools' process"
        if number:
            name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
            return _Killed("signal", f"killed: {whose} died of {name}.", suspect=suspect)
        if ended["who"] == "tools":
            return _Killed("exit", "killed: the tools ended their own process.", suspect=suspect)
        return _Killed("exit", "killed: the action ended its own process.", suspect=suspect)

    def break_off(self) -> None:
        """From any thread: the action that runs is not wanted any more; it becomes an infra error within moments."""
        self._broken_off = True

    def _open_worker(self) -> HostWorker:
        if self._closed:
            raise UserError("this session is closed")
        if self._worker is None:
            self._open()
        assert self._worker is not None
        return self._worker

    def read_file(self, name: str, most_bytes: int | None = None) -> bytes:
        """A regular file of the workspace. OSError when there is none, TooLarge, SandboxError."""
        return self._open_worker().read_file(name, most_bytes)

    def write_file(self, name: str, data: bytes) -> None:
        """Put a file into the workspace. OSError, SandboxError."""
        self._open_worker().write_file(name, data)

    def files(self) -> dict[str, str]:
        """SHA-256 of each file of the workspace, by name. SandboxError."""
        return self._open_worker().files()

    def _drop(self, reason: str, *, suspect: bool = True) -> None:
        """Give up the worker; the next action gets another. A suspect one is killed."""
        worker, line, self._worker, self._line = self._worker, self._line, None, None
        if line is not None:
            line.close()
        if worker is not None and suspect:
            self._pool.discard(worker, reason)
        elif worker is not None:
            self._pool.clean_up(worker, reason)

    def close(self) -> None:
        """End the episode: all its processes are killed, its files deleted. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._worker is not None:
            self._pool.give_back(self._worker)
        if self._line is not None:  # not before, see `give_back`
            self._line.close()
        self._worker = self._line = None
        self._pool.finished(self)


def contents_of(files: Mapping[str, bytes | Path], settings: SandboxSettings) -> dict[str, bytes]:
    """What is in the input files. UserError for one that cannot be read, and for more than fits."""
    found = {}
    for name, source in files.items():
        try:
            found[name] = source.read_bytes() if isinstance(source, Path) else source
        except OSError as error:
            raise UserError(f'the input file "{name}" cannot be read: {error}') from error
    size = sum(map(len, found.values()))
    if size > settings.workspace_bytes:
        raise UserError(
            f"the input files have {size:,} bytes, the workspace {settings.workspace_bytes:,}; "
            "raise sandbox.workspace_bytes"
        )
    return found


def _interfered() -> _Killed:
    return _Killed("protocol", "killed: the action interfered with the sandbox's own messages.", suspect=True)
