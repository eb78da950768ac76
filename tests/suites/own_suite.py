"""A suite as a person would write it, its check, and how one may get it wrong."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regrpo_jax.environments.own_check import CheckedWorkspace
from regrpo_jax.suites.python import PythonSuite

TOOLS = ("tests.suites.own_tools:add", "tests.suites.own_tools:note")


def make_tasks(split: str) -> Iterator[dict[str, Any]]:
    for number in range(5):
        yield {
            "id": f"{split}-{number}",
            "instruction": f"Add {number} to what is in a.txt, and note the sum.",
            "check": f"{__name__}:is_noted",
            "files": {"a.txt": str(number)},
        }


def is_noted(answer: object, workspace: CheckedWorkspace) -> bool:
    """The answer, and what the policy left in the workspace, must agree."""
    assert workspace.names()[0] == "a.txt"
    return int(workspace.read("note.txt")) == int(workspace.read("a.txt")) * 2 == int(str(answer))


def make_suite() -> PythonSuite:
    return PythonSuite(tasks=make_tasks, tools=TOOLS)


def tools_beside_the_tasks() -> PythonSuite:
    return PythonSuite(tasks=make_tasks, tools=(f"{__name__}:is_noted",))


def nothing() -> None:
    return None


def broken() -> PythonSuite:
    raise RuntimeError("no luck")


def bad_tasks() -> PythonSuite:
    return PythonSuite(tasks=lambda split: [{"id": "x", "instruction": "?", "answer": 1, "files": {"a": 3}}])
