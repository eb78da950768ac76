"""The warm process that has loaded the tools, and forks one process per episode in which they run.

It never runs a tool's call, never reads anything of an episode, and outlives all episodes of its worker. The worker's
first process asks it for forks and hears from it how they ended.
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
from typing import Any

from regrpo_jax.toolbox.sandbox import kernel
from regrpo_jax.toolbox.sandbox.limits import only_keep
from regrpo_jax.toolbox.sandbox.protocol import Bounds, Channel, Closed, Header
from regrpo_jax.toolbox.sandbox.settings import SandboxSettings


class ToolZygote:
    """Loads the tools when it is made; whatever loading raises goes through."""

    def __init__(self, channel: Channel, settings: SandboxSettings, loader: str, toolset: bytes) -> None:
        # Here and not above: the process that this one is forked from stays small without them.
        from regrpo_jax.toolbox.sandbox.tool_process import named, run_tool_process

        self.channel, self.settings = channel, settings
        self.named, self.run_tool_process = named, run_tool_process
        self.tools: dict[str, Any] = named(loader)(pickle.loads(toolset))
        for tool in self.tools.values():
            if callable(warm_up := getattr(tool, "warm_up", None)):
                warm_up()
        if "numpy" in sys.modules:
            importlib.import_module("numpy.random")  # which each episode seeds; numpy loads it when it is first named
        self.child = self.child_end = -1
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
            ready = {descriptor for descriptor, _ in poll.poll()}
            if self.child_end in ready:
                self._reap()
            if self.channel.fileno() in ready:
                descriptors: list[int] = []
                header, _ = self.channel.receive(fds=descriptors)
                self._fork(header, descriptors)

    def _fork(self, header: Header, descriptors: list[int]) -> None:
        if header["wrap"]:
            with contextlib.suppress(Exception):  # imported once; what is wrong with it is told by the child
                self.named(header["wrap"])
        self.episode = header["fork"]
        self.child = os.fork()
        if self.child == 0:
            host, action = descriptors
            limits = self.address_space, header["processes"]
            self.run_tool_process(host, action, self.settings, self.tools, *limits)
        for descriptor in descriptors:
            os.close(descriptor)
        self.child_end = os.pidfd_open(self.child)
        self.channel.send({"forked": self.child, "episode": self.episode})

    def _reap(self) -> None:
        _, status = os.waitpid(self.child, 0)
        os.close(self.child_end)
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
        channel.send({"ready": True, "tools": sorted(zygote.tools)})
        only_keep((channel.fileno(),))
        zygote.serve()
    except Closed:
        pass  # the worker ends
    finally:
        os._exit(0)
