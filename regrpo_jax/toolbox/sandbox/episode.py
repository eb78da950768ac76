"""The process of one episode: a fork of the warm one, under limits, that runs actions until it is killed.

Everything an action does happens here. Nothing this process sends is trusted by the host.
"""

from __future__ import annotations

import io
import os
import random
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

from regrpo_jax.records.types import Status
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.failures import ToolFailure
from regrpo_jax.toolbox.sandbox import kernel
from regrpo_jax.toolbox.sandbox.capture import text_of
from regrpo_jax.toolbox.sandbox.folders import regular_files
from regrpo_jax.toolbox.sandbox.interpreter import RECURSION_LIMIT, Actions, Outcome
from regrpo_jax.toolbox.sandbox.plain import plain, plain_or_text
from regrpo_jax.toolbox.sandbox.protocol import Channel, Header, ProtocolError
from regrpo_jax.toolbox.sandbox.settings import SandboxSettings

_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")
_ANSWER_BYTES = 65_536
_MOST_IMAGES = 64
Wrap = Callable[[dict[str, Callable[..., Any]], Any, int], Mapping[str, Callable[..., Any]]]


def set_limits(settings: SandboxSettings) -> None:
    """Resource limits, hard ones too, so that nothing that runs here can raise them."""
    address_space = kernel.address_space_bytes() + settings.memory_bytes
    for limit, value in (
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_NPROC, settings.max_processes + 1),  # the warm process counts too
        (resource.RLIMIT_NOFILE, settings.max_open_files),
        (resource.RLIMIT_FSIZE, settings.file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 256),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def _limit_cpu(seconds: int) -> None:
    """SIGXCPU, which kills, when this process has used `seconds` more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    soft = int(used.ru_utime + used.ru_stime) + 1 + seconds
    resource.setrlimit(resource.RLIMIT_CPU, (soft, resource.RLIM_INFINITY))


def _only_keep(descriptor: int) -> None:
    """Close every file descriptor but `descriptor`; the three standard ones lead nowhere."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)
    os.closerange(3, descriptor)
    os.closerange(descriptor + 1, 65_536)


def _seed(seed: int) -> None:
    random.seed(seed)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(seed % 2**32)


class RemoteTool:
    """Asks the host to run a tool that needs the network; arguments and result are plain data."""

    def __init__(self, name: str, channel: Channel, token: Callable[[], str]) -> None:
        self.name, self.channel, self.token = name, channel, token

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        self.channel.send(
            {"remote": self.token(), "name": self.name, "arguments": plain(arguments), "keywords": plain(keywords)}
        )
        answer, _ = self.channel.receive()
        if answer.get("failed") is not None:
            raise ToolFailure(Status(answer["status"]), answer["failed"])
        return answer.get("value")


class Episode:
    """Reads actions from the channel and answers them, one at a time."""

    def __init__(self, channel: Channel, settings: SandboxSettings) -> None:
        self.channel, self.settings = channel, settings
        self.token = ""

    def tools(self, loaded: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
        """The tools as the action calls them: remote ones ask the host."""
        return {
            name: RemoteTool(name, self.channel, lambda: self.token) if getattr(tool, "remote", False) else tool
            for name, tool in loaded.items()
        }

    def serve(self, actions: Actions) -> None:
        """Until the host closes the channel or kills us."""
        self.channel.send({"opened": True})
        while True:
            header, code = self.channel.receive()
            self.token = str(header["run"])
            _limit_cpu(self.settings.cpu_seconds)
            before = self._pictures()
            outcome = actions.run(code.decode("utf-8", "surrogatepass"))
            written = sorted(name for name, mark in self._pictures().items() if before.get(name) != mark)
            self._answer(outcome, written[:_MOST_IMAGES])

    def _pictures(self) -> dict[str, tuple[int, int, int]]:
        return {
            name: (status.st_ino, status.st_mtime_ns, status.st_size)
            for name, status in regular_files(".", self.settings.max_files)
            if name.lower().endswith(_IMAGES)
        }

    def _answer(self, outcome: Outcome, images: list[str]) -> None:
        header: Header = {
            "done": self.token,
            "status": str(outcome.status),
            "size": outcome.output.collected.bytes,
            "images": images,
            "runs": [[name, str(status), asked, result] for name, status, asked, result in outcome.journal.runs],
            "answer": [plain_or_text(answer, _ANSWER_BYTES) for answer in outcome.answer],
        }
        text = outcome.output.collected.text().removesuffix("\n").encode("utf-8", "replace")
        try:
            self.channel.send(header, text)
        except ProtocolError:  # a header too long: the words of the calls can be missed, the rest cannot
            self.channel.send(header | {"runs": [[*run[:2], "", ""] for run in header["runs"]]}, text)


def run_episode(
    channel: Channel,
    settings: SandboxSettings,
    loaded: Mapping[str, Any],
    executor: Any,
    wrap: Wrap | None,
    wrap_settings: Any,
    seed: int,
    behind_files: Mapping[str, bytes],
) -> None:
    """What the forked child does; never returns."""
    code = 1
    try:
        os.setsid()
        _only_keep(channel.fileno())
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        sys.setrecursionlimit(RECURSION_LIMIT)
        sys.stdin = io.StringIO()
        _seed(seed)
        behind.install(behind_files)
        episode = Episode(channel, settings)
        try:
            tools = episode.tools(loaded)
            if wrap is not None:
                tools = dict(wrap(tools, wrap_settings, seed))
            actions = Actions(tools, settings.text_characters, executor)
        except Exception as error:
            channel.send({"failed": f"{type(error).__name__}: {text_of(error)}"[:4000]})
            return
        set_limits(settings)
        episode.serve(actions)
        code = 0
    finally:
        os._exit(code)
