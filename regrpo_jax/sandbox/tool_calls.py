"""How calls of tools are told: which came back empty, in which words they failed, as short texts."""

from __future__ import annotations

from typing import Any

from regrpo_jax.sandbox.capture import text_of, without_addresses
from regrpo_jax.toolbox.failures import ToolFailure

FINAL_ANSWER = "final_answer"
MOST_RUNS = 128  # told in words, of one action; further calls run and count
_MOST_CHARACTERS = 300


def shortened(value: object, show: Any = repr) -> str:
    """The value's text, cut, on its way into a ToolRun."""
    text = without_addresses(text_of(value, show))[:_MOST_CHARACTERS]
    return text.encode("utf-8", "replace").decode("utf-8")


def asked(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> str:
    """The arguments of a call as they would be written, cut."""
    words = [shortened(value) for value in arguments]
    words += [f"{key}={shortened(value)}" for key, value in keywords.items()]
    return ", ".join(words)[:_MOST_CHARACTERS]


def is_nothing(value: object) -> bool:
    """Whether a tool that returned this found nothing: None, "", [], {}, an array without elements."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    if isinstance(value, list | tuple | dict | set | frozenset):
        return len(value) == 0
    return getattr(value, "size", None) == 0 and hasattr(value, "shape")


def is_procedure(tool: object) -> bool:
    """Whether a tool that returned None has done what it is for: its type says so, or it says so itself."""
    annotated = getattr(tool, "__annotations__", {}).get("return", "")
    says_so = getattr(tool, "output_type", "") == "null" or annotated in (None, "None", type(None))
    return says_so or bool(getattr(tool, "may_return_nothing", False))


def described(name: str, error: BaseException) -> str:
    """The words for a failed call: a ToolFailure's own, else "<tool>: <type>: <message>"."""
    if isinstance(error, ToolFailure):
        return text_of(error)
    return f"{name}: {type(error).__name__}: {text_of(error)}"
