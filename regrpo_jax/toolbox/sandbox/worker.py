"""The warm process of a worker ("zygote"): loads the tools once and forks one process per episode.

It runs inside the sandbox but never runs an action. In its pid namespace it is process 1, so nothing inside can
kill it; it kills everything else and empties the folders between episodes, looks after the memory of all
processes together, and tells the host how an episode ended. Started by `isolation.py` as
`python -m regrpo_jax.toolbox.sandbox.worker <socket> <uid> <weak> <workspace>`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import pickle
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

from regrpo_jax.toolbox.sandbox import kernel
from regrpo_jax.toolbox.sandbox.folders import (
    FolderError,
    digests,
    empty_folder,
    read_file,
    write_file,
)
from regrpo_jax.toolbox.sandbox.protocol import Bounds, Channel, Closed, Header
from regrpo_jax.toolbox.sandbox.settings import SandboxSettings

_LOOK_SECONDS = 0.05  # between looks at the memory of an open episode
_CONTROL = Bounds(header=2**20, blob=2**31)  # what the host sends is trusted and bounded there


@dataclass(frozen=True)
class Start:
    """What the host tells a worker first."""

    settings: SandboxSettings
    loader: str
    toolset_settings: Any


def named(reference: str) -> Callable[..., Any]:
    """The thing called "package.module:name"."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class Zygote:
    """The state of a worker: its tools, and the episode that is open."""

    def __init__(self, control: Channel, start: Start, workspace: str, weak: bool) -> None:
        # Here and not above: the host imports this module for `Start`, and has no use for the interpreter.
        from regrpo_jax.toolbox.sandbox.episode import run_episode
        from regrpo_jax.toolbox.sandbox.interpreter import interpreter

        self.run_episode = run_episode
        self.control, self.settings, self.workspace, self.weak = control, start.settings, workspace, weak
        folders = [workspace] if weak else [workspace, "/tmp", "/dev/shm"]
        # Python or the project may lie below /tmp, and are mounted there.
        self.folders = {folder: frozenset(os.listdir(folder)) for folder in folders}
        self.tools = named(start.loader)(start.toolset_settings)
        for tool in self.tools.values():
            if callable(warm_up := getattr(tool, "warm_up", None)):
                warm_up()
        self.executor = None if self.settings.native else interpreter(self.settings.imports)
        self.child = 0
        self.over_limit = ""
        os.chdir(workspace)
        self._empty_folders()  # libraries keep caches where they are first used
        gc.collect()
        gc.freeze()
        self.resident = kernel.resident_bytes()
        self.untouched = self.condition()

    def condition(self) -> dict[str, Any]:
        """What an episode could have changed of this process and its folders, by name, to compare."""
        limits = tuple(resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name[:7] == "RLIMIT_")
        scheduling = (os.sched_getaffinity(0), os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))
        folders = tuple((os.stat(folder).st_mode, *os.listxattr(folder)) for folder in self.folders)
        usage = () if self.weak else tuple(self._usage(folder) for folder in self.folders)
        return {"limits": limits, "scheduling": scheduling, "folder modes": folders, "disk usage": usage}

    @staticmethod
    def _usage(folder: str) -> tuple[int, int]:
        status = os.statvfs(folder)
        return status.f_blocks - status.f_bfree, status.f_files - status.f_ffree

    def serve(self) -> None:
        """Until the host is gone."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        while True:
            if poll.poll(_LOOK_SECONDS * 1000 if self.child else None):
                descriptors: list[int] = []
                header, blob = self.control.receive(fds=descriptors)
                self.control.send(*self._answer(header, blob, descriptors))
            if self.child:
                self._look()

    def _answer(self, header: Header, blob: bytes, descriptors: list[int]) -> tuple[Header, bytes]:
        try:
            match header["do"]:
                case "open":
                    self._open(header, blob, socket.socket(fileno=descriptors[0]))
                    return {"opened": True}, b""
                case "close":
                    self._close()
                    return {"clean": True}, b""
                case "read":
                    return {"read": True}, read_file(self.workspace, header["name"], self.settings.file_bytes)
                case "write":
                    write_file(self.workspace, header["name"], blob)
                    return {"written": True}, b""
                case "files":
                    found = digests(self.workspace, self.settings.max_files, self.settings.file_bytes)
                    return {"files": found}, b""
            return {"failed": f"unknown request {header['do']!r}"}, b""
        except (FolderError, OSError) as error:
            return {"failed": str(error)[:4000]}, b""
        except Exception as error:
            return {"failed": f"{type(error).__name__}: {error}"[:4000]}, b""

    def _open(self, header: Header, blob: bytes, end: socket.socket) -> None:
        wrap = named(header["wrap"]) if header["wrap"] else None
        position = 0
        for name, size in header["files"]:
            write_file(self.workspace, name, blob[position : position + size])
            position += size
        behind = {}
        for name, size in header["behind"]:
            behind[name] = blob[position : position + size]
            position += size
        self.over_limit = ""
        self.child = os.fork()
        if self.child == 0:
            if self.weak:
                kernel.die_with_parent()
            channel = Channel(end, Bounds(header=2**20, blob=2**24))
            self.run_episode(
                channel, self.settings, self.tools, self.executor, wrap, header["wrap_settings"], header["seed"], behind
            )
        end.close()

    def _look(self) -> None:
        """Tell the host if the episode's process ended; end it if all its processes together take too much."""
        status = 0
        while True:
            try:
                pid, found = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                pid, found = self.child, status
            if pid == self.child:
                self._end(found)
                return
            if pid == 0:
                break
        others = kernel.descendants(os.getpid()) if self.weak else set(kernel.processes()) - {os.getpid()}
        taken = sum(max(0, kernel.resident_bytes(pid) - self.resident) for pid in others)
        if taken > self.settings.memory_bytes * 1.25:  # RLIMIT_AS, which is exact, should be met first
            self.over_limit = f"memory of {self.settings.memory_bytes} bytes"
        elif (
            not self.weak and os.statvfs(self.workspace).f_files - os.statvfs(self.workspace).f_ffree > self.most_files
        ):
            self.over_limit = f"{self.settings.max_files} files"
        if self.over_limit:
            self._kill_episode()
            self._end(signal.SIGKILL)

    @property
    def most_files(self) -> int:
        return self.settings.max_files + 16

    def _end(self, status: int) -> None:
        self.child = 0
        self._kill_episode()
        ended = (
            {"signal": os.WTERMSIG(status)} if os.WIFSIGNALED(status) else {"exit": os.waitstatus_to_exitcode(status)}
        )
        self.control.send({"ended": ended | {"limit": self.over_limit}})

    def _kill_episode(self) -> None:
        """SIGKILL for everything but this process, until it is gone."""
        while True:
            if self.weak:
                kernel.kill_descendants(os.getpid())
            else:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(-1, signal.SIGKILL)
            try:
                while os.waitpid(-1, os.WNOHANG if self.weak else 0)[0]:
                    pass
                time.sleep(0.001)
            except ChildProcessError:
                return

    def _empty_folders(self) -> None:
        for folder, mounted in self.folders.items():
            empty_folder(folder, keep=mounted)

    def _close(self) -> None:
        self.child = 0
        self._kill_episode()
        self._empty_folders()
        changed = [name for name, value in self.condition().items() if value != self.untouched[name]]
        if changed:
            raise FolderError(f"the episode left something behind: {', '.join(changed)}")


def main(arguments: list[str]) -> NoReturn:
    descriptor, uid, weak, workspace = int(arguments[0]), int(arguments[1]), arguments[2] == "weak", arguments[3]
    if weak:
        kernel.adopt_orphans()
        kernel.leave_network()
    if uid:
        kernel.drop_to(uid)
    elif weak and os.geteuid() == 0:
        kernel.drop_capabilities()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # process 1 gets no signal from inside that it has no handler for
    kernel.gain_nothing()
    kernel.hide_memory()
    if not weak:
        kernel.die_with_parent()  # again: the change of uid undid bubblewrap's
    control = Channel(socket.socket(fileno=descriptor), _CONTROL)
    os.set_inheritable(descriptor, False)
    zygote = None
    try:
        _, blob = control.receive()
        try:
            zygote = Zygote(control, pickle.loads(blob), workspace, weak)
        except Exception as error:
            control.send({"failed": f"{type(error).__name__}: {error}"[:4000]})
        else:
            control.send({"ready": True, "tools": sorted(zygote.tools)})
            nowhere = os.open(os.devnull, os.O_RDWR)
            for standard in (0, 1, 2):
                os.dup2(nowhere, standard)
            os.close(nowhere)
            zygote.serve()
    except Closed:
        pass  # the host is gone or is done with us
    if weak:  # nobody else would
        kernel.kill_descendants(os.getpid())
        try:
            empty_folder(workspace)
            os.rmdir(workspace)
        except (FolderError, OSError):
            pass
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
