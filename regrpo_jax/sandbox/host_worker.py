"""The host's hold on one worker: start it, ask its first process for things, kill all of it."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox import kernel
from regrpo_jax.sandbox.folders import PLAIN_TIME
from regrpo_jax.sandbox.isolation import Command, filter_file
from regrpo_jax.sandbox.protocol import Bounds, Channel, Closed, Header, Late, ProtocolError
from regrpo_jax.sandbox.results import SandboxError, TooLarge
from regrpo_jax.sandbox.settings import SandboxSettings

_DEATH_SECONDS = 10.0
_NAME_BYTES = 4200  # of a file, with its digest


@dataclass(frozen=True)
class Opening:
    """What an episode starts with.

    files: of the workspace. behind: what only its tools read. seed: of the action's random numbers. wrap,
    wrap_settings, tool_seed: of the tools' faults and random numbers. An action's process gets `files` and `seed`.
    """

    files: Mapping[str, bytes]
    seed: int = 0
    wrap: str = ""
    wrap_settings: Any = None
    behind: Mapping[str, bytes] = field(default_factory=dict)
    tool_seed: int = 0

    def message(self) -> tuple[Header, bytes]:
        """For the process of the tools."""
        header = {
            "files": [[name, len(data)] for name, data in self.files.items()],
            "behind": [[name, len(data)] for name, data in self.behind.items()],
            "wrap": self.wrap,
            "wrap_settings": self.wrap_settings,
            "seed": self.tool_seed,
        }
        return header, b"".join((*self.files.values(), *self.behind.values()))


@dataclass(frozen=True)
class Line:
    """The host's channels to the two processes of an episode."""

    action: Channel
    tools: Channel

    def close(self) -> None:
        self.action.close()
        self.tools.close()


class HostWorker:
    """A started worker. `Popen` must be called in a thread that outlives it: the kernel kills it with that thread."""

    def __init__(self, command: Command, settings: SandboxSettings, start: Any) -> None:
        self.command, self.settings = command, settings
        self.ended: Header | None = None  # how the episode ended, once the worker told
        ours, theirs = socket.socketpair()
        self.control = Channel(ours, Bounds(blob=settings.max_files * _NAME_BYTES), descriptors=True)
        self._asking = threading.RLock()  # one request at a time, from whichever thread
        self._killing, self._dead = threading.Lock(), False
        self.errors = os.memfd_create("sandbox-errors")  # what the worker says before it is ready
        self.child = -1  # a pidfd of the first process, with bubblewrap
        try:
            self.process = self._spawn(command, theirs.fileno())
        except OSError as error:
            self.control.close()
            raise SandboxError(f"a sandbox worker does not start: {error}") from error
        finally:
            theirs.close()
        self.control.send({"do": "start"}, pickle.dumps(start), deadline=time.monotonic() + settings.start_seconds)

    def _spawn(self, command: Command, descriptor: int) -> subprocess.Popen[bytes]:
        place = (str(descriptor), str(command.uid), "weak" if command.weak else "isolated", command.workspace)
        arguments, passed = list(command.arguments), [descriptor]
        information = -1
        if not command.weak:
            information, told = os.pipe()
            passed.append(told)
            extra = ["--info-fd", str(told)]
            seccomp = filter_file()
            if seccomp is not None:
                passed.append(seccomp)
                extra += ["--seccomp", str(seccomp)]
            cut = arguments.index("--")
            arguments[cut:cut] = extra
        try:
            process = subprocess.Popen(
                [*arguments, *place],
                env=command.environment,
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=self.errors,
                stderr=self.errors,
                start_new_session=True,
                cwd="/",
            )
        finally:
            for passed_on in passed[1:]:
                os.close(passed_on)
        if information >= 0:
            with os.fdopen(information, "rb") as file:
                words = file.read(4096)
            try:
                pid = int(words.split(b'"child-pid":')[1].split(b",")[0].strip(b" \n}"))
                self.child = os.pidfd_open(pid)
            except (IndexError, ValueError, OSError):
                self.child = -1  # it did not get far; the first request tells why
        return process

    def wait_ready(self) -> None:
        """Until the tools are loaded. UserError when they cannot be, SandboxError when the worker cannot start."""
        try:
            answer, _ = self._reply(time.monotonic() + self.settings.start_seconds)
        except (Closed, Late, ProtocolError) as error:
            words = os.pread(self.errors, 2**20, 0)[-2000:].decode("utf-8", "replace").strip()
            late = "is not ready in time" if isinstance(error, Late) else "ended while starting"
            self.kill()
            raise SandboxError(f"a sandbox worker {late}: {words or type(error).__name__}") from error
        if "failed" in answer:
            self.kill()
            raise UserError(f"the tools cannot be loaded in the sandbox: {answer['failed']}")

    def _reply(self, deadline: float, fds: list[int] | None = None) -> tuple[Header, bytes]:
        while True:
            header, blob = self.control.receive(deadline, fds)
            if "ended" not in header:
                return header, blob
            self.ended = header["ended"]

    def wait_ended(self, seconds: float) -> Header | None:
        """How the episode ended, if the worker tells within `seconds`. Closed when the worker is gone itself."""
        deadline = time.monotonic() + seconds
        while self.ended is None:
            try:
                header, _ = self.control.receive(deadline)
            except (Late, ProtocolError):
                return None
            self.ended = header.get("ended", self.ended)
        return self.ended

    def ask(
        self, request: Header, *, give: Sequence[int] = (), take: list[int] | None = None, seconds: float = 20.0
    ) -> bytes:
        """One request to the worker's first process; what it answers. Descriptors are given and taken along.

        SandboxError when it cannot answer, OSError when it refuses.
        """
        deadline = time.monotonic() + seconds
        with self._asking:
            try:
                self.control.send(request, deadline=deadline, fds=give)
                answer, data = self._reply(deadline, take)
            except (Closed, Late, ProtocolError) as error:
                raise SandboxError(f"a sandbox worker is {type(error).__name__.lower()}") from error
        if "failed" in answer:
            raise OSError(str(answer["failed"]))
        return data

    def open(self, opening: Opening) -> Line:
        """Start an episode. UserError when its files or tools cannot be set up, SandboxError, OSError."""
        action, inner_action = socket.socketpair()
        tools, inner_tools = socket.socketpair()
        line = Line(Channel(action, Bounds(blob=self.settings.output_bytes)), Channel(tools, Bounds(blob=0)))
        self.ended = None
        try:
            with inner_action, inner_tools:
                request = {"do": "open", "seed": opening.seed, "wrap": opening.wrap}
                self.ask(request, give=(inner_tools.fileno(), inner_action.fileno()))
            self._set_up(line, opening)
        except BaseException:
            line.close()
            raise
        return line

    def _set_up(self, line: Line, opening: Opening) -> None:
        deadline = time.monotonic() + self.settings.start_seconds
        try:
            line.tools.send(*opening.message(), deadline=deadline)
            opened, _ = line.tools.receive(deadline)
        except (Closed, Late, ProtocolError) as error:
            words = f"the episode's tools do not start: {type(error).__name__} {error}"
            raise SandboxError(words) from error
        if "failed" in opened:
            what = "the episode cannot be opened" if "files" in opened else "the tools cannot be set up for the episode"
            raise UserError(f"{what}: {opened['failed']}")

    def read_file(self, name: str, most_bytes: int | None = None) -> bytes:
        """A regular file of the workspace. OSError when there is none, TooLarge, SandboxError."""
        most = self.settings.file_bytes if most_bytes is None else most_bytes
        taken: list[int] = []
        self.ask({"do": "read", "name": name}, take=taken)
        with os.fdopen(taken[0], "rb") as file:
            data = file.read(most + 1)
        if len(data) > most:
            raise TooLarge(f"{name[:100]!r} has more than {most} bytes")
        return data

    def write_file(self, name: str, data: bytes) -> None:
        """Put a file into the workspace. OSError, SandboxError."""
        if len(data) > self.settings.file_bytes:
            raise OSError(f"{name} has {len(data)} bytes; at most {self.settings.file_bytes} fit")
        taken: list[int] = []
        self.ask({"do": "write", "name": name}, take=taken)
        with os.fdopen(taken[0], "wb") as file:
            file.write(data)
            file.flush()
            os.utime(file.fileno(), (PLAIN_TIME, PLAIN_TIME))

    def files(self) -> dict[str, str]:
        """SHA-256 of each file of the workspace, by name. SandboxError."""
        listed = self.ask({"do": "files"}).decode("utf-8")
        return {entry[64:]: entry[:64] for entry in sorted(listed.split("\0"), key=lambda entry: entry[64:]) if entry}

    def alive(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL for the worker and all it started, until it is gone; its folder is deleted. May be called again."""
        with self._killing:
            if not self._dead:
                self._dead = True
                self._kill()

    def _kill(self) -> None:
        if self.child >= 0:
            with contextlib.suppress(ProcessLookupError):  # process 1 of the namespace: all of it goes
                signal.pidfd_send_signal(self.child, signal.SIGKILL)
        elif self.command.weak and self.alive():
            kernel.kill_descendants(self.process.pid)
            self.process.kill()
        else:
            self.process.kill()
        try:
            self.process.wait(_DEATH_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.child >= 0:
            poll = select.poll()  # bubblewrap may die before process 1, which is gone only when all the others are
            poll.register(self.child, select.POLLIN)
            poll.poll(_DEATH_SECONDS * 1000)
            os.close(self.child)
            self.child = -1
        self.control.close()
        os.close(self.errors)
        if self.command.weak:
            _kill_user(self.command.uid)
            shutil.rmtree(self.command.workspace, ignore_errors=True)


def _kill_user(uid: int) -> None:
    """SIGKILL for all processes of a user of our making, descendants or not."""
    if not uid:
        return
    for pid in kernel.processes():
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid or _real_uid(pid) == uid:
                kernel.kill_all([pid])
        except OSError:
            continue


def _real_uid(pid: int) -> int:
    with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as file:
        return next((int(line.split()[1]) for line in file if line.startswith("Uid:")), -1)


def modules_of(loader: str, toolset_settings: Any) -> Sequence[str]:
    """References whose packages the worker must be able to import."""
    world = getattr(toolset_settings, "world", "")
    return (loader, *getattr(toolset_settings, "user_tools", ()), *([world] if world else ()))
