"""Tasks of the safe: the note is right in a few of them, and only those come with steps for the data engine."""

import itertools
from collections.abc import Iterator
from typing import Any

from regrpo_jax.suites.python import PythonSuite

PLACES = ("north", "south", "east", "west", "amber", "coral", "ivory", "olive", "pearl", "slate")
STEPS = {"turn it as the note says": "act('turn {}')", "pull": "act('pull')", "it is open": "final_answer('done')"}


def make_tasks(split: str) -> Iterator[dict[str, Any]]:
    """Every note meets every code; one pair in five of those that differ is for the test."""
    for (row, note), (column, code) in itertools.product(enumerate(PLACES), repeat=2):
        if note != code and ((row + 2 * column) % 5 == 3) != (split == "test"):
            continue
        task = {"id": f"{note}-{code}", "instruction": "Open the safe.", "world": {"note": note, "code": code}}
        steps = [{"thought": f"{thought}.", "code": step.format(note)} for thought, step in STEPS.items()]
        yield task | ({"family": "as noted", "steps": steps} if note == code else {"family": "changed"})


def make_suite() -> PythonSuite:
    """What `config.suite.name` names."""
    return PythonSuite(tasks=make_tasks, world="safe_world:Safe", brief=True)
