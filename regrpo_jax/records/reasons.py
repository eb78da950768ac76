"""How a record is refused: a list of reasons a person can read and a program can count.

A reason is "rule_name: sentence". Everything that reads records written elsewhere collects reasons rather
than stopping at the first, because a person who repairs a file of thousands of records wants to know all of
it at once.
"""

from __future__ import annotations

from regrpo_jax.errors import UserError


class RecordError(UserError):
    """A record that cannot be used; `reasons` holds every "rule_name: sentence" found against it."""

    def __init__(self, reasons: tuple[str, ...]) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


def rule_of(reason: str) -> str:
    """The rule name of a reason: the part before its first colon."""
    return reason.partition(":")[0]


def kind_of(value: object) -> str:
    """What a JSON value is, in a person's words."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a true/false value", int: "a number"}
    return names.get(type(value), "null" if value is None else "a number")


def printable(text: object, limit: int = 80) -> str:
    """A short form of any value that every terminal and log file can write (lone surrogates escaped)."""
    plain = kind_of(text) if isinstance(text, dict | list) else str(text)
    shown = plain.encode("utf-8", "backslashreplace").decode("utf-8")
    one_line = " ".join(shown.split())
    return one_line if len(one_line) <= limit else one_line[: limit - 3] + "..."
