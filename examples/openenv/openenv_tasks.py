"""Tasks of the lift: from every floor to every other one, with steps for the data engine."""

import itertools
from collections.abc import Iterator
from typing import Any

from regrpo_jax.suites.python import PythonSuite


def make_tasks(split: str) -> Iterator[dict[str, Any]]:
    """Every pair of floors."""
    for floor, wanted in itertools.permutations(range(1, 6), 2):
        moves = ["up" if wanted > floor else "down"] * abs(wanted - floor)
        said = [(f"go {move}.", f"act('{move}')") for move in moves]
        said += [("it is there.", "act('open')"), ("it is open.", "final_answer('done')")]
        yield {
            "id": f"{floor}-{wanted}",
            "instruction": "Open it.",
            "world": {"floor": floor, "wanted": wanted},
            "steps": [{"thought": thought, "code": code} for thought, code in said],
        }


def make_suite() -> PythonSuite:
    """What `config.suite.name` names."""
    return PythonSuite(tasks=make_tasks, world="openenv_lift:Lift", brief=True)
