"""A teacher's limits: what a run is told of its server, the answers that it keeps, and how much it may spend.

A teacher is a model behind any OpenAI-compatible chat API. Its key is read from the environment when the run starts;
settings hold the variable's name only, so that no key reaches a file. Only answers that were found valid are kept; a
file that is damaged counts as none, so that its question is asked again. A request is counted before it is sent, at the
most it may cost, and put right when the bill is known; so neither threads nor processes together, nor a run that is
killed, can spend more than was allowed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError, listed
from regrpo_jax.toolbox.http_client import address_problems, key_of


class TeacherRefused(Exception):
    """Why one record has no reflection or no proposals: "rule: sentence". The next record may have."""


class TeacherStopped(UserError):
    """Nothing can be asked any more (budget, key, server). What is done is kept, and a later run goes on from it."""


@dataclass(frozen=True)
class TeacherSettings:
    """A chat API and how much may be asked of it.

    base_url: such as "http://localhost:8000/v1". model: its name there. key_variable: environment variable that
    holds the key, "" for a server without one. cache: folder of the answers and of what has been spent. timeout:
    seconds of one request, from its start to the last byte of its answer. retries: after a request that failed for a
    while. repairs: times that a wrong answer is sent back. requests_per_minute, max_concurrency: of all threads.
    most_requests, most_dollars: over all runs that share the cache, None without limit. max_tokens: of an answer.
    images: show the task's images, shrunk to longest_side pixels. UserError for values that make no sense.
    """

    base_url: str
    model: str
    cache: Path
    key_variable: str = ""
    timeout: float = 120.0
    retries: int = 5
    repairs: int = 2
    requests_per_minute: float = 60.0
    max_concurrency: int = 4
    most_requests: int | None = None
    most_dollars: float | None = None
    dollars_per_million_input_tokens: float = 0.0
    dollars_per_million_output_tokens: float = 0.0
    max_tokens: int = 1024
    temperature: float = 0.0
    seed: int = 0
    images: bool = False
    longest_side: int = 1536

    def __post_init__(self) -> None:
        problems = [*address_problems(self.base_url), *_number_problems(self)]
        if not self.model:
            problems.append("`model` is empty; give the name that the server knows")
        prices = (self.dollars_per_million_input_tokens, self.dollars_per_million_output_tokens)
        if self.most_dollars is not None and not any(prices):
            problems.append("`most_dollars` limits nothing while both prices of a million tokens are 0; give them")
        if problems:
            raise UserError(f"the teacher's settings: {listed(problems)}")


def _number_problems(settings: TeacherSettings) -> list[str]:
    above = {"timeout": settings.timeout, "requests_per_minute": settings.requests_per_minute,
             "max_concurrency": settings.max_concurrency, "max_tokens": settings.max_tokens,
             "longest_side": settings.longest_side}  # fmt: skip
    least = {"retries": settings.retries, "repairs": settings.repairs, "temperature": settings.temperature,
             "most_requests": settings.most_requests or 0, "most_dollars": settings.most_dollars or 0.0,
             "dollars_per_million_input_tokens": settings.dollars_per_million_input_tokens,
             "dollars_per_million_output_tokens": settings.dollars_per_million_output_tokens}  # fmt: skip
    problems = [f"`{name}` is {value}; it must be above 0" for name, value in above.items() if not 0 < value < math.inf]
    return problems + [
        f"`{name}` is {value}; it must be at least 0" for name, value in least.items() if not 0 <= value < math.inf
    ]


def read_key(settings: TeacherSettings) -> str:
    """The key, "" for a server without one. TeacherStopped when the variable does not hold one; never shows it."""
    try:
        return key_of(settings.key_variable)
    except UserError as error:
        raise TeacherStopped(str(error)) from None


def request_key(request: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of plain data, whatever the order of its keys."""
    text = json.dumps(request, ensure_ascii=True, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def write_whole(path: Path, text: str) -> None:
    """Write a file that nobody sees half of, from any number of threads and processes. OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class AnswerCache:
    """A folder of answers. `lock(key)` keeps two threads from asking the same at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._locks: dict[str, threading.Lock] = {}
        self._guard = threading.Lock()

    def lock(self, key: str) -> threading.Lock:
        with self._guard:
            return self._locks.setdefault(key, threading.Lock())

    def get(self, key: str) -> str | None:
        """The text of the answer; None when there is none that can be read."""
        try:
            entry = json.loads(self._path(key).read_text(encoding="utf-8"))
            answer = entry["answer"] if entry["key"] == key else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return answer if isinstance(answer, str) else None

    def put(self, key: str, model: str, answer: str) -> None:
        """Keep an answer. TeacherStopped when the disk does not take it: it would be paid for again."""
        entry = json.dumps({"key": key, "model": model, "answer": answer}, ensure_ascii=True, sort_keys=True)
        try:
            write_whole(self._path(key), entry + "\n")
        except OSError as error:
            raise TeacherStopped(
                f"{self._path(key)}: the teacher's answer cannot be written ({error.strerror}); make room or rights "
                "and run again"
            ) from error

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


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
