"""How many records of which error type, and who fills which place: decided before anything runs.

A corpus is a row of slots. Slot k has a type, from quotas that are exact, and is filled by trying situation after
situation; whatever happens in it is a function of (seed, slot, attempt) alone. So slots may be filled in any order,
by any number of workers, today or after a crash, and the corpus is the same.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ErrorType


@dataclass(frozen=True)
class Slot:
    """A place in the corpus. rank: how many slots of its type come before it; of: how many there are.

    error_type None: a clean trajectory.
    """

    number: int
    error_type: ErrorType | None
    rank: int
    of: int

    def situation_number(self, attempt: int) -> int:
        """Which situation of its type the attempt (from 0) takes: no two attempts of any slots take the same."""
        return self.rank + attempt * self.of

    def tried(self, attempt: int, own: int, others: Sequence[ErrorType], slots: int) -> tuple[ErrorType | None, int]:
        """Which type of failure the attempt (from 0) is about, and which situation of it.

        Args:
          own: attempts at the slot's own type.
          others: types that are tried in turn afterwards.
          slots: how many the corpus has, so that slots take other situations.
        """
        if attempt < own or not others:
            return self.error_type, self.situation_number(attempt)
        turn, place = divmod(attempt - own, len(others))
        return others[(place + self.number) % len(others)], self.number + turn * slots


def quotas(records: int, shares: Mapping[ErrorType, float]) -> dict[ErrorType, int]:
    """How many records of each type: whole numbers that add up to `records`, nearest to the shares.

    Largest remainders, ties to the earlier type. UserError when no share is above 0.
    """
    total = sum(shares.values())
    if total <= 0 or min(shares.values()) < 0:
        raise UserError("the shares of the error types must be at least 0, and one of them above 0")
    exact = {kind: records * share / total for kind, share in shares.items()}
    counts = {kind: int(count) for kind, count in exact.items()}
    by_remainder = sorted(exact, key=lambda kind: counts[kind] - exact[kind])
    for kind in by_remainder[: records - sum(counts.values())]:
        counts[kind] += 1
    return counts


def plan_slots(records: int, clean: int, shares: Mapping[ErrorType, float], seed: int) -> list[Slot]:
    """`records` slots for failures in a seeded order of types, then `clean` slots for clean trajectories."""
    counts = quotas(records, shares)
    kinds = [kind for kind, count in counts.items() for _ in range(count)]
    random.Random(f"{seed}/slots").shuffle(kinds)
    seen: Counter[ErrorType] = Counter()
    slots = []
    for number, kind in enumerate(kinds):
        slots.append(Slot(number, kind, seen[kind], counts[kind]))
        seen[kind] += 1
    return slots + [Slot(records + rank, None, rank, clean) for rank in range(clean)]
