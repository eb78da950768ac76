"""An episode that is played elsewhere, as the run sees it: the same as `SandboxSession`, and it may be lost.

A loss is told as `WorkerLost` and by nothing else, because who plays the episode then brings it back in another place
(`environments.episode`); what came of an action is never a guess.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.protocol import ProtocolError
from regrpo_jax.sandbox.remote_calls import RemoteCalls, Room
from regrpo_jax.sandbox.results import ActionResult, SandboxError, Tape, WorkerLost
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.workers.place import ASKS, Told, told_of


class Worker(Protocol):
    """A `Place` that is reached somehow."""

    def ask(self, what: str, *arguments: Any, wanted: Callable[[], bool] = ..., grace: float = ...) -> Told: ...
    def tell(self, what: str) -> None: ...


class Pool(Protocol):
    """Where the worker comes from and goes to: `RemotePool`, which says what each of these does."""

    settings: SandboxSettings

    def remote_tools(self) -> Mapping[str, Callable[..., Any]]: ...
    def lost(self, worker: Any, reason: str) -> None: ...
    def finished(self, worker: Any) -> None: ...


class RemoteSession:
    """An open episode in a worker that is elsewhere; made by the pool, used by one thread at a time."""

    def __init__(self, pool: Pool, worker: Worker) -> None:
        self._pool, self._worker = pool, worker
        self._room = Room(pool.settings.workspace_bytes)
        self._closed = self._broken_off = self._lost = False

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    @property
    def settings(self) -> SandboxSettings:
        """Of the sandbox, for the calls of tools of the host."""
        return self._pool.settings

    def _ask(self, what: str, *arguments: Any) -> Told:
        if self._closed:
            raise UserError("this session is closed")
        try:
            return self._worker.ask(what, *arguments, wanted=lambda: not self._broken_off)
        except WorkerLost as loss:
            if not self._lost:
                self._lost = True
                self._pool.lost(self._worker, str(loss))
            raise

    def run(self, code: str, tape: Tape | None = None) -> ActionResult:
        """As `SandboxSession.run`. WorkerLost: nobody knows what came of the action, or whether it ran at all."""
        started = time.monotonic()
        calls = RemoteCalls(
            self._pool.remote_tools, self, self._room, Tape() if tape is None else tape, lambda: not self._broken_off
        )
        try:
            told = self._ask("run", code)
            while told.kind == ASKS:
                told = self._ask("answer", _answered(calls, told.value))
            result: ActionResult = told.content()
        except WorkerLost:
            if not self._broken_off:
                raise
            result = ActionResult(Status.INFRA_ERROR, "the action was broken off from outside")
        except SandboxError as error:
            result = ActionResult(Status.INFRA_ERROR, f"the sandbox failed: {error}")
        if calls.infra:
            result = dataclasses.replace(result, status=Status.INFRA_ERROR, text=calls.infra)
        return dataclasses.replace(result, elapsed=time.monotonic() - started)

    def break_off(self) -> None:
        """From any thread: the action that runs is not wanted any more; it becomes an infra error within moments."""
        self._broken_off = True
        self._worker.tell("break_off")

    def read_file(self, name: str, most_bytes: int | None = None) -> bytes:
        """A regular file of the workspace. OSError when there is none, TooLarge, SandboxError, WorkerLost."""
        return self._ask("read_file", name, most_bytes).content()

    def write_file(self, name: str, data: bytes) -> None:
        """Put a file into the workspace. OSError, SandboxError, WorkerLost."""
        self._ask("write_file", name, data).content()

    def files(self) -> dict[str, str]:
        """SHA-256 of each file of the workspace, by name. SandboxError, WorkerLost."""
        return self._ask("files").content()

    def close(self) -> None:
        """End the episode: all its processes are killed, its files deleted. May be called again."""
        if self._closed:
            return
        try:
            if not self._lost:
                self._ask("close")
        except WorkerLost:
            pass  # so is all that was to be closed
        except SandboxError as error:  # nobody knows what is left of the episode there
            self._pool.lost(self._worker, str(error))
        finally:
            self._closed = True
            self._pool.finished(self._worker)


def _answered(calls: RemoteCalls, header: Mapping[str, Any]) -> Told:
    try:
        return Told("", calls.answer(dict(header)))
    except (ProtocolError, SandboxError, OSError) as error:
        return told_of(error)
