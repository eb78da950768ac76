"""Tools that run on the host, for the action of a session: with a deadline, once, and with no way to a later request.

A call that is late goes on in its thread; the workspace it was given then refuses it. What was answered is kept on the
tape of the action, which is played instead of the tools when the action is repeated.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.plain import TooLarge, whole
from regrpo_jax.sandbox.protocol import Header, ProtocolError
from regrpo_jax.sandbox.results import RemoteCall, SandboxError, Tape
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.sandbox.tool_calls import described
from regrpo_jax.toolbox.failures import ToolFailure
from regrpo_jax.toolbox.host_files import kept
from regrpo_jax.toolbox.observation import truncate
from regrpo_jax.toolbox.returned_pictures import names_for_pictures

MOST_CALLS = 64  # of one action
_ANSWER_BYTES = 2**19
_MOST_WORDS = 8000  # of a failure
_LOOK_SECONDS = 0.05  # between looks at whether the action is still wanted
Tools = Mapping[str, Callable[..., Any]]


class Answers(Protocol):
    """Who answers the calls of an action: `RemoteCalls`, which says what each of these is."""

    infra: str

    def answer(self, header: Header) -> Mapping[str, Any]: ...


class Files(Protocol):
    """The workspace of an episode: a `HostWorker`, or a session in a worker that is elsewhere."""

    @property
    def settings(self) -> SandboxSettings: ...
    def read_file(self, name: str) -> bytes: ...
    def write_file(self, name: str, data: bytes) -> None: ...
    def files(self) -> dict[str, str]: ...


class Room:
    """The bytes that remote tools may still write in a session, all of which its tapes keep."""

    def __init__(self, size: int) -> None:
        self.left = size


class CallWorkspace:
    """The files of the episode that calls, for a tool on the host, until its call is over."""

    def __init__(self, worker: Files, room: Room) -> None:
        self._worker, self._room = worker, room
        self._lock, self._over = threading.Lock(), False
        self.written: dict[str, bytes] = {}

    def read_file(self, name: str) -> bytes:
        """OSError when there is no such file; SandboxError."""
        with self._open():
            return self._worker.read_file(name)

    def write_file(self, name: str, data: bytes) -> None:
        """OSError when it cannot be written or there is no room; SandboxError."""
        with self._open():
            if len(data) > self._room.left:
                raise OSError(f"{name} has {len(data)} bytes, and there is room for {self._room.left}")
            self._worker.write_file(name, data)
            self._room.left -= len(data)
            self.written[name] = data

    def files(self) -> dict[str, str]:
        """SHA-256 of each file, by name; SandboxError."""
        with self._open():
            return self._worker.files()

    @contextlib.contextmanager
    def _open(self) -> Any:
        with self._lock:
            if self._over:
                raise TimeoutError("the call was given up, and the episode goes on without it")
            yield

    def close(self) -> None:
        """Nothing is read or written any more; what is being done is done first."""
        with self._lock:
            self._over = True


class RemoteCalls:
    """The calls of one action. infra: what failed of ours, if something did."""

    def __init__(
        self, tools: Callable[[], Tools], worker: Files, room: Room, tape: Tape, wanted: Callable[[], bool]
    ) -> None:
        self._tools, self._worker, self._room, self._wanted = tools, worker, room, wanted
        self._tape, self._known = tape, list(tape.calls)
        self._calls = 0
        self.infra = ""

    def answer(self, header: Header) -> Mapping[str, Any]:
        """What a call that the process of the tools asks for is answered. ProtocolError, SandboxError, OSError."""
        name, arguments, keywords = header.get("remote"), header.get("arguments"), header.get("keywords")
        if not (isinstance(name, str) and isinstance(arguments, list) and isinstance(keywords, dict)):
            raise ProtocolError("a call of another shape")
        self._calls += 1
        call = self._from_tape(name, arguments, keywords)
        if call is not None:
            return call.answer
        if self._tape.complete:
            return _failed(Status.TOOL_ERROR, f"{name} was asked for something else when this action ran before")
        if self._calls > MOST_CALLS:
            words = f"{name}: an action may call tools of the host {MOST_CALLS} times, which it has done"
            return _failed(Status.TOOL_ERROR, words)
        return self._made(name, arguments, keywords).answer

    def _from_tape(self, name: str, arguments: list[Any], keywords: dict[str, Any]) -> RemoteCall | None:
        for place, call in enumerate(self._known):
            if (call.name, call.arguments, call.keywords) == (name, arguments, keywords):
                for file, data in call.files:
                    self._worker.write_file(file, data)
                    self._room.left -= len(data)
                return self._known.pop(place)
        return None

    def _made(self, name: str, arguments: list[Any], keywords: dict[str, Any]) -> RemoteCall:
        tool = self._tools().get(name)
        if tool is None:
            raise ProtocolError("a call of something that is no remote tool")
        workspace = CallWorkspace(self._worker, self._room)
        done: queue.Queue[Header] = queue.Queue()
        asked = (name, tool, workspace, arguments, keywords)
        threading.Thread(target=lambda: done.put(self._called(*asked)), name=f"remote-{name}", daemon=True).start()
        try:
            answer = self._waited(done)
        except queue.Empty:
            words = f"{name} did not answer within {self._worker.settings.remote_seconds:g} seconds"
            waits = tool.not_ready() if hasattr(tool, "not_ready") else ""
            answer = _failed(Status.INFRA_ERROR, waits) if waits else _failed(Status.TIMEOUT, words)
        workspace.close()
        if answer.get("status") == Status.INFRA_ERROR:
            self.infra = self.infra or f"the tool {name} failed: {answer['failed']}"
            return RemoteCall(name, arguments, keywords, answer | {"status": str(Status.TOOL_ERROR)})
        call = RemoteCall(name, arguments, keywords, answer, tuple(workspace.written.items()))
        self._tape.calls.append(call)
        return call

    def _waited(self, done: queue.Queue[Header]) -> Header:
        deadline = time.monotonic() + self._worker.settings.remote_seconds
        while True:
            left = deadline - time.monotonic()
            try:
                return done.get(timeout=max(0.0, min(_LOOK_SECONDS, left)))
            except queue.Empty:
                if left <= 0 or not self._wanted():
                    raise

    @staticmethod
    def _called(name: str, tool: Any, workspace: CallWorkspace, arguments: list[Any], keywords: Header) -> Header:
        on_host: Callable[..., Any] | None = getattr(tool, "run_on_host", None)
        try:
            value = on_host(workspace, *arguments, **keywords) if on_host else tool(*arguments, **keywords)
            value = names_for_pictures(value, name, lambda image, tool: kept(workspace, tool, image))
            return {"value": whole(value, _ANSWER_BYTES)}
        except TooLarge as error:
            return _failed(Status.TOOL_ERROR, f"{name}: what it returned is too large: {error}")
        except SandboxError as error:
            return _failed(Status.INFRA_ERROR, str(error))
        except Exception as error:
            status = error.status if isinstance(error, ToolFailure) else Status.TOOL_ERROR
            return _failed(status, truncate(described(name, error), _MOST_WORDS))


def _failed(status: Status, words: str) -> Header:
    return {"failed": words, "status": str(status)}
