"""What is odd in a file that others made: named and counted, never a crash, never passed over in silence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from regrpo_jax.errors import listed

SHOWN = 5  # of a kind


@dataclass(frozen=True)
class Problem:
    """One odd thing.

    kind: in a few words, the same for things that are counted together. where: the record, file or key. detail: what
    it is, "" where the kind says it all.
    """

    kind: str
    where: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.detail}" if self.detail else self.where


def told(problems: Sequence[Problem]) -> tuple[str, ...]:
    """A sentence for each kind, in order of appearance: how many there are, and the first ones."""
    counts = Counter(problem.kind for problem in problems)
    return tuple(
        f"{kind}: {count} ({listed([str(one) for one in problems if one.kind == kind], SHOWN)})"
        for kind, count in counts.items()
    )
