"""From records to tasks: requests, tools, the world's data behind them, and the gold calls as the oracle's steps."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smolagents.tools import Tool

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.task import ONE_WAY, Followup, OracleStep, Task, TaskFile
from regrpo_jax.errors import UserError
from regrpo_jax.records.syntax import syntax_of_expression
from regrpo_jax.suites.bfcl.answer import CHECK
from regrpo_jax.suites.bfcl.records import Record
from regrpo_jax.toolbox.behind import WORLD_FILE
from regrpo_jax.toolbox.toolset import describe, describe_briefly

NAME = "bfcl"
_DONE = OracleStep("the request is done.", 'final_answer("done")')
_MISSING = OracleStep("something is missing for this.", 'final_answer("missing")')


def world_data(record: Record) -> dict[str, Any]:
    """What the world is made of, gold calls included; plain data."""
    return {
        "id": record.id,
        "classes": list(record.classes),
        "config": record.config,
        "long_context": record.long_context,
        "refused": {
            name: turn for turn, names in record.held_back.items() for name in names if _waits(record, name, turn)
        },
        "gold": [list(calls) for calls in record.gold],
    }


def _waits(record: Record, name: str, turn: int) -> bool:
    """Whether a call of the function fails before it is brought; not where a gold call is one, as in one record."""
    return all(_name(call) != name for calls in record.gold[:turn] for call in calls)


@dataclass(frozen=True)
class Telling:
    """How records are told. tools: all that are loaded. owners: the class of each function. news: what the user says
    when functions are brought. brief: these are told in few words.
    """

    tools: Mapping[str, Tool]
    owners: Mapping[str, str]
    news: str
    brief: bool

    def request(self, record: Record, turn: int) -> Followup:
        """What the user says then, and the functions that come with it."""
        names = record.held_back.get(turn, ())
        brought = {name: self.tools[name] for name in names}
        described = (describe_briefly if self.brief else describe)(brought) if brought else ""
        words = record.messages[turn] or self.news
        return Followup(f"{described}\n{words}" if brought else words, names)

    def functions(self, record: Record) -> list[str]:
        """The names of all that the record's classes have. UserError where some are held back that are not there."""
        own = [name for name, owner in self.owners.items() if owner in record.classes]
        held_back = [name for names in record.held_back.values() for name in names]
        if unknown := [name for name in held_back if name not in own]:
            raise UserError(f'{record.id}: "missed_function" names {unknown[0]!r}, which none of its classes has')
        return own


def task_of(record: Record, telling: Telling) -> Task:
    """The task of a record. UserError where it speaks of functions that its classes do not have."""
    own = telling.functions(record)
    later = {name for names in record.held_back.values() for name in names}
    requests = [telling.request(record, turn) for turn in range(len(record.messages))]
    return Task(
        id=record.id,
        family=record.set,
        split=record.split,
        instruction=requests[0].text,
        checker=AnswerChecker(CheckKind.FUNCTION, CHECK),
        files=(TaskFile(WORLD_FILE, json.dumps(world_data(record)).encode(), behind=True),),
        tools=tuple(name for name in own if name not in later),
        oracle=oracle_steps(record.gold),
        seed=seed_of(record.id),
        metadata={"suite": NAME, "classes": list(record.classes), ONE_WAY: True},
        followups=tuple(requests[1:]),
    )


def seed_of(name: str) -> int:
    """The same for the same task."""
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)


def oracle_steps(gold: Sequence[Sequence[str]]) -> tuple[OracleStep, ...]:
    """One gold call a step, and an answer after each request (the calls are given by request)."""
    found: list[OracleStep] = []
    for calls in gold:
        found += [OracleStep(f"{_name(call)} is next.", call) for call in calls]
        found.append(_DONE if calls else _MISSING)
    return tuple(found)


def _name(call: str) -> str:
    """Of the function that a gold call is of."""
    tree = syntax_of_expression(call).body
    return ast.unparse(tree.func) if isinstance(tree, ast.Call) else call
