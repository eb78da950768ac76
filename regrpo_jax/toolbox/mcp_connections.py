"""The line to an MCP server: begun when it is needed, begun again once when it breaks, and given up in plain words.

Every server has one connection, in an event loop of its own thread, so that any thread may call. A server that ends,
hangs or refuses is no doing of who calls it: that is `Lost`, never an answer.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import shutil
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

START_SECONDS = 120.0  # until a server answers for the first time, which may be a program that is loaded
RESTART_SECONDS = 45.0  # the same while a call waits for it
_PROBE_SECONDS = 3.0
_CLOSED = "Connection closed"
_GONE = ("Connection closed", "Session terminated", "Session not found")
_MOST_TOLD = 2**12
Call = Callable[[Any], Coroutine[Any, Any, Any]]


@dataclass(frozen=True)
class McpServer:
    """A server to connect to: a `command` to start (its standard input and output are the line), or a `url`.

    environment: names of variables of the host that the command gets, beside the few that every one gets.
    prefix: put before the names of its tools, to keep them apart. seconds: of a call.
    """

    name: str
    command: tuple[str, ...] = ()
    url: str = ""
    environment: tuple[str, ...] = ()
    prefix: str = ""
    seconds: float = 30.0


class Lost(Exception):
    """There is no line to the server; the words say why."""


class Late(Lost):
    """It does not come up in time; to begin again would only take as long again."""


class Refused(Exception):
    """The server answered that it will not."""


class _Tail:
    """The last words that a program wrote to its standard error."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        self.file = os.fdopen(writing, "w")
        self._told = b""
        self._reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reader.start()

    def _read(self, reading: int) -> None:
        with os.fdopen(reading, "rb", buffering=0) as file:
            while piece := file.read(2**16):
                self._told = (self._told + piece)[-_MOST_TOLD:]

    def close(self) -> None:
        self.file.close()

    def last_line(self) -> str:
        """What it said last, once it has ended."""
        self._reader.join(0.5)
        lines = [line.strip() for line in self._told.decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1][:300] if lines else ""


class _Connection:
    """A session with a server. Lost, Late when there is none within `seconds`."""

    def __init__(self, server: McpServer, seconds: float) -> None:
        self.server = server
        self._tail = _Tail()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"mcp-{server.name}", daemon=True)
        self._thread.start()
        self._stop, self._over = asyncio.Event(), threading.Event()
        self._ready: concurrent.futures.Future[Any] = concurrent.futures.Future()
        self._life = asyncio.run_coroutine_threadsafe(self._live(seconds), self._loop)
        try:
            self._client = self._ready.result(seconds)
        except TimeoutError:
            self.close()
            raise Late(f"it did not answer within {seconds:g} seconds{self._said()}") from None
        except (Exception, BaseExceptionGroup) as error:
            self.close()
            raise Lost(self._words(error)) from error
        except BaseException:
            self.close()
            raise

    async def _live(self, seconds: float) -> None:
        try:
            async with _client(self.server, self._tail, seconds) as client:
                self._ready.set_result(client)
                await self._stop.wait()
        except BaseException as error:  # a group of exceptions too, which holds what happened
            if not self._ready.done():
                self._ready.set_exception(_innermost(error))
        finally:
            self._tail.close()
            self._over.set()

    def run(self, call: Call, seconds: float) -> Any:
        """What the server answers. Lost, Refused; TimeoutError when it takes longer than `seconds`."""
        from mcp.shared.exceptions import MCPError

        future = asyncio.run_coroutine_threadsafe(call(self._client), self._loop)
        try:
            return future.result(seconds)
        except TimeoutError:
            future.cancel()
            raise
        except MCPError as error:
            if error.message.strip().rstrip(".") in _GONE or self._over.is_set():
                raise Lost(self._words(error)) from error
            raise Refused(error.message or f"error {error.code}") from error
        except (Exception, BaseExceptionGroup) as error:
            raise Lost(self._words(error)) from error

    def answers(self) -> bool:
        """Whether it still answers anything."""
        try:
            self.run(lambda client: client.list_tools(cache_mode="bypass"), _PROBE_SECONDS)
        except Refused:
            return True
        except (Lost, TimeoutError):
            return False
        return True

    def _words(self, error: BaseException) -> str:
        error = _innermost(error)
        text = " ".join(str(error).split())
        if text.rstrip(".") == _CLOSED:
            return f"it ended{self._said()}" if self.server.command else "it closed the connection"
        if isinstance(error, FileNotFoundError):
            return f'there is no program "{self.server.command[0]}"'
        return (text[:300] or f"it broke off ({type(error).__name__})") + self._said()

    def _said(self) -> str:
        line = self._tail.last_line() if self.server.command else ""
        return f'; it said last: "{line}"' if line else ""

    @property
    def alive(self) -> bool:
        return not self._over.is_set()

    def close(self) -> None:
        """End the server, or the session; one that hangs, or never came up, is ended by force."""
        self._loop.call_soon_threadsafe(self._stop.set)
        if not self._over.wait(5.0 if self._ready.done() else 0.0):
            self._life.cancel()
            self._over.wait(5.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        if not self._thread.is_alive():
            self._loop.close()


def _innermost(error: BaseException) -> BaseException:
    """The first real exception in groups of them."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _client(server: McpServer, tail: _Tail, seconds: float) -> Any:
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    patience = max(server.seconds, seconds)  # of the first answer; calls have a limit of their own
    if server.url:
        return Client(server.url, read_timeout_seconds=patience)
    if shutil.which(server.command[0]) is None:
        raise FileNotFoundError(server.command[0])
    environment = {name: os.environ[name] for name in server.environment if name in os.environ}
    parameters = StdioServerParameters(
        command=server.command[0], args=list(server.command[1:]), env=environment or None
    )
    return Client(stdio_client(parameters, errlog=tail.file), read_timeout_seconds=patience)


class _Line:
    """Of one server. tries: connections that could not be made so far, the last one for the reason `failed`."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.connection: _Connection | None = None
        self.tries, self.failed = 0, Lost("")

    def connected(self, server: McpServer, seconds: float) -> _Connection:
        """The connection, made where there is none. Lost."""
        tries = self.tries
        if not self.lock.acquire(timeout=max(0.0, seconds)):
            raise Late(f"it was not ready within {seconds:g} seconds")
        with contextlib.ExitStack() as stack:
            stack.callback(self.lock.release)
            if self.connection is not None and self.connection.alive:
                return self.connection
            if self.tries > tries:  # while we waited, somebody else tried in vain
                raise self.failed
            self._drop()
            try:
                self.connection = _Connection(server, seconds)
            except Lost as error:
                self.tries, self.failed = self.tries + 1, error
                raise
            return self.connection

    def forget(self, broken: _Connection) -> None:
        with self.lock:
            if self.connection is broken:
                self._drop()

    def _drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
        self.connection = None


_lines: dict[McpServer, _Line] = {}
_lock = threading.Lock()


def _line(server: McpServer) -> _Line:
    with _lock:
        return _lines.setdefault(server, _Line())


def ask(server: McpServer, call: Call, seconds: float, *, start_seconds: float) -> Any:
    """What the server answers to a call; a line that breaks is made anew once, and the call made again.

    start_seconds: for the server to come up. seconds: for its answer.
    Raises:
      Lost: there is no line, or it broke a second time. Refused: the server's own error. TimeoutError: of the call.
    """
    line = _line(server)
    for last in (False, True):
        try:
            connection = line.connected(server, start_seconds)
        except Lost as error:
            if last or isinstance(error, Late):
                raise
            continue
        try:
            return connection.run(call, seconds)
        except Lost:
            line.forget(connection)
            if last:
                raise
        except TimeoutError:
            if not connection.answers():  # the next call is to find one that does
                line.forget(connection)
            raise
    raise AssertionError("the second try returns or raises")


def is_connected(server: McpServer) -> bool:
    """Whether there is a line to the server now."""
    connection = _line(server).connection
    return connection is not None and connection.alive


@atexit.register
def close_connections() -> None:
    """End all servers that were started."""
    with _lock:
        lines = list(_lines.values())
        _lines.clear()
    for line in lines:
        with line.lock:
            line._drop()
