"""The calls of tools in one action, as the process of the tools tells the host of them, checked field by field."""

from __future__ import annotations

from collections import Counter
from typing import Any

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.protocol import Header, ProtocolError
from regrpo_jax.sandbox.results import ActionResult, ToolRun
from regrpo_jax.sandbox.tool_calls import MOST_RUNS

_MOST_IMAGES = 64
_INSIDE = {status: Status.TOOL_ERROR if status == Status.INFRA_ERROR else status for status in Status}


def _text(value: object) -> str:
    """A text that came from inside. ProtocolError for anything else."""
    if not isinstance(value, str):
        raise ProtocolError(f"{type(value).__name__} where a text belongs")
    return value.encode("utf-8", "replace").decode("utf-8")


class Journal:
    """What is known of the calls of one action so far. answer: of final_answer, in a list of one, or empty."""

    def __init__(self) -> None:
        self.called: Counter[str] = Counter()
        self.answer: list[Any] = []
        self._begun: dict[int, tuple[str, str]] = {}
        self._runs: dict[int, ToolRun] = {}
        self._failures: dict[int, Status] = {}
        self._statuses: set[Status] = set()

    def hear(self, header: Header) -> None:
        """A call that begins or ends. No status from inside is an infra error. ProtocolError."""
        try:
            if "call" in header:
                self._begun[int(header["call"])] = _text(header["name"]), _text(header["asked"])
                self.called[_text(header["name"])] += 1
                return
            number, status = int(header["ended"]), _INSIDE[Status(header["status"])]
            result, failed, answer = _text(header["result"]), header["failed"], header.get("answer", [])
            recorded = header.get("recorded")
            if not isinstance(answer, list) or len(answer) > 1 or not isinstance(recorded, bool | None):
                raise ProtocolError("an answer of another shape")
        except (KeyError, TypeError, ValueError) as error:
            raise ProtocolError(f"a call of another shape: {type(error).__name__}") from error
        begun = self._begun.pop(number, None)
        if begun is None:
            return  # it began in an earlier action
        self._statuses.add(status)
        self.answer = self.answer or answer
        if failed:
            self._failures[number] = status
        if len(self._runs) < MOST_RUNS:
            self._runs[number] = ToolRun(begun[0], status, begun[1], result, recorded)

    @property
    def runs(self) -> tuple[ToolRun, ...]:
        return tuple(self._runs.values())

    @property
    def working(self) -> str:
        """The tool that is at work; "" when none is."""
        return next((name for name, _ in self._begun.values()), "")

    def result(self, header: Header, blob: bytes) -> ActionResult:
        """What came of the action, whose process tells its end by this message. ProtocolError."""
        size, images = header.get("size"), header.get("images")
        if type(size) is not int or not isinstance(images, list):
            raise ProtocolError("an end of another shape")
        return ActionResult(
            status=self._status(header.get("raised")),
            text=blob.decode("utf-8", "replace"),
            images=tuple(_text(name) for name in images[:_MOST_IMAGES]),
            tool_calls=self.runs,
            final_answer=self.answer[0] if self.answer else None,
            ended=bool(self.answer),
            size=size,
        )

    def _status(self, raised: Any) -> Status:
        """The code ended well (None), or by an exception: {"call": n, "refused": bool}.

        It is a call's only if that call was made in this action, and failed.
        """
        if raised is None:
            return Status.EMPTY if self._statuses == {Status.EMPTY} else Status.OK
        if not isinstance(raised, dict) or type(raised.get("call")) is not int:
            raise ProtocolError("an end of another shape")
        if raised["call"] in self._failures:
            return self._failures[raised["call"]]
        return Status.INVALID_ACTION if raised.get("refused") is True else Status.TOOL_ERROR
