"""Tasks of the lift. For the data engine some come with steps that get there, but often by a detour."""

import itertools
import random
from collections.abc import Iterator
from typing import Any

from regrpo_jax.suites.python import PythonSuite

FLOORS = range(1, 6)
WALKS = 4  # of each pair of floors, at most
MOVES = 6  # of a walk, at most


def walk(floor: int, wanted: int, rng: random.Random) -> list[str]:
    """Moves to the wanted floor, three in five of them in its direction; [] when it took too many."""
    moves: list[str] = []
    while floor != wanted and len(moves) <= MOVES:
        way = 1 if (wanted > floor) == (rng.random() < 0.6) else -1
        if floor + way in FLOORS:
            floor += way
            moves.append("up" if way == 1 else "down")
    return moves if len(moves) <= MOVES else []


def make_tasks(split: str) -> Iterator[dict[str, Any]]:
    """Every pair of floors; for training as often as walks were found."""
    for floor, wanted in itertools.permutations(FLOORS, 2):
        task = {"instruction": "Open it.", "world": {"floor": floor, "wanted": wanted}}
        for number in range(WALKS if split == "train" else 1):
            moves = walk(floor, wanted, random.Random(f"{floor}/{wanted}/{number}"))
            said = [(f"go {move}.", f"act('{move}')") for move in moves]
            said += [("it is there.", "act('open')"), ("it is open.", "final_answer('done')")]
            steps = [{"thought": thought, "code": code} for thought, code in said]
            yield task | {"id": f"{floor}-{wanted}-{number}"} | ({"steps": steps} if moves else {})


def make_suite() -> PythonSuite:
    """What `config.suite.name` names."""
    return PythonSuite(tasks=make_tasks, world="lift_world:Lift", brief=True)
