"""What stands between an action and its tools: every call is noted down, with its status."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from regrpo_jax.records.types import Status
from regrpo_jax.toolbox.failures import ToolFailure
from regrpo_jax.toolbox.sandbox.capture import text_of, without_addresses

FINAL_ANSWER = "final_answer"
MOST_RUNS = 128  # noted per action; further calls run but are not listed
_MOST_CHARACTERS = 300


def shortened(value: object, show: Any = repr) -> str:
    """The value's text, cut, on its way into a ToolRun."""
    text = without_addresses(text_of(value, show))[:_MOST_CHARACTERS]
    return text.encode("utf-8", "replace").decode("utf-8")


def is_nothing(value: object) -> bool:
    """Whether a tool that returned this found nothing: None, "", [], {}, an array without elements."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    if isinstance(value, list | tuple | dict | set | frozenset):
        return len(value) == 0
    return getattr(value, "size", None) == 0 and hasattr(value, "shape")


def described(name: str, error: BaseException) -> str:
    """The words for a failed call: a ToolFailure's own, else "<tool>: <type>: <message>"."""
    if isinstance(error, ToolFailure):
        return text_of(error)
    return f"{name}: {type(error).__name__}: {text_of(error)}"


class Journal:
    """The tool calls of one action."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, Status, str, str]] = []
        self.statuses: set[Status] = set()
        self.failure: tuple[BaseException, str] | None = None  # the last exception of a tool, and its words

    def note(self, name: str, status: Status, arguments: str, result: str) -> None:
        self.statuses.add(status)
        if len(self.runs) < MOST_RUNS:
            self.runs.append((name, status, arguments, result))

    @property
    def all_empty(self) -> bool:
        """Whether tools were called and every one found nothing."""
        return self.statuses == {Status.EMPTY}


def recorded(name: str, tool: Callable[..., Any], current: Callable[[], Journal]) -> Callable[..., Any]:
    """`tool` as the action sees it: a function that notes each call and lets results and exceptions through."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        words = [shortened(value) for value in arguments]
        words += [f"{key}={shortened(value)}" for key, value in keywords.items()]
        asked = ", ".join(words)[:_MOST_CHARACTERS]
        try:
            result = tool(*arguments, **keywords)
        except Exception as error:
            status = error.status if isinstance(error, ToolFailure) else Status.TOOL_ERROR
            message = described(name, error)
            current().failure = (error, message)
            current().note(name, status, asked, shortened(message, str))
            raise
        status = Status.EMPTY if is_nothing(result) and name != FINAL_ANSWER else Status.OK
        current().note(name, status, asked, shortened(result, str))
        return result

    call.__name__ = name
    return call


def recorded_tools(tools: Mapping[str, Callable[..., Any]], current: Callable[[], Journal]) -> dict[str, Any]:
    """All tools, each recorded."""
    return {name: recorded(name, tool, current) for name, tool in tools.items()}
