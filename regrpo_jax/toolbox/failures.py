"""How a tool says that it did not work: an exception that carries the status of the observation.

A tool raises one of these when it knows what went wrong and what would help; the message is what the policy
reads, so it holds what is needed to repair the call. Anything else that a tool raises is a TOOL_ERROR with the
exception's own words.
"""

from __future__ import annotations

import copyreg
from typing import Any

from regrpo_jax.records.types import Status


class ToolFailure(Exception):
    """A tool call that gave no result; `status` is what the gate reads, the message is the observation."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies are made without `__init__`, whose arguments differ from class to class."""
        return copyreg.__newobj__, (type(self), *self.args), vars(self)  # type: ignore[attr-defined]


class EmptyResult(ToolFailure):
    """The call was sound and found nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(Status.EMPTY, message)


class ToolError(ToolFailure):
    """The call could not be carried out as it was made."""

    def __init__(self, message: str) -> None:
        super().__init__(Status.TOOL_ERROR, message)


class Unavailable(ToolFailure):
    """The tool needs something that is not there; the message says what and how to provide it."""

    def __init__(self, message: str) -> None:
        super().__init__(Status.TOOL_ERROR, message)


NOT_RECORDED = "only repeats what was recorded"


class NotRecorded(ToolFailure):
    """A tool that is not here was asked for what no recording answers; what it would have said nobody knows.

    The message holds `NOT_RECORDED`, by which the data engine knows that this is no failure of the call.
    """

    def __init__(self, message: str) -> None:
        super().__init__(Status.TOOL_ERROR, message)


class ServerLost(ToolFailure):
    """What the tool asks is gone or does not come up: no doing of who called, so the sample is dropped."""

    def __init__(self, message: str) -> None:
        super().__init__(Status.INFRA_ERROR, message)
