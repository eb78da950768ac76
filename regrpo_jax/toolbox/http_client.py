"""Requests to servers elsewhere: engines that play, teachers, and what some tools need.

All of them send with this one client, so that time, size, keys and pacing are the same everywhere. A request has one
deadline, from its start to the last byte of its answer: a server that drips does not hold a thread. A key goes into a
header and nowhere else: servers repeat keys in their complaints, and those end in a run's record.
"""

from __future__ import annotations

import functools
import json
import math
import os
import random
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import urlsplit

import httpx2

from regrpo_jax.errors import UserError

FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0  # seconds of our own backoff
LONGEST_ASKED_WAIT = 600.0  # seconds; a server that asks for more has no answer for now
MOST_REPLY = 2**26  # bytes
_AUTHORIZATION = "Authorization"
_NO_SECRET = 8  # characters; servers without keys are given words such as "EMPTY", which a model may say too
_IDLE = 3.0  # seconds that a connection is kept; servers give theirs up after 5 (uvicorn), and must not be the first
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL)


@dataclass(frozen=True)
class Clock:
    """Where time comes from: seconds that never jump, seconds since 1970, and waiting."""

    now: Callable[[], float] = time.monotonic
    date: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


@dataclass(frozen=True)
class Answer:
    """What a server answered. after: seconds that it asks to wait, None when it does not."""

    status: int
    text: str
    after: float | None

    @property
    def good(self) -> bool:
        return 200 <= self.status < 300


class NoAnswer(Exception):
    """No whole answer came; says why. never_sent: the server has not even seen the request."""

    def __init__(self, words: str, *, never_sent: bool = False) -> None:
        super().__init__(words)
        self.never_sent = never_sent


class HttpClient:
    """A server's, for any number of threads. The time of the network is real, whatever clock our waits go by.

    key: "" for a server without one. key_header: where it stands, alone unless it is Authorization's. timeout: seconds
    from the start of a request to the last byte of its answer.
    """

    def __init__(self, *, timeout: float, key: str = "", key_header: str = _AUTHORIZATION) -> None:
        self._timeout, self._key = timeout, key
        value = f"Bearer {key}" if key_header == _AUTHORIZATION else key
        self._client = httpx2.Client(
            headers={key_header: value} if key else {},
            timeout=timeout,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=_IDLE),
            verify=_certificates(),
            follow_redirects=key_header == _AUTHORIZATION,  # which stays at home when a server sends us elsewhere
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def send(self, method: str, address: str, *, body: Any = None, date: float = 0.0) -> Answer:
        """What the server answers, whatever its status.

        Args:
          body: plain data, sent as JSON.
          date: seconds since 1970, which dates in the answer are compared with; 0 is now.
        Raises:
          NoAnswer: none came, or it broke off, or it was no HTTP.
        """
        end = time.monotonic() + self._timeout
        content = None if body is None else json.dumps(body).encode("ascii")
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            with self._client.stream(method, address, content=content, headers=headers) as response:
                text = self._whole(response, end)
                after = retry_after(response.headers.get("retry-after"), date or time.time())
                return Answer(response.status_code, self._without_key(text, response.is_success), after)
        except httpx2.TimeoutException as error:
            words = f"nothing within {self._timeout:g} seconds"
            raise NoAnswer(words, never_sent=isinstance(error, _NEVER_SENT)) from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, ValueError) as error:
            words = self._without_key(f"{type(error).__name__}: {error}", False)
            # The cause would carry the request and so the key.
            raise NoAnswer(words, never_sent=isinstance(error, _NEVER_SENT)) from None

    def _whole(self, response: httpx2.Response, end: float) -> str:
        parts, size = [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if time.monotonic() > end:
                raise NoAnswer(f"no whole answer within {self._timeout:g} seconds")
            if size > MOST_REPLY:
                raise NoAnswer(f"an answer of more than {MOST_REPLY} bytes")
        return b"".join(parts).decode("utf-8-sig", "strict" if response.is_success else "replace")

    def _without_key(self, text: str, good: bool) -> str:
        """Without the key, in a good answer only where it cannot be a word of the model's."""
        if not self._key:
            return text
        key = self._key if not good or len(self._key) >= _NO_SECRET else f"Bearer {self._key}"
        for shape in {key, json.dumps(key)[1:-1], key.replace("/", "\\/")}:
            text = text.replace(shape, "[key]")
        return text


@functools.cache
def _certificates() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


def retry_after(value: str | None, date: float) -> float | None:
    """Seconds from `date` that a Retry-After header asks to wait; None when it says nothing that can be read."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - date
        except (ValueError, TypeError, OverflowError, OSError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def key_of(variable: str) -> str:
    """The key that an environment variable holds, "" where none is named; never shown. UserError: it holds none."""
    if not variable:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise UserError(f"the environment variable {variable}, which holds the key, is not set; set it")
    if not key.isascii() or not key.isprintable() or " " in key:  # an HTTP library would show it in its complaint
        raise UserError(f"the environment variable {variable} holds no key: it must be printable ASCII, one word")
    return key


def address_problems(base_url: str) -> list[str]:
    """What is wrong with the address of a server; it is written into files, so it must not hold a key."""
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


class Pace:
    """How fast a server is asked, by all threads together.

    places: requests under way. interval: seconds between two that begin. first_wait: of our own backoff. seed: waits
    are drawn from it.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        places: int,
        interval: float = 0.0,
        first_wait: float = FIRST_WAIT,
        seed: str | None = None,
    ) -> None:
        self._clock, self._interval, self._first_wait = clock, interval, first_wait
        self._places = threading.BoundedSemaphore(places)
        self._lock = threading.Lock()
        self._next = clock.now()
        self._rng = random.Random(seed)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """A place among the requests under way, from the time on at which one may be sent."""
        with self._places:
            while (wait := self._claim()) > 0:
                self._clock.sleep(wait)
            yield

    def wait(self, failures: int, asked: float | None) -> None:
        """Wait after so many failures of a request (from 1, less for a shorter wait), and as long as a server asks."""
        if asked is not None:
            self.hold(asked)
        self._clock.sleep(max(asked or 0.0, self.backoff(failures)))

    def hold(self, seconds: float) -> None:
        """Nobody sends anything for so long."""
        with self._lock:
            self._next = max(self._next, self._clock.now() + seconds)

    def backoff(self, failures: int) -> float:
        """Doubled each time, half of it drawn, so that many threads do not come back at the same moment."""
        longest = min(LONGEST_WAIT, self._first_wait * 2 ** min(failures - 1, 30))
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
