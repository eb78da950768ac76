"""One pool of warm workers for all tests of the environment, and tasks that need few words."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task, TaskFile
from regrpo_jax.sandbox.settings import SandboxSettings
from tests.environments.small_tools import LOADER

SANDBOX = SandboxSettings(wall_seconds=1.0, memory_bytes=2**29, workers=2, spares=1)


def png(color: str = "red") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (16, 12), color).save(stream, "PNG")
    return stream.getvalue()


def turn(code: str, thought: str = "Try it.") -> str:
    return f"Thought: {thought}\n\nCode:\n```py\n{code}\n```"


def make_task(**changes: Any) -> Task:
    """A task over two texts and an image, whose answer is 42."""
    parts: dict[str, Any] = {
        "id": "task",
        "family": "reading",
        "split": "test",
        "instruction": "What is the total?",
        "checker": AnswerChecker(CheckKind.NUMBER, 42),
        "files": (TaskFile("a.txt", b"total 42"), TaskFile("b.txt", b"total 17"), TaskFile("sign.png", png())),
        "images": ("sign.png",),
        "tools": ("read_text", "look", "search", "count", "paint"),
    }
    return Task(**(parts | changes))


@pytest.fixture(scope="session")
def environment() -> Iterator[Environment]:
    with Environment.start(SANDBOX, loader=LOADER) as made:
        yield made
