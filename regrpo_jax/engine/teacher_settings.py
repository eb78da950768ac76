"""What a teacher is told about its server and its limits, and the two ways in which it may give up.

A teacher is a model behind any OpenAI-compatible chat API. Its key is read from the environment when the run starts;
settings hold the variable's name only, so that no key reaches a file.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from regrpo_jax.errors import UserError, listed


class TeacherRefused(Exception):
    """Why one record has no reflection or no proposals: "rule: sentence". The next record may have."""


class TeacherStopped(UserError):
    """Nothing can be asked any more (budget, key, server). What is done is kept, and a later run goes on from it."""


@dataclass(frozen=True)
class Clock:
    """Where time comes from: seconds that never jump, seconds since 1970, and waiting."""

    now: Callable[[], float] = time.monotonic
    date: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


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
        problems = [*_address_problems(self.base_url), *_number_problems(self)]
        if not self.model:
            problems.append("`model` is empty; give the name that the server knows")
        prices = (self.dollars_per_million_input_tokens, self.dollars_per_million_output_tokens)
        if self.most_dollars is not None and not any(prices):
            problems.append("`most_dollars` limits nothing while both prices of a million tokens are 0; give them")
        if problems:
            raise UserError(f"the teacher's settings: {listed(problems)}")


def _address_problems(base_url: str) -> list[str]:
    try:
        parts = urlsplit(base_url)
        odd = parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0
    except ValueError:
        odd = True
    if odd:
        return ['`base_url` is no web address; give one such as "http://localhost:8000/v1"']
    if parts.username or parts.password or parts.query:
        return ["`base_url` holds more than an address; a key belongs in the variable that `key_variable` names"]
    return []


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
    name = settings.key_variable
    if not name:
        return ""
    key = os.environ.get(name, "").strip()
    if not key:
        raise TeacherStopped(f"the environment variable {name}, which holds the teacher's key, is not set; set it")
    if not key.isascii() or not key.isprintable() or " " in key:  # an HTTP library would show it in its complaint
        raise TeacherStopped(f"the environment variable {name} holds no key: it must be printable ASCII, one word")
    return key
