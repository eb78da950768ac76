"""What an action came to, as the host sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from regrpo_jax.records.types import Status


@dataclass(frozen=True)
class ToolRun:
    """One call of a tool: its arguments and its result (or error) as short texts."""

    name: str
    status: Status
    arguments: str
    result: str


@dataclass(frozen=True)
class ActionResult:
    """What came of one code action.

    images: files of the workspace that the action wrote, sorted. final_answer: plain data, None when
    final_answer(...) was not called (`ended` tells None from not called). size: bytes of the text before it was
    cut. elapsed: seconds, which two equal results need not share.
    """

    status: Status
    text: str
    images: tuple[str, ...] = ()
    tool_calls: tuple[ToolRun, ...] = ()
    final_answer: Any | None = None
    ended: bool = False
    size: int = 0
    elapsed: float = field(default=0.0, compare=False)


class SandboxError(Exception):
    """The sandbox itself failed, through no fault of an action: the sample is to be dropped (INFRA_ERROR)."""
