"""Where an action's prints go: into a bounded collector, from code and from tools."""

from __future__ import annotations

import io
import re
from typing import Any

from regrpo_jax.toolbox.observation import HeadAndTail

# `<object at 0x7f3b...>`: where something lies in memory differs from run to run and says nothing.
_ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]{6,16}\b")


def without_addresses(text: str) -> str:
    """The text with memory addresses of default reprs replaced by one constant."""
    return _ADDRESS.sub("at 0x0", text) if "at 0x" in text else text


class _Bytes(io.RawIOBase):
    def __init__(self, output: Output) -> None:
        self.output = output

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.output.write(bytes(data).decode("utf-8", "replace"))
        return len(data)


class Output(io.TextIOBase):
    """Stands in for sys.stdout and sys.stderr during an action."""

    encoding = "utf-8"

    def __init__(self, characters: int) -> None:
        self.collected = HeadAndTail(characters)
        self.buffer = _Bytes(self)

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        self.collected.write(without_addresses(text))
        return len(text)

    def line(self, text: str) -> None:
        """Add a line of its own."""
        self.write(text if text.endswith("\n") else f"{text}\n")


def text_of(value: object, show: Any = str) -> str:
    """str(value), or a few words when the value cannot be shown (huge ints, a broken __str__, endless nesting)."""
    try:
        text = show(value)
        return text if isinstance(text, str) else f"<{type(value).__name__}>"
    except Exception as error:
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
