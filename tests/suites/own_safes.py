"""The tasks of a world, which no worker may read."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from regrpo_jax.suites.python import PythonSuite

WORLD = "tests.suites.own_world:Safe"


def make_tasks(split: str) -> Iterator[dict[str, Any]]:
    for code in range(1, 8):
        yield {"id": f"{split}-{code}", "instruction": "Open it.", "world": {"code": code}}


def make_suite() -> PythonSuite:
    return PythonSuite(tasks=make_tasks, world=WORLD)


def no_world() -> PythonSuite:
    return PythonSuite(tasks=make_tasks, world="tests.suites.own_world:Broken")


def answered() -> PythonSuite:
    return PythonSuite(tasks=lambda split: [{"id": "x", "answer": 1, "world": {}}], world=WORLD)
