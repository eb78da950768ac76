"""Which Reflection-of-Thought records are in play at an update: the easiest ones first, and more of them over time.

    none           all of them, always
    linear         the share grows in a straight line with the number of the update
    success-paced  the share grows by a notch whenever the policy succeeded often enough, and never shrinks

A level is the share in whole percent, so that the levels of a stage are few and a checkpoint can hold all of them.
Source: ours; the paper (arXiv 2606.31392) trains on all records from the beginning.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

ALL = 100  # the level at which every record is in play
NOTCH = 10  # what a success-paced level rises by


@dataclasses.dataclass(frozen=True)
class Curriculum:
    """How the level of a stage moves; see `config.data`.

    Attributes:
      kind: "linear" or "success-paced".
      start: share of the records in play at the first update.
      full: share of the updates after which a linear curriculum has all records in play.
      threshold: mean success of a window that raises a success-paced level.
      window: measured updates that are looked at together.
      updates: of the stage.
    """

    kind: str
    start: float
    full: float
    threshold: float
    window: int
    updates: int


@dataclasses.dataclass(frozen=True)
class Pace:
    """A level, and the successes that were measured since it was last decided on.

    Attributes:
      level: percent of the records that are in play.
      total: sum of the successes of the window so far.
      measured: how many there are.
    """

    level: int
    total: float = 0.0
    measured: int = 0


def first_level(start: float) -> int:
    """The level of the share `start`, at least 1."""
    return max(1, round(ALL * start))


def linear_level(update: int, curriculum: Curriculum) -> int:
    """The level of a linear curriculum at an update, which counts from 1; never lower than at the one before."""
    rising = curriculum.full * curriculum.updates  # updates
    grown = min(1.0, (update - 1) / rising) if rising else 1.0
    return first_level(curriculum.start + (1.0 - curriculum.start) * grown)


def advance(pace: Pace, success: float, *, threshold: float, window: int) -> Pace:
    """The pace after one more measurement; every full window decides about one notch, then the next window begins.

    Args:
      success: in [0, 1], of an update's batch or of the rollouts before it.
    """
    total, measured = pace.total + success, pace.measured + 1
    if measured < window:
        return Pace(pace.level, total, measured)
    return Pace(min(ALL, pace.level + NOTCH) if total / measured >= threshold else pace.level)


def easiest_first(complexities: Sequence[float]) -> np.ndarray:
    """Indices in order of complexity; those of equal complexity keep their order.  # [record]"""
    return np.argsort(np.asarray(complexities, np.float64), kind="stable")


def count_in_play(records: int, level: int) -> int:
    """How many of the easiest records are in play: at least one, and all at the level `ALL`."""
    return max(1, -(-records * level // ALL))


def in_play(complexities: Sequence[float], level: int) -> np.ndarray:
    """Indices of the records in play, the easiest first.  # [in play]"""
    return easiest_first(complexities)[: count_in_play(len(complexities), level)]


class Pacer:
    """The level of a stage, update after update, and the level that each draw was made at.

    Rows are packed for several batches at once, and packed again when a run goes on from a checkpoint in between. A
    draw therefore keeps the level that was in force when it was made, and only later draws see a new one.

    Attributes:
      metrics: of the last batch, for the lines of the run.
    """

    def __init__(self, curriculum: Curriculum) -> None:
        self.metrics: dict[str, float] = {}
        self._curriculum = curriculum
        self._pace = Pace(first_level(curriculum.start))
        self._update = 0
        self._drawn = 0
        self._levels = [(0, self._pace.level)]  # (first draw, level), in order
        self._unread: list[tuple[Any, Any]] = []  # (success, count): numbers that a device may not have computed yet

    @property
    def needs_success(self) -> bool:
        """Whether `observe` must be told of every update."""
        return self._curriculum.kind == "success-paced"

    @property
    def level(self) -> int:
        """What draws from now on are made at."""
        return self._pace.level

    def begin_update(self) -> None:
        """Another update begins; everything that was measured before it counts."""
        self._update += 1
        if not self.needs_success:
            level = linear_level(self._update, self._curriculum)
            self._pace = Pace(max(self._pace.level, level))  # a resumed stage may have got more updates
        elif self._pace.measured + len(self._unread) >= self._curriculum.window:
            self._read()
        if self._levels[-1][1] != self.level:
            self._levels.append((self._drawn, self.level))

    def level_of(self, draw: int) -> int:
        """The level of a draw; draws count from 0, and a new one is made at the present level."""
        self._drawn = max(self._drawn, draw + 1)
        return next(level for first, level in reversed(self._levels) if first <= draw)

    def observe(self, success: Any, count: Any) -> None:
        """Takes note of an update's mean success over `count` things, of which there may be none.

        Both are read only when a window may be full, so that the device need not be waited for after every update.
        """
        self._unread.append((success, count))

    def get_state(self) -> dict[str, Any]:
        """Plain JSON."""
        self._read()
        pace = dataclasses.asdict(self._pace)
        return {"update": self._update, "drawn": self._drawn, "levels": list(map(list, self._levels)), "pace": pace}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from where `get_state` was asked."""
        self._update, self._drawn = state["update"], state["drawn"]
        self._levels = [(first, level) for first, level in state["levels"]]
        self._pace, self._unread = Pace(**state["pace"]), []

    def _read(self) -> None:
        chosen, unread = self._curriculum, self._unread
        self._unread = []
        for success, count in unread:
            if float(count):
                self._pace = advance(self._pace, float(success), threshold=chosen.threshold, window=chosen.window)
