"""A public suite: beside tasks and tools, the files of predictions that its authors know, and how they are scored.

Whatever is played is first written down as the authors' programs would, and then scored from these files; so a file
that was made elsewhere (`config.eval.score_only`) gets its numbers from the same code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import ImageReference, Turn
from regrpo_jax.suites.suite import Suite

EPISODES, STEPS = "episodes", "steps"  # how it is played: end to end, or each turn after the recorded ones before it


@dataclass(frozen=True)
class Figure:
    """A number as it is quoted.

    name: what its authors call it. scorer: whose rule it is ("GTA", "MAT", "SPORT", "GAIA", "ours, strict"). hits, of:
    numerator and denominator; a hit may be a part of one. note: what a reader must know of it, "" for nothing.
    """

    name: str
    scorer: str
    hits: float
    of: int
    note: str = ""

    @property
    def percent(self) -> float | None:
        """None where nothing was asked."""
        return 100.0 * self.hits / self.of if self.of else None


@dataclass(frozen=True)
class Score:
    """What predictions come to.

    notes: what is missing, strange, or counted in an odd way by the authors' arithmetic, a sentence each. records: by
    the record's id, in the order of the suite, what each scorer says of it; plain data.
    """

    title: str
    figures: tuple[Figure, ...]
    notes: tuple[str, ...] = ()
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class PlayedCall:
    """A call that an action really made; arguments and result as Python writes them, cut after 300 characters."""

    name: str
    status: str
    arguments: str
    result: str


@dataclass(frozen=True)
class PlayedTurn:
    """A turn of the policy, reflection block included, and what came of its action. status: "" where none was run."""

    text: str
    status: str = ""
    observation: str = ""
    calls: tuple[PlayedCall, ...] = ()


@dataclass(frozen=True)
class PlayedTask:
    """An episode of a task, or the answer to a `Question`. answer: None without one. error: what failed of ours."""

    id: str
    turns: tuple[PlayedTurn, ...]
    answer: str | None = None
    outcome: str = ""
    success: bool = False
    error: str = ""


@dataclass(frozen=True)
class Question:
    """A single turn that is asked for after a recorded conversation.

    id: unique. opening: words that the turn must start with, "" for none.
    """

    id: str
    conversation: tuple[Turn, ...]
    images: tuple[ImageReference, ...] = ()
    opening: str = ""


class Benchmark(Suite, Protocol):
    """See above."""

    modes: tuple[str, ...]  # of `EPISODES` and `STEPS`, those that its authors know
    predictions_file: str  # what its files of predictions are called, "predictions.json"
    notes: tuple[str, ...]  # what is odd in its files, and which tools are not the tools themselves here

    def all_tasks(self) -> list[Task]:
        """Every task that counts, in the order of the suite's own file. UserError for a folder that cannot be read."""

    def questions(self) -> list[Question]:
        """Those of `STEPS`, in order; none where the mode is not known."""

    def write_predictions(self, mode: str, played: Sequence[PlayedTask], path: Path) -> None:
        """Write what was played as the authors' programs do; tasks that are missing in `played` have no prediction."""

    def score(self, paths: Sequence[Path]) -> Score:
        """What files of predictions come to; several are shards, in their order.

        Raises:
          UserError: a file cannot be read, or is none of this suite's.
        """
