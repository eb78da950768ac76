"""What stands on the machine of a worker: a sandbox for one episode at a time, and what may be asked of it.

The walls are those of an episode that plays at home, on this machine. Tools of the host are the exception: a call of
one goes back to the run, which alone has keys, connections and tapes, and the action waits for its answer. Nothing in
here knows how words come from there to here.
"""

from __future__ import annotations

import os
import pickle
import platform
import queue
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.host_worker import modules_of
from regrpo_jax.sandbox.isolation import check_isolation
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.protocol import Header, ProtocolError
from regrpo_jax.sandbox.results import SandboxError, TooLarge
from regrpo_jax.sandbox.session import SandboxSession
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.workers.likeness import Likeness, likeness

# What may go wrong on either side, by the name under which it crosses; a class before those that it is a kind of.
ERRORS: dict[str, type[Exception]] = {
    "user": UserError,
    "sandbox": SandboxError,
    "protocol": ProtocolError,
    "large": TooLarge,
    "system": OSError,
}
DONE, ASKS = "done", "asks"


@dataclass(frozen=True)
class Order:
    """What a place is to be. toolset: the pickled settings of the tools. home: the folder where the run was started.

    folder: where the place works; what the settings name below `home` is looked for below this.
    """

    settings: SandboxSettings
    loader: str
    toolset: bytes
    home: str
    folder: str


@dataclass(frozen=True)
class Told:
    """What was answered: `DONE` with a value, `ASKS` with a call of a tool of the host, or an error with its words."""

    kind: str
    value: Any = None

    def content(self) -> Any:
        """The value; raises what went wrong."""
        if self.kind in ERRORS:
            raise ERRORS[self.kind](self.value)
        return self.value


@dataclass(frozen=True)
class About:
    """process: that of the place. unisolated: why it has no walls, "" where it has them. niceness: how far everything
    else on its machine goes before it, 0 for not at all."""

    process: int
    unisolated: str
    niceness: int


def told_of(error: Exception) -> Told:
    """An error as words that can cross. Raises it again if it is of no kind that may."""
    for kind, known in ERRORS.items():
        if isinstance(error, known):
            return Told(kind, str(error))
    raise error


class Place:
    """One sandbox; `do` is what is called from elsewhere, by several threads: an action can be broken off."""

    def __init__(self) -> None:
        self._order: Order
        self._pool: SandboxPool | None = None
        self._session: SandboxSession | None = None
        self._said: queue.SimpleQueue[Told] = queue.SimpleQueue()
        self._heard: queue.SimpleQueue[Told] = queue.SimpleQueue()

    def do(self, what: str, *arguments: Any) -> Told:
        """One of the methods below, by name; what goes wrong is told, not raised."""
        try:
            found = getattr(self, what)(*arguments)
        except tuple(ERRORS.values()) as error:
            return told_of(error)
        return found if isinstance(found, Told) else Told(DONE, found)

    def look(self, order: Order) -> tuple[str, Likeness]:
        """The machine's name, and what decides there what comes of an action. UserError for a folder that is not."""
        try:
            os.chdir(order.folder)
        except OSError as error:
            raise UserError(
                f'the folder "{order.folder}" cannot be entered ({error.strerror}); name one that is there in '
                "config.workers.folder"
            ) from error
        if order.folder not in sys.path:
            sys.path.append(order.folder)  # for settings and modules of a person's own
        self._order = order
        toolset = pickle.loads(order.toolset)
        readable = (*order.settings.readable, *getattr(toolset, "readable_paths", ()))
        paths = [_moved(path, order) for path in readable]
        return platform.node(), likeness(modules_of(order.loader, toolset), order.folder, paths)

    def begin(self) -> About:
        """Starts the sandbox. UserError, SandboxError as `SandboxPool`."""
        settings, order = self._order.settings, self._order
        unisolated = check_isolation(settings.allow_unisolated)
        there = replace(
            settings,
            readable=tuple(_moved(path, order) for path in settings.readable),
            python_path=tuple(_moved(path, order) for path in settings.python_path),
            hidden=tuple(_moved(path, order) for path in settings.hidden),
        )
        self._pool = SandboxPool(there, pickle.loads(order.toolset), loader=order.loader, remote_tools={})
        return About(os.getpid(), unisolated, os.nice(0))

    def open(self, opening: Mapping[str, Any]) -> None:
        """An episode, with what `SandboxPool.open` takes by name; one that was left open is closed."""
        self.close()
        if self._pool is None:
            raise SandboxError("the place has not begun")
        self._session = self._pool.open(**opening)

    def _open_session(self) -> SandboxSession:
        if self._session is None:
            raise SandboxError("no episode is open here")
        return self._session

    def run(self, code: str) -> Told:
        """Begins an action. What came of it, or the first call of a tool of the host that it waits for."""
        session = self._open_session()
        self._said, self._heard = queue.SimpleQueue(), queue.SimpleQueue()
        said, heard = self._said, self._heard

        def play() -> None:
            try:
                said.put(Told(DONE, session.run(code, answers=_FromHome(said, heard))))
            except Exception as error:
                said.put(Told("sandbox", f"an action could not be run: {type(error).__name__}: {error}"))

        threading.Thread(target=play, name="action", daemon=True).start()
        return said.get()

    def answer(self, reply: Told) -> Told:
        """What the tool of the host answered; then as `run`."""
        said = self._said
        self._heard.put(reply)
        return said.get()

    def break_off(self) -> None:
        """The action that runs is not wanted any more."""
        if self._session is not None:
            self._session.break_off()

    def read_file(self, name: str, most_bytes: int | None = None) -> bytes:
        """As `SandboxSession.read_file`."""
        return self._open_session().read_file(name, most_bytes)

    def write_file(self, name: str, data: bytes) -> None:
        """As `SandboxSession.write_file`."""
        self._open_session().write_file(name, data)

    def files(self) -> dict[str, str]:
        """As `SandboxSession.files`."""
        return self._open_session().files()

    def close(self) -> None:
        """Ends the episode."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def end(self) -> None:
        """Ends the sandbox."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


class _FromHome:
    """Answers of tools of the host, which the run gives. infra stays "": the run knows what of ours failed."""

    infra = ""

    def __init__(self, said: queue.SimpleQueue[Told], heard: queue.SimpleQueue[Told]) -> None:
        self._said, self._heard = said, heard

    def answer(self, header: Header) -> Mapping[str, Any]:
        """Asks, and waits. Raises what the run raised."""
        self._said.put(Told(ASKS, header))
        return self._heard.get().content()


def _moved(path: str, order: Order) -> str:
    """A path of the run as it is on this machine."""
    inside = os.path.relpath(path, order.home) if os.path.isabs(path) else ".."
    return path if inside.split(os.sep)[0] == ".." else os.path.normpath(os.path.join(order.folder, inside))
