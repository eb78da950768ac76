"""Single requests of BFCL's conversations, for policies that are too small for whole ones.

A task is one request of a record: those before it have been done by the gold calls, which the policy is told of with
what they returned. It is right when the authors' checker says so of the conversation up to there. This is our own cut
of the data: its numbers are none of BFCL's.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.task import ONE_WAY, Task, TaskFile
from regrpo_jax.errors import UserError
from regrpo_jax.suites.benchmark import PlayedTask, Score
from regrpo_jax.suites.bfcl.answer import CHECK
from regrpo_jax.suites.bfcl.records import Record
from regrpo_jax.suites.bfcl.suite import BfclSuite
from regrpo_jax.suites.bfcl.tasks import Telling, oracle_steps, seed_of, world_data
from regrpo_jax.suites.bfcl.world import BfclWorld
from regrpo_jax.toolbox.behind import WORLD_FILE
from regrpo_jax.toolbox.observation import truncate

NAME = "bfcl_requests"
_CHARACTERS = 160  # of what an earlier call returned


@dataclass(frozen=True)
class BfclRequests(BfclSuite):
    """See above; the rest is `BfclSuite`'s."""

    name: str = NAME
    modes: tuple[str, ...] = ()

    def all_tasks(self) -> list[Task]:
        """Record by record, request by request. UserError for a folder that cannot be read."""
        return [task for record in self.records for task in _tasks(self.package, record, self.telling)]

    def write_predictions(self, mode: str, played: Sequence[PlayedTask], path: Path) -> None:
        """UserError: there is no such file of single requests."""
        raise UserError(f"{NAME} are single requests, of which BFCL has no result files; take bfcl")

    def score(self, paths: Sequence[Path]) -> Score:
        """UserError: there is no such file of single requests."""
        raise UserError(f"{NAME} are single requests, which BFCL does not score; take bfcl")


def _tasks(package: Path, record: Record, telling: Telling) -> Iterator[Task]:
    own, told = telling.functions(record), list[str]()
    world = BfclWorld(package, world_data(record))
    for turn, calls in enumerate(record.gold):
        yield _task(record, turn, telling, own, told)
        done = [f"{call} -> {truncate(world.run(call), _CHARACTERS)}" for call in calls]
        told.append("\n".join([f"User: {record.messages[turn] or telling.news}", *done]))


def _task(record: Record, turn: int, telling: Telling, own: Sequence[str], told: Sequence[str]) -> Task:
    upto = dataclasses.replace(record, messages=record.messages[: turn + 1], gold=record.gold[: turn + 1])
    later = {name for at, names in record.held_back.items() if at > turn for name in names}
    now = record.messages[turn] or telling.news
    name = f"{record.id}/{turn}"
    return Task(
        id=name,
        family=record.set,
        split=record.split,
        instruction="\n".join([*told, f"User: {now}"]),
        checker=AnswerChecker(CheckKind.FUNCTION, CHECK),
        files=(TaskFile(WORLD_FILE, json.dumps(world_data(upto) | {"done": turn}).encode(), behind=True),),
        tools=tuple(one for one in own if one not in later),
        oracle=oracle_steps(record.gold[turn : turn + 1]),
        seed=seed_of(name),
        metadata={"suite": NAME, "classes": list(record.classes), ONE_WAY: True},
    )
