"""A worker's first process and the one that holds the tools: start it, ask it for processes, hear how they end."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable

from regrpo_jax.sandbox import kernel
from regrpo_jax.sandbox.protocol import Bounds, Channel, Closed, Header, Late, ProtocolError
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.sandbox.tool_zygote import run_tool_zygote

_RELEASE_SECONDS = 0.3  # for a process of tools to be done with an episode
_MOST_EPISODES = 100  # of one process of tools
_MOST_GROWTH = 32 * 2**20  # bytes that it may have taken by then
_UNKNOWN = -1


class ToolsLost(Exception):
    """The process that holds the tools is gone, or does not answer; or it could not load them, as the words say."""


class ToolsLine:
    """zygote: the process that holds the tools, 0 when it is gone. tools: that of the open episode's tools, 0 for none.

    idle: one that waits for the next episode, where all tools are `stateless`. ended: how the open episode's ended by
    itself, if it did.
    """

    def __init__(self, settings: SandboxSettings, loader: str, toolset: bytes, weak: bool) -> None:
        ours, theirs = socket.socketpair()
        self.zygote = os.fork()
        if self.zygote == 0:
            run_tool_zygote(theirs, settings, loader, toolset, weak)
        theirs.close()
        self.channel = Channel(ours, Bounds())
        told, _ = self.channel.receive()
        if "failed" in told:
            raise ToolsLost(told["failed"])
        self.reuses = bool(told["stateless"]) and not weak  # without the filter, an action could change its limits
        self.tools = self.idle = self._served = self._episode = 0
        self.ended: Header | None = None
        self.resident = kernel.resident_bytes(self.zygote)

    @property
    def staying(self) -> set[int]:
        """The processes that outlive the episode."""
        return {self.zygote, self.idle}

    def ask(self, episode: int, wrap: str, descriptors: tuple[int, int], processes: int) -> None:
        """A process for an episode's tools, with its channels to the host and to the action. ToolsLost."""
        self._episode, self.ended = episode, None
        self._served = self._served + 1 if self.idle else 1
        self.tools, self.idle = _UNKNOWN, 0
        try:
            self.channel.send({"serve": episode, "wrap": wrap, "processes": processes}, fds=descriptors)
        except Closed:
            raise ToolsLost("the process that holds the tools is gone") from None

    def hear_all(self) -> None:
        """What was told so far. ToolsLost."""
        try:
            while (message := self.channel.receive_now()) is not None:
                self._hear(message[0])
        except (Closed, ProtocolError):
            self._lose()

    def _hear(self, header: Header) -> None:
        if header["episode"] != self._episode:
            return
        if "process" in header:
            self.tools = header["process"]
        elif "idle" in header:
            self.tools, self.idle = 0, self.tools
        else:
            self.tools, self.idle, self.ended = 0, 0, header["ended"]

    def _lose(self) -> None:
        self.zygote = self.tools = self.idle = 0
        raise ToolsLost("the process that holds the tools is gone")

    def _wait(self, deadline: float, told: Callable[[], bool]) -> None:
        while not told():
            try:
                self._hear(self.channel.receive(deadline)[0])
            except (Closed, ProtocolError):
                self._lose()
            except Late:
                raise ToolsLost("the process that holds the tools does not answer") from None

    def known(self, deadline: float) -> None:
        """Until the process of the episode's tools is known, or gone. ToolsLost."""
        self._wait(deadline, lambda: self.tools != _UNKNOWN)

    def gone(self, deadline: float) -> None:
        """Until it is gone, after it was killed: so the process that holds the tools lives, and answers. ToolsLost."""
        self._wait(deadline, lambda: self.tools == 0)

    def release(self, ordinary: Callable[[int], bool]) -> bool:
        """Let the process of the episode's tools wait for the next one, if nothing speaks against it. ToolsLost."""
        tools = self.tools
        if not self.reuses or tools <= 0 or self._served >= _MOST_EPISODES or not ordinary(tools):
            return False
        if self.taken(tools) > _MOST_GROWTH:
            return False
        try:
            self.channel.send({"finish": self._episode})
        except Closed:
            self._lose()
        try:
            self._wait(time.monotonic() + _RELEASE_SECONDS, lambda: self.tools == 0)
        except ToolsLost:
            if not self.zygote:
                raise
            return False  # it is busy, or somebody stopped it
        return bool(self.idle)

    def drop_idle(self, deadline: float) -> None:
        """Kill the one that waits for the next episode. ToolsLost."""
        self.tools, self.idle = self.idle, 0
        kernel.kill_all([self.tools])
        self.gone(deadline)

    def taken(self, pid: int) -> int:
        """Bytes of memory that a process forked from the one that holds the tools has of its own."""
        return max(0, kernel.resident_bytes(pid) - self.resident)
