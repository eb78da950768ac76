"""Tasks of the safe: every pair of places, of which one in five is for the test; a third comes with the steps to it."""

import itertools
from collections.abc import Iterator
from typing import Any

from regrpo_jax.suites.python import PythonSuite

PLACES = ("north", "south", "east", "west", "amber", "coral", "ivory", "olive", "pearl", "slate")


def make_tasks(split: str) -> Iterator[dict[str, Any]]:
    """Those of a split; the data engine takes the ones with steps, and training plays them all."""
    for number, (first, second) in enumerate(itertools.permutations(PLACES, 2)):
        if (number % 5 == 3) != (split == "test"):
            continue
        task = {"id": f"{first}-{second}", "instruction": "Open the safe.", "world": {"code": [first, second]}}
        steps = [
            {"thought": "the first place.", "code": f"act('turn {first}')"},
            {"thought": "the second place.", "code": f"act('turn {second}')"},
            {"thought": "pull.", "code": "act('pull')"},
            {"thought": "it is open.", "code": "final_answer('done')"},
        ]
        yield task | ({"steps": steps} if number % 3 == 0 else {})


def make_suite() -> PythonSuite:
    """What `config.suite.name` names."""
    return PythonSuite(tasks=make_tasks, world="safe_world:Safe", brief=True)
