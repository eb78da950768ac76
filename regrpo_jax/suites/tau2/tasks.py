"""From records to tasks: the ticket, the world's data behind the tools, and the gold calls as the oracle's steps."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.task import ONE_WAY, OracleStep, Task, TaskFile
from regrpo_jax.suites.bfcl.answer import CHECK
from regrpo_jax.suites.bfcl.tasks import seed_of
from regrpo_jax.suites.tau2.records import GoldCall, Record
from regrpo_jax.toolbox.behind import WORLD_FILE


def world_data(record: Record, held: Mapping[str, Any]) -> dict[str, Any]:
    """What the world is made of: the task in the package's words, and `world.databases`; plain data."""
    return {"task": record.told, **held}


def task_of(record: Record, held: Mapping[str, Any], suite: str) -> Task:
    """The task of a record. held: see `world_data`."""
    return Task(
        id=record.id,
        family=record.kind,
        split=record.split,
        instruction=record.ticket,
        checker=AnswerChecker(CheckKind.FUNCTION, CHECK),
        files=(TaskFile(WORLD_FILE, json.dumps(world_data(record, held)).encode(), behind=True),),
        oracle=oracle_steps(record.gold),
        seed=seed_of(record.id),
        metadata={"suite": suite, "sets": list(record.sets), ONE_WAY: True},
    )


def oracle_steps(gold: Sequence[GoldCall]) -> tuple[OracleStep, ...]:
    """One gold call a step, and the answer."""
    steps = [OracleStep(f"{call.name} is next.", call.code) for call in gold]
    return (*steps, OracleStep("the ticket is solved.", 'final_answer("done")'))
