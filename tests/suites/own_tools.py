"""A person's tools, and their loader."""

from __future__ import annotations

from typing import Any

from smolagents.tools import Tool

from regrpo_jax.toolbox.final_answer import FinalAnswer
from regrpo_jax.toolbox.user_tools import load_user_tool


def add(first: int, second: int) -> int:
    """The sum of two numbers.

    Args:
        first: one of them
        second: the other
    """
    return first + second


def note(text: str) -> str:
    """Writes text into note.txt.

    Args:
        text: what to write
    """
    with open("note.txt", "w") as file:
        file.write(text)
    return "written"


def load(settings: Any = None) -> dict[str, Tool]:
    """The tools by name."""
    return {"add": load_user_tool(f"{__name__}:add"), "final_answer": FinalAnswer()}
