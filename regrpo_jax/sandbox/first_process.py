"""The first process of a worker: small, and the one that nothing inside can kill.

It starts the process that holds the tools, forks the process of each episode's actions, kills everything of an episode
and empties the folders afterwards, looks after the memory, files and sockets of all processes together, and tells the
host how an episode's processes ended. It sees neither contents of files nor anything that an action must not know: the
next episode's action is a copy of it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import select
import signal
import socket
import time
from typing import Any

from regrpo_jax.sandbox import determinism, kernel
from regrpo_jax.sandbox.action_process import run_action_process
from regrpo_jax.sandbox.folders import FolderError, digests, empty_folder, new_file, open_file
from regrpo_jax.sandbox.protocol import Channel, Header
from regrpo_jax.sandbox.settings import Start
from regrpo_jax.sandbox.tool_zygote import ending
from regrpo_jax.sandbox.tools_line import ToolsLine, ToolsLost

_LOOK_SECONDS = 0.05  # between looks at what an open episode takes
_KILL_SECONDS = 2.0  # until all processes of an episode must be gone
_MOST_SOCKETS = 64
_SPARE_FILES = 16
_WARM = (
    "base64 bisect calendar cmath collections contextlib copy csv dataclasses datetime decimal enum fractions "
    "functools glob heapq hashlib html io itertools json math numbers operator pathlib pprint random re secrets shutil "
    "statistics string struct tempfile textwrap traceback typing unicodedata uuid"
)


class FirstProcess:
    """The episode that is open, and what it may do."""

    def __init__(self, control: Channel, start: Start, workspace: str, weak: bool) -> None:
        self.control, self.settings, self.workspace, self.weak = control, start.settings, workspace, weak
        folders = [workspace] if weak else [workspace, "/tmp", "/dev/shm"]
        # Python or the project may lie below /tmp, and are mounted there.
        self.folders = {folder: frozenset(os.listdir(folder)) for folder in folders}
        self.episode = self.action = 0  # the number of the open episode, and the process of its actions
        self.action_end, self.next_look = -1, 0.0
        os.chdir(workspace)
        self.line = ToolsLine(self.settings, start.loader, start.toolset, weak)
        self._empty_folders()  # libraries keep caches where they are first used
        for name in _WARM.split():
            __import__(name)
        determinism.install()
        gc.collect()
        gc.freeze()
        self.address_space, self.resident = kernel.address_space_bytes(), kernel.resident_bytes()
        self.sockets = 0 if weak else kernel.sockets()
        self.standing = len(os.listdir(f"/proc/{self.line.zygote}/task")) + 2
        self.inodes = 0 if weak else sum(self._usage(folder)[1] for folder in self.folders)
        self.untouched = self.condition()

    def condition(self) -> dict[str, Any]:
        """What an episode could have changed of the processes that stay and of the folders, by name, to compare."""
        limits = tuple(resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name[:7] == "RLIMIT_")
        folders = tuple((os.stat(folder).st_mode, *os.listxattr(folder)) for folder in self.folders)
        usage = () if self.weak else tuple(self._usage(folder) for folder in self.folders)
        scheduling = _scheduling(os.getpid()), _scheduling(self.line.zygote)
        return {"limits": limits, "scheduling": scheduling, "folder modes": folders, "disk usage": usage}

    def _changed(self) -> list[str]:
        return [name for name, value in self.condition().items() if value != self.untouched[name]]

    @staticmethod
    def _usage(folder: str) -> tuple[int, int]:
        status = os.statvfs(folder)
        return status.f_blocks - status.f_bfree, status.f_files - status.f_ffree

    def serve(self) -> None:
        """Until the host is gone. ToolsLost when the tools are, and no episode is open that could have done it."""
        while True:
            poll = select.poll()
            poll.register(self.control, select.POLLIN)
            if self.line.zygote:
                poll.register(self.line.channel, select.POLLIN)
            if self.action:
                poll.register(self.action_end, select.POLLIN)
            ready = {descriptor for descriptor, _ in poll.poll(_LOOK_SECONDS * 1000 if self.action else None)}
            if self.line.channel.fileno() in ready:
                self._hear()
            if self.control.fileno() in ready:
                descriptors: list[int] = []
                header, _ = self.control.receive(fds=descriptors)
                self._answer(header, descriptors)
            if self.action and (time.monotonic() > self.next_look or self.action_end in ready):
                self._look()
                self.next_look = time.monotonic() + _LOOK_SECONDS

    def _answer(self, header: Header, descriptors: list[int]) -> None:
        blob, given = b"", []
        try:
            match header["do"]:
                case "open":
                    self._open(header, descriptors)
                case "close":
                    self._close()
                case "read":
                    given = [open_file(self.workspace, header["name"])]
                case "write":
                    given = [new_file(self.workspace, header["name"])]
                case "files":
                    found = digests(self.workspace, self.settings.max_files)
                    blob = "\0".join(f"{digest}{name}" for name, digest in found).encode("utf-8")
            answer: Header = {"done": header["do"]}
        except (FolderError, OSError) as error:
            answer = {"failed": str(error)[:4000]}
        self.control.send(answer, blob, fds=given)
        for descriptor in given:
            os.close(descriptor)

    def _open(self, header: Header, descriptors: list[int]) -> None:
        """Fork the episode's two processes. descriptors: the host's channels to the tools, and to the action."""
        tools, action = descriptors
        ours, theirs = socket.socketpair()
        self.episode += 1
        processes = self.standing + self.settings.max_processes
        self.line.ask(self.episode, header["wrap"], (tools, theirs.fileno()), 2 * processes)
        self.action = os.fork()
        if self.action == 0:
            if self.weak:
                kernel.die_with_parent()
            limits = self.address_space, processes
            run_action_process(action, ours.fileno(), self.settings, header["seed"], *limits)
        self.action_end = os.pidfd_open(self.action)
        for end in (ours, theirs):
            end.close()
        for descriptor in descriptors:
            os.close(descriptor)

    def _hear(self) -> None:
        """What the process that holds the tools tells."""
        try:
            self.line.hear_all()
        except ToolsLost:
            if not self.action:
                raise
            self._end({"who": "tools", "signal": signal.SIGKILL})  # somebody in the episode did that
        if self.line.ended is not None and self.action:
            self._end({"who": "tools", **self.line.ended})

    def _look(self) -> None:
        """Tell the host if the action's process ended; end the episode if its processes together take too much."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == self.action:
                self._end({"who": "action", **ending(status)})
                return
            if pid == 0:
                break
        limit, words = self._over_limit()
        if limit:
            self._end({"who": "action", "signal": signal.SIGKILL, "limit": limit, "words": words})

    def _over_limit(self) -> tuple[str, str]:
        """Which limit of all processes together is exceeded, and its words; ("", "") for none."""
        taken = 0
        for pid in self._of_the_episode():
            from_tools = self.line.tools in (pid, -1)
            taken += self.line.taken(pid) if from_tools else max(0, kernel.resident_bytes(pid) - self.resident)
        if taken > self.settings.memory_bytes * 1.25:  # RLIMIT_AS, which is exact, should be met first
            return "memory", f"memory of {self.settings.memory_bytes} bytes"
        if self.weak:
            return "", ""
        inodes = sum(self._usage(folder)[1] for folder in self.folders) - self.inodes
        if inodes > self.settings.max_files + _SPARE_FILES:
            return "files", f"{self.settings.max_files} files"
        if kernel.sockets() > self.sockets + _MOST_SOCKETS:
            return "sockets", f"{_MOST_SOCKETS} sockets"
        return "", ""

    def _of_the_episode(self) -> set[int]:
        """All processes of the episode; without a namespace, those whose parents tell."""
        staying = {os.getpid(), *self.line.staying}
        if self.weak:
            return kernel.alive(kernel.descendants(os.getpid()) - staying)
        return set(kernel.processes()) - staying

    def _end(self, told: Header) -> None:
        """The episode ends before the host says so."""
        try:
            self._kill_episode()
        except FolderError as error:  # the host will not use this worker again
            told["unclean"] = str(error)
        self.control.send({"ended": told})

    def _kill_episode(self, *, release: bool = False) -> None:
        """SIGKILL for everything but the processes that stay, until it is gone. FolderError when that is not soon.

        release: let the process of the tools stay as well, where that can be.
        """
        deadline = time.monotonic() + _KILL_SECONDS
        self.action = 0
        if self.action_end >= 0:
            os.close(self.action_end)
            self.action_end = -1
        try:
            self.line.known(deadline)
            kernel.kill_all(self._of_the_episode() - ({self.line.tools} if release else set()))
            if not (release and self.line.release(self._is_ordinary)):
                kernel.kill_all(self._of_the_episode())
                self.line.gone(deadline)
        except ToolsLost as error:
            self._kill_the_rest(deadline)
            raise FolderError(str(error)) from error
        self._kill_the_rest(deadline)
        if not self.line.zygote:
            raise FolderError("the process that holds the tools is gone")

    def _is_ordinary(self, pid: int) -> bool:
        """Whether a process runs as the one that holds the tools does."""
        return _scheduling(pid) == self.untouched["scheduling"][1]

    def _kill_the_rest(self, deadline: float) -> None:
        while left := self._of_the_episode():
            kernel.kill_all(left)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            if time.monotonic() > deadline:
                raise FolderError(f"{len(left)} processes of the episode cannot be killed")
            time.sleep(0.0005)

    def _empty_folders(self) -> None:
        for folder, mounted in self.folders.items():
            empty_folder(folder, keep=mounted)

    def _close(self) -> None:
        self._kill_episode(release=bool(self.action))
        self._empty_folders()
        changed = self._changed()
        if changed and self.line.idle:  # it may hold a file that is deleted
            try:
                self.line.drop_idle(time.monotonic() + _KILL_SECONDS)
            except ToolsLost as error:
                raise FolderError(str(error)) from error
            changed = self._changed()
        if changed:
            raise FolderError(f"the episode left something behind: {', '.join(changed)}")


def _scheduling(pid: int) -> tuple[Any, ...]:
    try:
        return os.sched_getaffinity(pid), os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)
    except ProcessLookupError:
        return ()
