"""The clock and the entropy of an action: functions of its seed and of what it did, so that a repetition sees the same.

The clock starts at a fixed date, moves by a microsecond with each reading, and by the time that is slept. Entropy
(`random`, `os.urandom`, `secrets`, `uuid`, numpy's generators, which draw from these) comes from a generator of ours.
Modules that wait (threads, queues, asyncio, subprocesses) read the true clock, else their deadlines would never come.
What remains: process ids, the order in which threads run, times of files, and what native code asks the kernel itself.
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import os
import random
import sys
import time
import uuid
from collections.abc import Callable
from typing import Any

START = 1_735_689_600  # seconds: 2025-01-01 in UTC
_READING = 1000  # nanoseconds
_WAITING = frozenset(
    ("asyncio", "concurrent", "multiprocessing", "queue", "regrpo_jax", "sched", "selectors", "socketserver")
    + ("subprocess", "threading")
)
_CLOCKS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")


class Clock:
    """Nanoseconds since the action's process began, by its own count."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        self._passed = 0

    def passed(self) -> int:
        self._passed += _READING
        return self._passed

    def now(self) -> int:
        """Nanoseconds of the calendar."""
        return START * 10**9 + self.passed()

    def sleep(self, seconds: float) -> None:
        _sleep(seconds)
        self._passed += int(seconds * 10**9)


_sleep = time.sleep


def _waits() -> bool:
    """Whether the code that reads a clock belongs to a module that waits."""
    name = sys._getframe(2).f_globals.get("__name__", "")
    return isinstance(name, str) and name.partition(".")[0] in _WAITING


def _reading(true: Callable[[], Any], counted: Callable[[], Any]) -> Callable[[], Any]:
    def read() -> Any:
        return true() if _waits() else counted()

    read.__name__ = read.__qualname__ = true.__name__
    return read


def _seconds(nanoseconds: Callable[[], int]) -> Callable[[], float]:
    return lambda: nanoseconds() / 1e9


def _set_clock(clock: Clock) -> None:
    for name in _CLOCKS:
        nanoseconds = clock.now if name == "time" else clock.passed
        setattr(time, name, _reading(getattr(time, name), _seconds(nanoseconds)))
        setattr(time, f"{name}_ns", _reading(getattr(time, f"{name}_ns"), nanoseconds))
    calendar = (time.CLOCK_REALTIME, getattr(time, "CLOCK_TAI", None))

    def clock_gettime_ns(clock_id: int) -> int:
        return clock.now() if clock_id in calendar else clock.passed()

    time.clock_gettime_ns = clock_gettime_ns
    time.clock_gettime = lambda clock_id: clock_gettime_ns(clock_id) / 1e9
    time.sleep = clock.sleep  # type: ignore[assignment]
    for name in ("localtime", "gmtime", "ctime"):
        setattr(time, name, _with_default(getattr(time, name), lambda: clock.now() / 1e9))
    time.asctime = _with_default(time.asctime, lambda: time.localtime())
    shown = time.strftime

    def strftime(form: str, moment: Any = None) -> str:
        return shown(form, time.localtime() if moment is None else moment)

    time.strftime = strftime
    _set_calendar(clock)


def _with_default(function: Callable[..., Any], default: Callable[[], Any]) -> Callable[..., Any]:
    def called(moment: Any = None) -> Any:
        return function(default() if moment is None else moment)

    called.__name__ = called.__qualname__ = function.__name__
    return called


def _set_calendar(clock: Clock) -> None:
    """`datetime` reads the clock in C. Its class is left what it is, only these two methods are others."""

    def now(cls: Any, tz: Any = None) -> Any:
        return cls.fromtimestamp(clock.now() / 1e9, tz)

    def utcnow(cls: Any) -> Any:
        return cls.fromtimestamp(clock.now() / 1e9, datetime.UTC).replace(tzinfo=None)

    (methods,) = (found for found in gc.get_referents(datetime.datetime.__dict__) if isinstance(found, dict))
    methods["now"], methods["utcnow"] = classmethod(now), classmethod(utcnow)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime.datetime))


class _Entropy:
    """Stands in for the kernel's random bytes."""

    def __init__(self) -> None:
        self._draw = random.Random()
        self.begin(0)

    def begin(self, seed: int) -> None:
        self._seed, self._forks = seed, 0
        self._restart()

    def _restart(self) -> None:
        _seed_of_numbers(self._draw, f"entropy/{self._seed}/{self._forks}")

    def urandom(self, size: int, /) -> bytes:
        return self._draw.randbytes(size)

    def getrandom(self, size: int, flags: int = 0) -> bytes:
        return self._draw.randbytes(size)

    def fork(self) -> None:
        self._forks += 1

    def in_child(self) -> None:
        self._restart()
        random.seed(f"fork/{self._seed}/{self._forks}")


_seed_of_numbers = random.Random.seed


def _set_entropy(entropy: _Entropy) -> None:
    def seed_numbers(self: random.Random, a: Any = None, version: int = 2) -> None:
        _seed_of_numbers(self, int.from_bytes(entropy.urandom(32)) if a is None else a, version)

    os.urandom, os.getrandom = entropy.urandom, entropy.getrandom
    random._urandom = entropy.urandom  # type: ignore[attr-defined]
    random.Random.seed = seed_numbers  # type: ignore[method-assign]
    random.seed = random._inst.seed
    os.register_at_fork(before=entropy.fork, after_in_child=entropy.in_child)
    for name in ("_generate_time_safe", "_UuidCreate"):
        setattr(uuid, name, None)
    uuid._node = 0x0123_4567_89AB  # type: ignore[attr-defined]


_clock = Clock()
_entropy = _Entropy()


def install() -> None:
    """Give this process, and all that are forked from it, the clock and the entropy of actions. Once."""
    _set_entropy(_entropy)
    _set_clock(_clock)


def begin(seed: int) -> None:
    """Start the clock and the entropy of an action's process, before any of its code runs."""
    _clock.begin()
    _entropy.begin(seed)
    random.seed(seed)
