"""How tasks and tools write names: always the same way, so that they are the same tokens everywhere."""

from __future__ import annotations

from collections.abc import Iterable


def listed(parts: Iterable[str]) -> str:
    """ "a, b, c." """
    return ", ".join(parts) + "."


def q(word: str | int) -> str:
    """A name in double quotes."""
    return f'"{word}"'
