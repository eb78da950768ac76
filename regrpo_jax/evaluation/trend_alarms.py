"""What the course of an online stage should worry a person about: failing on purpose, reflecting for its own sake.

`rollout_metrics.alarms` looks at one update, which is a few episodes; here the first updates are compared with the
last. A change counts when it is larger than what the spread between updates explains.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from regrpo_jax.evaluation.rollout_metrics import alarms, share

Values = Mapping[str, float | None]  # of `rollout_metrics`, and "useful_groups", of one update

_FEWEST = 4  # updates that have a course
_WIDEST = 10  # updates of a window
_LEAST_CHANGE = 0.05  # of a share, that counts
_MOST_NEEDLESS = 0.05
_GROWTH, _COLLAPSE = 2.0, 0.25  # of reflections, against the first updates
_RARE = 0.02  # reflections per failed episode below which there is nothing that could collapse
_MOST_USELESS = 0.1  # share of the updates with nothing to prefer


class Course(NamedTuple):
    """A number at the beginning and at the end; `noise` is the standard error of the difference."""

    early: float
    late: float
    noise: float

    def rises(self, least: float = _LEAST_CHANGE) -> bool:
        """Whether it grew by more than `least` and by more than chance explains."""
        return self.late - self.early > max(least, 2 * self.noise)

    def falls(self, least: float = _LEAST_CHANGE) -> bool:
        """Likewise, downwards."""
        return Course(self.late, self.early, self.noise).rises(least)


def trend_alarms(history: Sequence[Values]) -> list[str]:
    """What should worry a person about a stage; [] when nothing does.

    Args:
      history: of each update, in order.
    """
    if not history:
        return []
    return [*_level_alarms(history), *_course_alarms(history), *_useless_updates(history), *_single_updates(history)]


def window(updates: int) -> int:
    """How many updates at either end stand for the beginning and for the end; all where there are few."""
    return updates if updates < _FEWEST else min(_WIDEST, max(2, updates // 4))


def course(values: Sequence[float | None]) -> Course | None:
    """The means of the first and the last updates that say anything; None where fewer than `_FEWEST` do."""
    known = [value for value in values if value is not None]
    if len(known) < _FEWEST:
        return None
    size = window(len(known))
    early, late = known[:size], known[-size:]
    return Course(_mean(early), _mean(late), math.sqrt(_variance(early) / size + _variance(late) / size))


def _level_alarms(history: Sequence[Values]) -> list[str]:
    """About the last updates as they are, whatever was before."""
    last = history[-window(len(history)) :]
    means: dict[str, float | None] = {
        name: share(_known(values.get(name) for values in last)) for name in ("needless", "truncated", "malformed")
    }
    counts = {name: math.fsum(_known(values.get(name) for values in last)) for name in ("episodes", "dropped")}
    found = [f"at the end, {words}" for words in alarms({**means, **counts})]
    needless = means["needless"] or 0.0
    if needless > _MOST_NEEDLESS:
        found.append(
            f"at the end, {needless:.0%} of the actions that went well are followed by a reflection; raise "
            "config.objective.eta, or use config.agent.gate=failure"
        )
    return found


def _course_alarms(history: Sequence[Values]) -> list[str]:
    """About what changed between the first updates and the last."""
    success, first = _course_of(history, "success"), _course_of(history, "first_attempt_success")
    recovery = _course_of(history, "recovery")
    found = []
    if success and success.falls():
        found.append(f"success falls from {success.early:.0%} to {success.late:.0%}: the policy gets worse")
    if first and recovery and first.falls() and recovery.late > recovery.early:
        found.append(
            f"first-attempt success falls from {first.early:.0%} to {first.late:.0%} while recovery rises from "
            f"{recovery.early:.0%} to {recovery.late:.0%}: the policy may fail on purpose, to be paid for the repair"
        )
    return [*found, *_reflection_alarms(history)]


def _reflection_alarms(history: Sequence[Values]) -> list[str]:
    rate = course([_per_failure(values) for values in history])
    length = _course_of(history, "reflection_tokens")
    found = []
    if rate and rate.early > _RARE and rate.late < _COLLAPSE * rate.early:
        found.append(
            f"reflections collapse from {rate.early:.2f} to {rate.late:.2f} for each failed episode: failures are "
            "no longer reflected on"
        )
    if length and length.late < _COLLAPSE * length.early:
        found.append(
            f"reflections shrink from {length.early:.0f} to {length.late:.0f} tokens: nothing is said in them any more"
        )
    if length and length.late > _GROWTH * length.early:
        found.append(
            f"reflections grow from {length.early:.0f} to {length.late:.0f} tokens; raise their price, "
            "config.objective.eta"
        )
    return found


def _useless_updates(history: Sequence[Values]) -> list[str]:
    useless = sum(values.get("useful_groups") == 0 for values in history)
    if useless <= _MOST_USELESS * len(history):
        return []
    return [
        f"in {useless} of {len(history)} updates no group had anything to prefer, so nothing was learnt there; raise "
        "config.online.branches or config.online.refills, or play other tasks"
    ]


def _single_updates(history: Sequence[Values]) -> list[str]:
    """Updates before the last ones that were alarming on their own, the first of them in words."""
    before = history[: -window(len(history))]
    told = [(number, words) for number, values in enumerate(before, 1) for words in alarms(_complete(values))]
    if not told:
        return []
    number, words = told[0]
    updates = len({number for number, _ in told})
    return [f"earlier, in {updates} update{'s' * (updates > 1)}, first in update {number} of the stage: {words}"]


def _complete(values: Values) -> Values:
    """Lines of metrics leave out what has no value."""
    return dict.fromkeys(("episodes", "dropped", "truncated", "malformed")) | dict(values)


def _per_failure(values: Values) -> float | None:
    """Reflections for each failed episode; None where none failed."""
    failed, reflections = values.get("failed"), values.get("reflections")
    return reflections / failed if failed and reflections is not None else None


def _course_of(history: Sequence[Values], name: str) -> Course | None:
    return course([values.get(name) for values in history])


def _known(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance(values: Sequence[float]) -> float:
    mean = _mean(values)
    return math.fsum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
