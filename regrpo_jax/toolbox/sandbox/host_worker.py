"""The host's hold on one worker: start it, ask its zygote for things, kill all of it."""

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
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.toolbox.sandbox import kernel
from regrpo_jax.toolbox.sandbox.isolation import Command, filter_file
from regrpo_jax.toolbox.sandbox.protocol import Bounds, Channel, Closed, Header, Late, ProtocolError
from regrpo_jax.toolbox.sandbox.results import SandboxError
from regrpo_jax.toolbox.sandbox.settings import SandboxSettings

_DEATH_SECONDS = 10.0


class HostWorker:
    """A started worker. `Popen` must be called in a thread that outlives it: the kernel kills it with that thread."""

    def __init__(self, command: Command, settings: SandboxSettings, start: Any) -> None:
        self.command, self.settings = command, settings
        self.ended: Header | None = None  # how the episode's process ended, once the zygote told
        ours, theirs = socket.socketpair()
        self.control = Channel(ours, Bounds(header=2**20, blob=settings.file_bytes))
        self._killing, self._dead = threading.Lock(), False
        self.errors = os.memfd_create("sandbox-errors")  # what the worker says before it is ready
        self.child = -1  # a pidfd of the zygote, with bubblewrap
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
            answer = self._reply(time.monotonic() + self.settings.start_seconds)
        except (Closed, Late, ProtocolError) as error:
            words = os.pread(self.errors, 2**20, 0)[-2000:].decode("utf-8", "replace").strip()
            late = "is not ready in time" if isinstance(error, Late) else "ended while starting"
            self.kill()
            raise SandboxError(f"a sandbox worker {late}: {words or type(error).__name__}") from error
        if "failed" in answer:
            self.kill()
            raise UserError(f"the tools cannot be loaded in the sandbox: {answer['failed']}")

    def _reply(self, deadline: float) -> Header:
        return self._reply_with_blob(deadline)[0]

    def _reply_with_blob(self, deadline: float) -> tuple[Header, bytes]:
        while True:
            header, blob = self.control.receive(deadline)
            if "ended" not in header:
                return header, blob
            self.ended = header["ended"]

    def wait_ended(self, seconds: float) -> Header | None:
        """How the episode's process ended, if the zygote tells within `seconds`. Closed when it is gone itself."""
        deadline = time.monotonic() + seconds
        while self.ended is None:
            try:
                header, _ = self.control.receive(deadline)
            except (Late, ProtocolError):
                return None
            self.ended = header.get("ended", self.ended)
        return self.ended

    def ask(
        self, request: Header, blob: bytes = b"", fd: int | None = None, seconds: float = 20.0
    ) -> tuple[Header, bytes]:
        """One request to the zygote. SandboxError when it cannot answer, OSError when it refuses."""
        deadline = time.monotonic() + seconds
        try:
            self.control.send(request, blob, deadline=deadline, fd=fd)
            answer, data = self._reply_with_blob(deadline)
        except (Closed, Late, ProtocolError) as error:
            raise SandboxError(f"a sandbox worker is {type(error).__name__.lower()}") from error
        if "failed" in answer:
            raise OSError(str(answer["failed"]))
        return answer, data

    def open(
        self, files: Mapping[str, bytes], seed: int, wrap: str, wrap_settings: Any, behind: Mapping[str, bytes]
    ) -> Channel:
        """Start an episode; the channel that its process listens to. SandboxError, OSError (a file name refused)."""
        ours, theirs = socket.socketpair()
        self.ended = None
        request = {
            "do": "open",
            "seed": seed,
            "wrap": wrap,
            "wrap_settings": wrap_settings,
            "files": [[name, len(data)] for name, data in files.items()],
            "behind": [[name, len(data)] for name, data in behind.items()],
        }
        try:
            self.ask(request, b"".join([*files.values(), *behind.values()]), fd=theirs.fileno())
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return Channel(ours, Bounds(header=2**20, blob=self.settings.output_bytes))

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
    return (loader, *getattr(toolset_settings, "user_tools", ()))
