"""The tools as an action calls them: functions that ask the process of the tools, and raise what it says was raised."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.plain import plain_or_text
from regrpo_jax.sandbox.protocol import Channel, Closed, Header, ProtocolError
from regrpo_jax.sandbox.served import unpack
from regrpo_jax.sandbox.tool_calls import FINAL_ANSWER
from regrpo_jax.sandbox.values import Unsupported, Writer
from regrpo_jax.toolbox.failures import ToolFailure

_ANSWER_BYTES = 2**16
_MOST_FAILURES = 64  # that are remembered, of one action
Solve = Callable[[str, str], Mapping[str, str]]


class FinalAnswer(BaseException):
    """Ends an action that has answered; no `except Exception` of the action stops it."""


class ToolClient:
    """Sends calls, one at a time, from whichever thread. solve: runs a solution's code here when a tool asks for it."""

    def __init__(self, channel: Channel, solve: Solve) -> None:
        self._channel, self._solve = channel, solve
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._requests = 0
        self._busy = False
        self._failures: dict[int, tuple[BaseException, str]] = {}

    def stubs(self) -> dict[str, Callable[..., Any]]:
        """The tools by name, once their process has set them up."""
        header, _ = self._channel.receive()
        return {name: self._stub(name) for name in header["tools"]}

    def begin(self) -> None:
        """A new action: what failed before is forgotten."""
        self._failures.clear()

    def failed_call(self, error: BaseException) -> tuple[int, str]:
        """The number of the call that raised this very exception, and its words; (0, "") for any other."""
        for number, (known, words) in self._failures.items():
            if known is error:
                return number, words
        return 0, ""

    def _stub(self, name: str) -> Callable[..., Any]:
        def tool(*arguments: Any, **keywords: Any) -> Any:
            return self.call(name, arguments, keywords)

        def final_answer(*arguments: Any, **keywords: Any) -> None:
            self.call(name, arguments, keywords)
            raise FinalAnswer

        chosen = final_answer if name == FINAL_ANSWER else tool
        chosen.__name__ = chosen.__qualname__ = name
        return chosen

    def call(self, name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """What the tool returns. Raises what it raised."""
        writer = Writer()
        try:
            header = _written(writer, arguments, keywords)
        except (Unsupported, RecursionError) as refused:
            if name == FINAL_ANSWER:  # anything may be an answer; its text will do
                shown = [plain_or_text(value, _ANSWER_BYTES) for value in arguments]
                header = _written(
                    writer := Writer(), tuple(shown), {k: plain_or_text(v, _ANSWER_BYTES) for k, v in keywords.items()}
                )
            else:
                header = {"unsupported": str(refused) or type(refused).__name__}
        return self._ask({"call": name, **header}, bytes(writer.blob))

    def operate(self, handle: int, name: str, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """An operation of an object that stays with the tools."""
        writer = Writer()
        try:
            header = _written(writer, arguments, keywords)
        except Unsupported as refused:
            raise TypeError(f"a value of type {refused} cannot be given to an object of a tool") from None
        return self._ask({"operate": handle, "name": name, **header}, bytes(writer.blob))

    def _ask(self, header: Header, blob: bytes) -> Any:
        if os.getpid() != self._process:
            raise RuntimeError("tools can only be called in the action's own process, not in one that it started")
        with self._lock:
            if self._busy:
                raise RuntimeError("a tool cannot be called while another one works on it")
            self._busy = True
            try:
                self._requests += 1
                reply, data = self._exchange(header | {"request": self._requests}, blob)
            except ProtocolError as error:
                raise ValueError(f"the arguments are too large for a call of a tool: {error}") from None
            except Closed:  # the host ends the episode, and tells why; no code of the action goes on without tools
                threading.Event().wait()
                raise
            finally:
                self._busy = False
        sys.stdout.write(reply.get("printed", ""))
        if "failed" in reply:
            raise self._failure(reply, data)
        return reply["value"] if "value" in reply else unpack(data, self.operate)

    def _exchange(self, header: Header, blob: bytes) -> tuple[Header, bytes]:
        self._channel.send(header, blob)
        while True:
            reply, data = self._channel.receive()
            if "solve" in reply:
                self._channel.send({"solved": dict(self._solve(reply["solve"], reply["finish"]))})
            elif reply["reply"] == header["request"]:  # else of a call that an exception broke off
                return reply, data

    def _failure(self, reply: Header, data: bytes) -> BaseException:
        error: BaseException = ToolFailure(Status(reply["status"]), reply["failed"])
        if data:
            try:
                found = unpack(data, self.operate)
            except Exception:  # of a class that cannot be made again here
                found = error
            error = found if isinstance(found, BaseException) else error
        if number := reply.get("number"):
            while len(self._failures) >= _MOST_FAILURES:
                del self._failures[next(iter(self._failures))]
            self._failures[number] = (error, reply["failed"])
        return error


def _written(writer: Writer, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Header:
    return {
        "arguments": [writer.write(value) for value in arguments],
        "keywords": {key: writer.write(value) for key, value in keywords.items()},
    }
