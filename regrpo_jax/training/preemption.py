"""Told to end (SIGTERM, as a cloud's preemption or Slurm says it): what was learnt is written down before a run goes.

with Preemption().listening() as preemption:
    batch = play()                    # may be broken off at once: `Preempted` is raised here
    with preemption.held():
        state = update(state, batch)  # is finished first; then `Preempted` is raised
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from regrpo_jax.errors import Preempted


class Preemption:
    """SIGTERM while a stage trains."""

    def __init__(self) -> None:
        self._asked = self._is_held = False

    @contextmanager
    def listening(self) -> Iterator[Preemption]:
        """From here on the signal raises `Preempted`, at once or behind what is held; only a main thread hears it."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = signal.signal(signal.SIGTERM, self._told)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """What is done inside is done as a whole."""
        self._is_held = True
        try:
            yield
        finally:
            self._is_held = False
        if self._asked:
            raise Preempted

    def begin(self, number: int, *, plays: bool) -> None:
        """Before update `number`; plays: the process plays for it."""

    def agree(self) -> None:
        """Before the update that was begun is computed, and after the last. Raises `Preempted` where all end."""

    def _told(self, *unused: Any) -> None:
        if not self._is_held:
            raise Preempted
        self._asked = True


def insist() -> None:
    """From here on a `Preempted` that nobody could catch is raised once more, and the run does not go on as if untold.

    A signal may come while a library is called back, such as jax by the garbage collector; Python drops what is raised
    there.
    """
    before = sys.unraisablehook

    def hook(dropped: sys.UnraisableHookArgs) -> None:
        if issubclass(dropped.exc_type, Preempted):
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()  # behind the callback
        else:
            before(dropped)

    sys.unraisablehook = hook
