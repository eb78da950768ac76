"""The warm process that has loaded the tools, and forks the processes of episodes in which they run.

It never runs a tool's call, never reads anything of an episode, and outlives all episodes of its worker. The worker's
first process asks it for processes and hears from it how they ended. Each episode gets a fork of its own, unless all
tools say that they are `stateless`: then one that has served an episode to its ordinary end serves the next one too,
because a fork of a process this large costs more than an episode of small tools.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any

from regrpo_jax.sandbox import kernel
from regrpo_jax.sandbox.limits import lead_nowhere
from regrpo_jax.sandbox.protocol import Bounds, Channel, Closed, Header
from regrpo_jax.sandbox.settings import SandboxSettings


class ToolZygote:
    """Loads the tools when it is made; whatever loading raises goes through."""

    def __init__(self, channel: Channel, settings: SandboxSettings, loader: str, toolset: bytes) -> None:
        # Here and not above: the process that this one is forked from stays small without them.
        from regrpo_jax.sandbox.tool_process import named, run_tool_process

        self.channel, self.settings = channel, settings
        self.named, self.run_tool_process = named, run_tool_process
        self.tools: dict[str, Any] = named(loader)(pickle.loads(toolset))
        for tool in self.tools.values():
            if callable(warm_up := getattr(tool, "warm_up", None)):
                warm_up()
        if "numpy" in sys.modules:
            importlib.import_module("numpy.random")  # which each episode seeds; numpy loads it when it is first named
        self.stateless = all(getattr(tool, "stateless", False) for tool in self.tools.values())
        self.child = self.child_end = -1
        self.child_line: Channel
        self.episode = 0
        gc.collect()
        gc.freeze()
        self.address_space = kernel.address_space_bytes()

    def serve(self) -> None:
        """Until the worker's first process is gone."""
        while True:
            poll = select.poll()
            poll.register(self.channel, select.POLLIN)
            if self.child_end >= 0:
                poll.register(self.child_end, select.POLLIN)
                poll.register(self.child_line, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self.child_end in ready:
                self._reap()
            elif self.child_end >= 0 and self.child_line.fileno() in ready:
                self._hear_child()
            if self.channel.fileno() in ready:
                descriptors: list[int] = []
                header, _ = self.channel.receive(fds=descriptors)
                if "finish" in header:
                    self._tell_child(header)
                else:
                    self._serve(header, descriptors)

    def _serve(self, header: Header, descriptors: list[int]) -> None:
        """A process for an episode: the one that is idle, else a new one."""
        if header["wrap"]:
            with contextlib.suppress(Exception):  # imported once; what is wrong with it is told by the child
                self.named(header["wrap"])
        self.episode = header["serve"]
        if self.child < 0 or not self._tell_child(header, descriptors):
            self._fork(header, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self.channel.send({"process": self.child, "episode": self.episode})

    def _tell_child(self, header: Header, descriptors: Sequence[int] = ()) -> bool:
        try:
            self.child_line.send(header, fds=descriptors)
            return True
        except Closed:
            return False

    def _hear_child(self) -> None:
        with contextlib.suppress(Closed):
            if self.child_line.receive_now() is not None:
                self.channel.send({"idle": True, "episode": self.episode})

    def _fork(self, header: Header, descriptors: list[int]) -> None:
        if self.child >= 0:  # it ended just now
            self._reap()
        ours, theirs = socket.socketpair()
        self.child = os.fork()
        if self.child == 0:
            host, action = descriptors
            limits = self.address_space, header["processes"]
            self.run_tool_process(theirs.fileno(), host, action, self.settings, self.tools, *limits)
        theirs.close()
        self.child_line = Channel(ours, Bounds())
        self.child_end = os.pidfd_open(self.child)

    def _reap(self) -> None:
        _, status = os.waitpid(self.child, 0)
        os.close(self.child_end)
        self.child_line.close()
        self.child = self.child_end = -1
        self.channel.send({"ended": ending(status), "episode": self.episode})


def ending(status: int) -> Header:
    """A wait status as a message's fields."""
    if os.WIFSIGNALED(status):
        return {"signal": os.WTERMSIG(status)}
    return {"exit": os.waitstatus_to_exitcode(status)}


def run_tool_zygote(end: socket.socket, settings: SandboxSettings, loader: str, toolset: bytes, weak: bool) -> None:
    """What the forked child does; never returns."""
    try:
        os.closerange(3, end.fileno())
        os.closerange(end.fileno() + 1, 65_536)
        if weak:
            kernel.die_with_parent()
        kernel.hide_memory()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        channel = Channel(end, Bounds(), descriptors=True)
        try:
            zygote = ToolZygote(channel, settings, loader, toolset)
        except Exception as error:
            channel.send({"failed": f"{type(error).__name__}: {error}"[:4000]})
            return
        channel.send({"ready": True, "stateless": zygote.stateless})
        lead_nowhere()
        zygote.serve()
    except Closed:
        pass  # the worker ends
    finally:
        os._exit(0)
