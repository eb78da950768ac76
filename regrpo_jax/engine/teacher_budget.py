"""How much has been asked and spent, over every run that shares the folder, and the end of it.

A request is counted before it is sent, at the most it may cost, and put right when the bill is known; so neither
threads nor processes together, nor a run that is killed, can spend more than was allowed.
"""

from __future__ import annotations

import fcntl
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from regrpo_jax.engine.teacher_cache import write_whole
from regrpo_jax.engine.teacher_settings import TeacherSettings, TeacherStopped

_MILLION = 1_000_000
_ROUNDING = 1e-9  # dollars; sums of prices do not come out even


@dataclass
class Spent:
    """Requests sent, replies of the model among them, tokens billed, and dollars (with what is reserved)."""

    requests: int = 0
    replies: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    dollars: float = 0.0


@dataclass(frozen=True)
class Usage:
    """Tokens of a request, as the server bills them."""

    input_tokens: int
    output_tokens: int


class Budget:
    """The sums in `spent.json` of the cache's folder, safe among threads and processes."""

    def __init__(self, settings: TeacherSettings) -> None:
        self._settings = settings
        self._path = Path(settings.cache) / "spent.json"
        self._under_way = 0  # requests that this object has reserved and not settled
        self._changed = threading.Condition()
        self.spent()  # an unreadable file is told before anything is asked

    def spent(self) -> Spent:
        """What the file says now. TeacherStopped when it cannot be read."""
        with self._locked():
            return self._read()

    def price(self, usage: Usage) -> float:
        """Dollars."""
        settings = self._settings
        dollars = usage.input_tokens * settings.dollars_per_million_input_tokens
        return (dollars + usage.output_tokens * settings.dollars_per_million_output_tokens) / _MILLION

    def reserve(self, most: Usage) -> float:
        """Count a request that is about to be sent; its price at most, to be given back to `settle`.

        Waits for requests under way while what they leave over may be enough. TeacherStopped when it is not.
        """
        dollars = self.price(most)
        with self._changed:
            while reason := self._try(dollars):
                if not self._under_way:
                    raise TeacherStopped(
                        f"the teacher's budget is used up: {reason}. What is done is kept; raise the limit and run "
                        "again to go on"
                    )
                self._changed.wait()
            self._under_way += 1
        return dollars

    def settle(self, reserved: float, usage: Usage | None, *, replied: bool) -> None:
        """Put a reservation right; usage None: the bill is unknown, and the reservation stays spent."""
        with self._changed:
            self._under_way -= 1
            self._changed.notify_all()
            with self._locked():
                spent = self._read()
                spent.replies += replied
                if usage is not None:
                    spent.input_tokens += usage.input_tokens
                    spent.output_tokens += usage.output_tokens
                    spent.dollars = max(0.0, spent.dollars - reserved + self.price(usage))
                self._write(spent)

    def _try(self, dollars: float) -> str:
        """Count a request and return ""; or say what is used up."""
        most_requests, most_dollars = self._settings.most_requests, self._settings.most_dollars
        with self._locked():
            spent = self._read()
            if most_requests is not None and spent.requests >= most_requests:
                return f"{spent.requests} of {most_requests} requests are sent"
            if most_dollars is not None and spent.dollars + dollars > most_dollars + _ROUNDING:
                return (
                    f"{spent.dollars:.4f} of {most_dollars} dollars are spent, "
                    f"and the next request may cost {dollars:.4f}"
                )
            spent.requests += 1
            spent.dollars += dollars
            self._write(spent)
        return ""

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock, which other processes heed too."""
        path = self._path.with_name("spent.lock")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            stream = path.open("a")
        except OSError as error:
            raise TeacherStopped(f"{path}: cannot be written ({error.strerror}); give another cache folder") from error
        with stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _read(self) -> Spent:
        if not self._path.exists():
            return Spent()
        try:
            found = json.loads(self._path.read_text(encoding="utf-8"))
            return Spent(
                requests=int(found["requests"]),
                replies=int(found["replies"]),
                input_tokens=int(found["input_tokens"]),
                output_tokens=int(found["output_tokens"]),
                dollars=float(found["dollars"]),
            )
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise TeacherStopped(
                f"{self._path}: it should say what was spent, but cannot be read; remove it to count from zero"
            ) from error

    def _write(self, spent: Spent) -> None:
        try:
            write_whole(self._path, json.dumps(asdict(spent), sort_keys=True) + "\n")
        except OSError as error:
            raise TeacherStopped(f"{self._path}: cannot be written ({error.strerror}); make room or rights") from error
