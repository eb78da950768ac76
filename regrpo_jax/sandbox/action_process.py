"""The process of one episode that runs its actions: a fork of the worker's first process, under limits, not trusted.

It knows nothing that an action may not know. It tells the host how an action's code ended, what it printed and which
images there are; whether a call of a tool failed, and how, the host hears from the process of the tools.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import sys

from regrpo_jax.sandbox import determinism
from regrpo_jax.sandbox.capture import Output
from regrpo_jax.sandbox.folders import FolderError, checked_parts, regular_files
from regrpo_jax.sandbox.limits import call_bounds, limit_cpu, only_keep, set_limits
from regrpo_jax.sandbox.plain_python import Program, error_words, is_refused
from regrpo_jax.sandbox.protocol import Bounds, Channel, Closed, Header
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.sandbox.tool_stubs import ToolClient
from regrpo_jax.toolbox import solutions

_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_MOST_IMAGES = 64
Marks = dict[str, tuple[int, int, int]]


class ActionProcess:
    """Reads actions from the host's channel and answers them, one at a time."""

    def __init__(self, host: Channel, calls: Channel, settings: SandboxSettings) -> None:
        self.host, self.settings = host, settings
        self.process, self.workspace = os.getpid(), os.getcwd()
        self.client = ToolClient(calls, solutions.solve)

    def serve(self) -> None:
        """Until the host closes the channel or kills us."""
        program = Program(self.client.stubs())
        seen = self._pictures()
        while True:
            header, code = self.host.receive()
            limit_cpu(self.settings.cpu_seconds)
            self.client.begin()
            output = Output(self.settings.text_characters)
            error = program.run(code.decode("utf-8", "surrogatepass"), output)
            if os.getpid() != self.process:  # a child that came to the end of the action's code
                return
            raised = None if error is None else self._told(error, program, output)
            found = self._pictures()
            written = sorted(name for name, mark in found.items() if seen.get(name) != mark)[:_MOST_IMAGES]
            seen = found
            self.host.send(
                {"done": header["run"], "raised": raised, "size": output.collected.bytes, "images": written},
                output.collected.text().removesuffix("\n").encode("utf-8", "replace"),
            )

    def _told(self, error: BaseException, program: Program, output: Output) -> Header:
        """Write the error into the output, and say whose it was."""
        number, words = self.client.failed_call(error)
        where = program.place(error)
        output.line(f"Error{f' at `{where}`' if where else ''}: {words or error_words(error)}")
        return {"call": number, "refused": is_refused(error)}

    def _pictures(self) -> Marks:
        found: Marks = {}
        for name, status in regular_files(self.workspace, self.settings.max_files):
            if name.lower().endswith(_IMAGES) and _is_name(name):
                found[name] = (status.st_ino, status.st_mtime_ns, status.st_size)
        return found


def _is_name(name: str) -> bool:
    try:
        name.encode("utf-8")
        return bool(checked_parts(name))
    except (FolderError, UnicodeEncodeError):
        return False


def run_action_process(
    host: int, calls: int, settings: SandboxSettings, seed: int, address_space: int, processes: int
) -> None:
    """What the forked child does; never returns."""
    code = 1
    try:
        os.setsid()
        host, calls = only_keep((host, calls))
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.stdin = io.StringIO()
        determinism.begin(seed)
        process = ActionProcess(
            Channel(socket.socket(fileno=host), Bounds(blob=2**24)),
            Channel(socket.socket(fileno=calls), call_bounds(settings)),
            settings,
        )
        set_limits(settings, address_space, processes)
        process.serve()
        code = 0
    except Closed:
        code = 0
    finally:
        os._exit(code)
