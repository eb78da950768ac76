"""Which records the entries of a file of predictions are about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from regrpo_jax.suites.gta.file_paths import relative_arguments
from regrpo_jax.suites.gta.predicted import Kind, PredictedTurn, recorded, turn_of
from regrpo_jax.suites.gta.record_types import GtaData, GtaRecord
from regrpo_jax.suites.gta.shards import UNKNOWN, Shard
from regrpo_jax.suites.problems import Problem

LEFT_OUT, BY_QUESTION = "shard after a missing one", "entries matched by what was asked"
OTHER_RECORD = "entry that is about another record"


class Matcher:
    """Counts positions from shard to shard."""

    def __init__(self, data: GtaData) -> None:
        self._records = data.records
        self._count = data.count
        self._by_position = {record.position: record for record in data.records}
        self._by_number = {int(record.id): record for record in data.records if _is_number(record.id)}
        self._next = 0

    def records_of(self, shard: Shard) -> tuple[dict[int, GtaRecord], list[Problem]]:
        """The records by the entries' numbers, and what is odd: entries without a record are named."""
        start = 0 if min(shard.entries, default=0) >= self._next else self._next
        places = {number: start + number for number in shard.entries}
        self._next = max(places.values(), default=-1) + 1
        asked = {number: self._asking(entry) for number, entry in shard.entries.items()}
        astray = [number for number, records in asked.items() if records and self._at(places[number]) not in records]
        name = shard.path.name
        if 2 * len(astray) > sum(bool(records) for records in asked.values()):
            return self._by_question(asked, name)
        if not shard.sure and not any(asked.values()):
            return {}, [
                Problem(
                    LEFT_OUT, name, "its entries say neither what was asked nor what is recorded, so it is left out"
                )
            ]
        at = self._by_position
        if any(place >= self._count for place in places.values()) and set(shard.entries) <= set(self._by_number):
            places, at = {number: number for number in shard.entries}, self._by_number
        found = {number: at[place] for number, place in places.items() if place in at}
        problems = [_unknown(name, number) for number in places if number not in found]
        told = [number for number in astray if found.get(number) not in (None, *asked[number])]
        return found, problems + [Problem(OTHER_RECORD, f"{name}: {number}", "its number counts") for number in told]

    def _at(self, place: int) -> GtaRecord | None:
        return self._by_position.get(place)

    def _asking(self, entry: Any) -> list[GtaRecord]:
        """The records whose question the entry says that it was asked, else those with the dialog that it has."""
        if not isinstance(entry, Mapping):
            return []
        question = _question(entry.get("origin_prompt"))
        if not question:
            gold = _gold(entry.get("gold"))
            return [record for record in self._records if gold and _is_of(gold, record)]
        # newer programs may put the tools before the first question
        return [
            record
            for record in self._records
            if question == record.question or question.endswith("\n" + record.question)
        ]

    def _by_question(
        self, asked: Mapping[int, list[GtaRecord]], name: str
    ) -> tuple[dict[int, GtaRecord], list[Problem]]:
        found: dict[int, GtaRecord] = {}
        taken: set[str] = set()
        problems = []
        for number, records in asked.items():
            record = next((one for one in records if one.id not in taken), records[0] if records else None)
            if record is None:
                problems.append(_unknown(name, number))
                continue
            found[number] = record
            taken.add(record.id)
        told = f"{len(found)} of {len(asked)}; their numbers are those of other records"
        return found, [*problems, Problem(BY_QUESTION, name, told)]


def _unknown(name: str, number: int) -> Problem:
    return Problem(UNKNOWN, f"{name}: {number}", "no record that can be read stands there")


def _question(prompt: Any) -> str:
    """What the first turn of the user says; "" where that is not told."""
    while isinstance(prompt, list):
        prompt = prompt[0] if prompt else None
    if isinstance(prompt, Mapping):
        prompt = prompt.get("content") if prompt.get("role") == "user" else None
    return prompt if isinstance(prompt, str) else ""


def _gold(told: Any) -> list[PredictedTurn]:
    """The recorded turns of the assistant that a file has, step by step or as an episode."""
    if isinstance(told, list) and told and isinstance(told[0], list):
        told = told[0]
    turns = map(turn_of, told) if isinstance(told, list) else ()
    return [turn for turn in turns if turn.kind in (Kind.CALL, Kind.ANSWER)]


def _is_of(gold: Sequence[PredictedTurn], record: GtaRecord) -> bool:
    """Whether these are the record's own turns, or those before its user speaks again."""
    own = recorded(record, steps=True)[: len(gold)]
    if [(turn.kind, turn.name) for turn in own] != [(turn.kind, turn.name) for turn in gold]:
        return False
    return all(
        relative_arguments(one.arguments, record) == relative_arguments(other.arguments, record)
        and (one.kind == Kind.CALL or one.content == other.content)
        for one, other in zip(gold, own, strict=True)
    )


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 10
