"""Told to end while several processes train: all of them end before the same update, with one checkpoint.

Whoever is told says so at the first update that is not begun yet, and whoever comes to that update hears it. An update
is begun when the first process comes to it; where each plays for it by itself, when the last one has played, so that
playing is broken off and not waited for.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from regrpo_jax.errors import Preempted
from regrpo_jax.hosts.agreement import arrived, decided, heard
from regrpo_jax.hosts.role import role
from regrpo_jax.training.preemption import Preemption

_GO, _STOP = "go", "stop"


class AgreedPreemption(Preemption):
    """SIGTERM at any of several processes."""

    def __init__(self, stage: str) -> None:
        super().__init__()
        self._stage, self._number, self._plays = stage, 0, False

    def begin(self, number: int, *, plays: bool) -> None:
        self._number, self._plays = number, plays
        if plays and self._asked:
            self._say_so()

    def agree(self) -> None:
        key = self._key(self._number)
        together, self._plays = self._plays, False
        word = heard(key) if together and arrived(key) < role().count else decided(key, _GO)
        if word == _STOP:
            self._asked = True
            raise Preempted

    @contextmanager
    def listening(self) -> Iterator[Preemption]:
        """Once all was agreed on, to be told again changes nothing: Slurm tells every process, and so do we."""
        try:
            with super().listening():
                yield self
        finally:
            if self._asked and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, signal.SIG_IGN)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is broken off that was agreed on."""
        yield

    def _told(self, *unused: Any) -> None:
        self._asked = True
        self._say_so()

    def _say_so(self) -> None:
        number = self._number
        while decided(self._key(number), _STOP) != _STOP:
            number += 1
        if self._plays and number == self._number:
            self._plays = False
            raise Preempted

    def _key(self, number: int) -> str:
        return f"update/{self._stage}/{number}"


def preemption_of(stage: str) -> Preemption:
    """Of a stage: a process alone decides alone."""
    return Preemption() if role().alone else AgreedPreemption(stage)
