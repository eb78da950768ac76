"""What a family makes of random numbers, before it becomes a Task: the words, the files and the truth."""

from __future__ import annotations

import csv
import io
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from regrpo_jax.suites.toolrepair.plan import Plan


@dataclass(frozen=True)
class Ask:
    """What is wanted of a family: a surprise or none, how hard (1-3), of the held-out split or not.

    fits: whether the split owns a combination of names; for families whose drawing is too dear to be done in vain.
    """

    surprise: bool
    difficulty: int
    held_out: bool
    fits: Callable[[tuple[str, ...]], bool] = lambda names: True


@dataclass(frozen=True)
class Draft:
    """A task in the making.

    files: what the task gives the policy, in its workspace. behind: what only the tools look up; an action that could
    open it would find the repair there without ever having failed. names: what makes it the same as another to who
    learns by heart; decides the split. surprise: the kind of the surprise, "" for none. images: the files that the
    policy is shown. faults: what is injected into the tools, as the fields of a fault each; most surprises lie in what
    the tools look up and need none. answer_kind: how answers are compared. visual: the surprise stands in a picture
    that the first action makes; its status is OK and its text tells nothing.
    """

    instruction: str
    files: Mapping[str, bytes]
    plan: Plan
    names: tuple[str, ...]
    surprise: str
    images: tuple[str, ...] = ()
    faults: tuple[Mapping[str, Any], ...] = field(default=())
    answer_kind: str = "exact"
    behind: Mapping[str, bytes] = field(default_factory=dict)
    visual: bool = False


Family = Callable[[Random, Ask], Draft]


def rows_file(rows: Iterable[Sequence[object]]) -> bytes:
    """A csv file."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue().encode()


def database_file(schema: str, table: str, rows: Sequence[Sequence[object]]) -> bytes:
    """An SQLite file with one table; `place` numbers the rows."""
    connection = sqlite3.connect(":memory:")
    connection.execute(f"CREATE TABLE {table} (place INTEGER, {schema})")
    marks = ", ".join("?" * (len(rows[0]) + 1))
    connection.executemany(f"INSERT INTO {table} VALUES ({marks})", [(at, *row) for at, row in enumerate(rows)])
    connection.commit()
    data = connection.serialize()
    connection.close()
    return data
