"""Filling one slot: situation after situation until a near miss fails, is repaired, explained, and let through.

Every refusal is kept with its reason; nothing is dropped in silence.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from regrpo_jax.engine.annotate import AnnotationRefused
from regrpo_jax.engine.cases import Failure, NearMiss, Situation
from regrpo_jax.engine.execute import Refused, play_failure, play_shown
from regrpo_jax.engine.gates import gate_reasons
from regrpo_jax.engine.journal import Entry
from regrpo_jax.engine.showing import Showing
from regrpo_jax.engine.slots import Slot
from regrpo_jax.engine.synthetic import made_up_failure
from regrpo_jax.engine.teacher.limits import TeacherRefused
from regrpo_jax.engine.writing import clean_record, rot_record
from regrpo_jax.environments.environment import Environment
from regrpo_jax.records.reasons import rule_of
from regrpo_jax.records.types import ErrorType, Reflection
from regrpo_jax.suites.suite import SuiteTools


class Source(Protocol):
    """Where situations come from."""

    @property
    def tools(self) -> SuiteTools: ...

    @property
    def brief(self) -> bool: ...

    def situation(self, error_type: ErrorType | None, number: int) -> tuple[Situation, list[NearMiss]] | None:
        """The number-th situation (from 0) for such a failure and its near misses, the best first; None: no more.

        The list is empty where the situation turns out to have none. error_type None: a clean trajectory.
        """
        ...


@dataclass(frozen=True)
class Workshop:
    """What filling needs. annotate: the teacher, called as annotate(failure, rng). propose: a teacher that finds near
    misses, or None for those of the rules. attempts: most situations tried for a slot. synthetic: make observations up
    where tools or files are not here. showing: which pictures that tools make are shown, None for none. others: types
    that may take a slot's place where its own is not found in as many attempts; of a corpus of so many `slots`."""

    source: Source
    environment: Environment
    annotator: str
    annotate: Callable[[Failure, random.Random], Reflection]
    propose: Callable[[Situation, ErrorType], Sequence[NearMiss]] | None
    attempts: int
    synthetic: bool
    seed: int
    showing: Showing | None = None
    others: tuple[ErrorType, ...] = ()
    slots: int = 1

    def most_attempts(self, slot: Slot) -> int:
        """At a slot, those about other types than its own included."""
        return self.attempts * (1 + len(self._others(slot)))

    def tried(self, slot: Slot, attempt: int) -> tuple[ErrorType | None, int]:
        """The type of failure and the number of the situation that an attempt takes."""
        return slot.tried(attempt, self.attempts, self._others(slot), self.slots)

    def _others(self, slot: Slot) -> tuple[ErrorType, ...]:
        return () if slot.error_type is None else tuple(kind for kind in self.others if kind != slot.error_type)


def fill(shop: Workshop, slot: Slot, first_attempt: int = 0) -> Entry:
    """Try attempts from `first_attempt` on. UserError where nothing can go on (budget, tools that do not fit)."""
    rejects: list[dict[str, Any]] = []
    last = shop.most_attempts(slot) - 1
    for attempt in range(first_attempt, last + 1):
        rng = random.Random(f"{shop.seed}/{slot.number}/{attempt}")
        kind, number = shop.tried(slot, attempt)
        found = shop.source.situation(kind, number)
        if found is None:
            if attempt < last and shop.others:
                continue
            return Entry(slot.number, first_attempt, attempt, None, tuple(rejects))
        situation, misses = found
        miss: NearMiss | None = None
        try:
            if kind is None:
                shown = play_shown(shop.environment, situation, shop.showing)
                record = clean_record(
                    situation, shown.observations, shown.images, number=slot.number, recorded=shown.recorded
                )
                return Entry(slot.number, first_attempt, attempt, record, tuple(rejects))
            miss = _chosen(shop, situation, kind, misses, rng)
            if miss is None:
                continue
            record = _record(shop, situation, miss, slot, rng)
        except (Refused, AnnotationRefused, TeacherRefused) as refusal:
            rejects.append(_reject(slot, attempt, situation, miss, (str(refusal),)))
            continue
        reasons = gate_reasons(record)
        if not reasons:
            return Entry(slot.number, first_attempt, attempt, record, tuple(rejects))
        rejects.append(_reject(slot, attempt, situation, miss, reasons) | {"record": record})
    return Entry(slot.number, first_attempt, last, None, tuple(rejects))


def _chosen(
    shop: Workshop, situation: Situation, error_type: ErrorType, misses: list[NearMiss], rng: random.Random
) -> NearMiss | None:
    if shop.propose is not None and not situation.own:
        misses = [*shop.propose(situation, error_type), *misses]
    if not misses:
        return None
    return rng.choices(misses, weights=[1 / (place + 1) for place in range(len(misses))])[0]


def _record(shop: Workshop, situation: Situation, miss: NearMiss, slot: Slot, rng: random.Random) -> dict[str, Any]:
    if situation.executable:
        failure = play_failure(shop.environment, situation, miss, shop.showing)
    elif shop.synthetic:
        failure = made_up_failure(situation, miss, rng)
    else:
        raise Refused("not_executable: its tools or files are not here; config.engine.synthetic would make it up")
    reflection = shop.annotate(failure, rng)
    return rot_record(
        failure,
        reflection,
        number=slot.number,
        annotator=shop.annotator,
        loader=shop.source.tools.loader,
        seed=situation.task.seed,
    )


def _reject(
    slot: Slot, attempt: int, situation: Situation, miss: NearMiss | None, reasons: Sequence[str]
) -> dict[str, Any]:
    return {
        "slot": slot.number,
        "attempt": attempt,
        "error_type": None if slot.error_type is None else str(slot.error_type if miss is None else miss.error_type),
        "source_id": situation.source_id,
        "step_index": situation.index,
        "proposer": "" if miss is None else miss.proposer,
        "code": "" if miss is None else miss.code,
        "rules": sorted({rule_of(reason) for reason in reasons}),
        "reasons": list(reasons),
    }
