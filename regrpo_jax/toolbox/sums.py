"""sum(), avg() and total() that refuse text, which SQLite takes for zero or for the digits it begins with."""

from __future__ import annotations

import math
import sqlite3
from collections import deque


def no_text_in_sums(connection: sqlite3.Connection, reasons: list[str]) -> None:
    """Replace the connection's functions. reasons: is given the words for a query that sums a text."""
    for name in ("sum", "avg", "total"):
        connection.create_window_function(name, 1, type(name, (_Sum,), {"name": name, "reasons": reasons}))


class _Sum:
    name = ""
    reasons: list[str] = []

    def __init__(self) -> None:
        self.values: deque[float] = deque()

    def step(self, value: object) -> None:
        if value is None:
            return
        if not isinstance(value, int | float):
            self.reasons.append(
                f'{self.name}() of the text "{str(value)[:40]}", which is no number; leave such rows out with WHERE '
                "typeof(...) <> 'text', or convert them"
            )
            raise ValueError(self.reasons[-1])
        self.values.append(value)

    def inverse(self, value: object) -> None:
        """The row that came first leaves the window."""
        if value is not None:
            self.values.popleft()

    def value(self) -> float | None:
        if not self.values:
            return 0.0 if self.name == "total" else None
        whole = all(isinstance(value, int) for value in self.values)
        total = sum(self.values) if whole else math.fsum(self.values)
        if self.name == "sum":
            return total
        return float(total) if self.name == "total" else total / len(self.values)

    finalize = value
