"""When a request may be sent: not too many at once, not too many a minute, and not while the server asks to wait."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from regrpo_jax.engine.teacher_settings import Clock, TeacherSettings

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds of our own backoff


class Pace:
    """Shared by all threads that ask. Waits are drawn from the settings' seed."""

    def __init__(self, settings: TeacherSettings, clock: Clock) -> None:
        self._clock = clock
        self._interval = 60.0 / settings.requests_per_minute
        self._places = threading.BoundedSemaphore(settings.max_concurrency)
        self._lock = threading.Lock()
        self._next = clock.now()
        self._rng = random.Random(f"{settings.seed}/pace")

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A place among the requests under way, from the time on at which one may be sent."""
        with self._places:
            while (wait := self._claim()) > 0:
                self._clock.sleep(wait)
            yield

    def hold(self, seconds: float) -> None:
        """Nobody sends anything for so long."""
        with self._lock:
            self._next = max(self._next, self._clock.now() + seconds)

    def backoff(self, failures: int) -> float:
        """Seconds to wait after so many failures (from 1) of a request: doubled each time, half of it drawn."""
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 30))
        with self._lock:
            return longest * (0.5 + 0.5 * self._rng.random())

    def _claim(self) -> float:
        """0 when the time has come, and is taken; else how long to wait before asking again."""
        with self._lock:
            now = self._clock.now()
            if now < self._next:
                return self._next - now
            self._next = now + self._interval
            return 0.0
