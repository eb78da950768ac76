"""What an action came to, as the host sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from regrpo_jax.records.types import Status


@dataclass(frozen=True)
class ToolRun:
    """One call of a tool: its arguments and its result (or error) as short texts.

    recorded: True where a recording answered it, False where it has none and there is no other tool, None where the
    tool itself was run (`toolbox.recorded`).
    """

    name: str
    status: Status
    arguments: str
    result: str
    recorded: bool | None = None


@dataclass(frozen=True)
class RemoteCall:
    """A call of a tool that runs on the host: what was asked, what was answered, the files that it wrote."""

    name: str
    arguments: list[Any]
    keywords: Mapping[str, Any]
    answer: Mapping[str, Any]
    files: tuple[tuple[str, bytes], ...] = ()


@dataclass
class Tape:
    """The calls of remote tools that an action makes. When it runs again with its tape, they are answered from it.

    complete: whether the action made these calls and no others, so that any other is refused, and not recorded.
    """

    calls: list[RemoteCall] = field(default_factory=list)
    complete: bool = False

    def finished(self) -> Tape:
        """The same calls, for a repetition of what came to its end."""
        return Tape(list(self.calls), complete=True)


@dataclass(frozen=True)
class ActionResult:
    """What came of one code action. All of it but the text, its size and the images' names is the host's own word.

    images: files of the workspace that the action wrote, sorted. tool_calls: the first ones; called: how often each
    tool was called. final_answer: plain data, None when final_answer(...) was not called (`ended` tells None from not
    called). size: bytes of the text before it was cut. killed: why its processes were killed ("wall", "cpu", "memory",
    "files", "sockets", "signal", "exit", "protocol"), "" when they were not; the next action then starts from the input
    files. working: the tool that was at work at that moment. elapsed: seconds, which two equal results need not share.
    """

    status: Status
    text: str
    images: tuple[str, ...] = ()
    tool_calls: tuple[ToolRun, ...] = ()
    final_answer: Any | None = None
    ended: bool = False
    size: int = 0
    killed: str = ""
    working: str = ""
    called: Mapping[str, int] = field(default_factory=dict)
    elapsed: float = field(default=0.0, compare=False)


class TooLarge(OSError):
    """A file of the workspace has more bytes than are wanted of it."""


class SandboxError(Exception):
    """The sandbox itself failed, through no fault of an action: the sample is to be dropped (INFRA_ERROR)."""


class WorkerLost(SandboxError):
    """The worker, or the machine that it was on, is gone: what it played can be played again in another one."""
