"""Requests to a chat API: paced, counted, repeated while there is hope, and given up in one of two ways.

Servers that call themselves OpenAI-compatible differ in what they take. A Dialect is what is asked of them; a refusal
leads to a simpler one. The openai package's own retries are off, so that every request that leaves is one that was
counted.
"""

from __future__ import annotations

import json
import math
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from regrpo_jax.engine.teacher.limits import (
    Budget,
    Clock,
    TeacherRefused,
    TeacherSettings,
    TeacherStopped,
    Usage,
    read_key,
)
from regrpo_jax.errors import UserError
from regrpo_jax.records.reasons import printable

_WORDS = 300  # characters of a server's complaint that are told
_CONTENT_CODES = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})
_LENGTH_CODES = frozenset({"context_length_exceeded", "string_above_max_length", "request_too_large"})
_MONEY_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})


class BadReply(ValueError):
    """A successful answer that is no chat completion."""


@dataclass(frozen=True)
class Reply:
    """What the model said. finish: the server's finish_reason. usage None: the server does not tell."""

    content: str
    finish: str
    refusal: str
    usage: Usage | None


class Course(StrEnum):
    """What to do after a failed request."""

    RETRY = "retry"  # the same again, later
    SIMPLIFY = "simplify"  # in a simpler dialect
    REFUSE = "refuse"  # this record cannot be had
    STOP = "stop"  # nothing can be had


@dataclass(frozen=True)
class Verdict:
    """What to do, and why in words for a person. rule: names a refusal. param: what of the request was wrong.

    after: seconds that the server asks to wait, None when it does not. busy: it has too many requests.
    """

    course: Course
    words: str
    rule: str = "server_error"
    param: str = ""
    after: float | None = None
    busy: bool = False


@dataclass(frozen=True)
class Dialect:
    """How a request is put. Structured answers are asked for as well as the server can; we check them in any case."""

    form: str = "json_schema"
    tokens: str = "max_tokens"
    temperature: bool = True
    seed: bool = True

    def parameters(self, schema: Mapping[str, Any], max_tokens: int, temperature: float, seed: int) -> dict[str, Any]:
        """Keyword arguments of a chat completion."""
        found: dict[str, Any] = {self.tokens: max_tokens}
        if self.temperature:
            found["temperature"] = temperature
        if self.seed:
            found["seed"] = seed
        if self.form == "json_schema":
            found["response_format"] = {"type": "json_schema", "json_schema": dict(schema)}
        elif self.form == "json_object":
            found["response_format"] = {"type": "json_object"}
        return found

    def simpler(self, verdict: Verdict) -> Dialect | None:
        """What may be taken instead after a refusal; None when nothing is left to leave out."""
        if self.tokens == "max_tokens" and (
            verdict.param == "max_tokens" or "max_completion_tokens" in verdict.words
        ):  # newer models of OpenAI know the other name only
            return replace(self, tokens="max_completion_tokens")
        if verdict.param == "temperature" and self.temperature:
            return replace(self, temperature=False)
        if verdict.param == "seed" and self.seed:
            return replace(self, seed=False)
        following = {"json_schema": "json_object", "json_object": "text"}.get(self.form)
        return None if following is None else replace(self, form=following)


def read_reply(text: str) -> Reply:
    """The body of a successful answer. BadReply when it is cut off, empty, or something else."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise BadReply(f"it answered {printable(text, _WORDS)!r}, which is no JSON") from None
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        raise BadReply(f"it answered {printable(text, _WORDS)!r}, which holds no message")
    return Reply(
        content=_text(message.get("content")),
        finish=_text(first.get("finish_reason")),
        refusal=_text(message.get("refusal")),
        usage=_usage(body.get("usage")),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    asked, answered = value.get("prompt_tokens"), value.get("completion_tokens")
    if type(asked) is not int or type(answered) is not int or min(asked, answered) < 0:
        return None
    return Usage(asked, answered)


def judge(status: int, text: str, after: float | None) -> Verdict:
    """What an answer that says "no" asks for. text: its body; after: seconds it asks to wait."""
    code, param, told = _complaint(text)
    words = f"HTTP {status}: {told}" if told else f"HTTP {status}"
    if code in _MONEY_CODES or status == 402:
        return Verdict(Course.STOP, f"{words}. The account has no money left; top it up")
    if status in (401, 403):
        return Verdict(Course.STOP, f"{words}. The server does not accept the key; mend it")
    if status in (408, 409, 425, 429) or status >= 500:
        return Verdict(Course.RETRY, words, after=after, busy=status == 429)
    if code in _CONTENT_CODES:
        return Verdict(Course.REFUSE, words, rule="content_filter")
    if code in _LENGTH_CODES or status == 413:
        return Verdict(Course.REFUSE, words, rule="too_long")
    if status in (400, 422):
        return Verdict(Course.SIMPLIFY, words, rule="bad_request", param=param)
    return Verdict(Course.STOP, f"{words}. Check base_url and model")


def _complaint(text: str) -> tuple[str, str, str]:
    """(code, parameter, message) of an error's body, which may be anything."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return "", "", printable(text, _WORDS)
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return "", "", printable(error if isinstance(error, str) else text, _WORDS)
    told = _text(error.get("message")) or text
    return _text(error.get("code")) or _text(error.get("type")), _text(error.get("param")), printable(told, _WORDS)


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


Messages = Sequence[Mapping[str, Any]]

LONGEST_ASKED_WAIT = 600.0  # seconds; a server that asks for more is left for a later run
_MOST_REPLY = 2**22  # bytes
_IMAGE_TOKENS = 4096  # of an image at most, for what is reserved before the bill is known
_MESSAGE_TOKENS = 64  # around each message, likewise
_NOTHING = Usage(0, 0)
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2")  # what the openai package may send with
_NEVER_SENT = ("ConnectError", "ConnectTimeout", "UnsupportedProtocol", "PoolTimeout")


class _Failed(Exception):
    """A request that brought no reply; usage: what it cost, None when nobody knows."""

    def __init__(self, verdict: Verdict, usage: Usage | None) -> None:
        super().__init__(verdict.words)
        self.verdict, self.usage = verdict, usage


class ChatClient:
    """One server, for any number of threads. TeacherStopped when the key or the openai package is missing."""

    def __init__(self, settings: TeacherSettings, budget: Budget, clock: Clock) -> None:
        self._settings, self._budget, self._clock = settings, budget, clock
        self._pace = Pace(settings, clock)
        self._key = read_key(settings)
        self._api = _api(settings, self._key)
        self._lock = threading.Lock()
        self._replies = 0
        self._dialect = Dialect()
        self._stopped: str = ""

    def close(self) -> None:
        self._api.close()

    def ask(self, messages: Messages, schema: Mapping[str, Any]) -> Reply:
        """The model's reply. TeacherRefused: not to this; TeacherStopped: to nothing."""
        failures, served, dialect = 0, self._replies, self._dialect
        while True:
            try:
                reply = self._send(messages, schema, dialect)
            except _Failed as failed:
                verdict = failed.verdict
            else:
                with self._lock:
                    self._replies += 1
                    self._dialect = dialect  # kept only now: a refusal may have had another reason
                return reply
            if verdict.course == Course.SIMPLIFY:
                dialect = dialect.simpler(verdict) or self._no_dialect_left(verdict)
            elif verdict.course == Course.REFUSE:
                raise TeacherRefused(f"{verdict.rule}: {verdict.words}")
            elif verdict.course == Course.STOP:
                raise self._stop(verdict.words)
            else:
                failures += 1
                self._wait(verdict, failures, served)

    def _no_dialect_left(self, verdict: Verdict) -> Dialect:
        """A request that no wording helps: its content is at fault if the server has ever understood another."""
        if self._budget.spent().replies:
            raise TeacherRefused(f"{verdict.rule}: {verdict.words}")
        raise self._stop(f"{verdict.words}. It has not understood any request yet; check base_url and model")

    def _wait(self, verdict: Verdict, failures: int, served: int) -> None:
        """Wait before the next try, or give up."""
        if failures > self._settings.retries:
            words = f"{verdict.words} ({failures} tries)"
            if verdict.busy:
                raise self._stop(f"{words}. Lower requests_per_minute, or run again later")
            if self._replies > served:  # others got replies meanwhile, so it is this request that it cannot take
                raise TeacherRefused(f"{verdict.rule}: {words}")
            raise self._stop(f"{words}. Run again when it answers")
        if verdict.after is not None:
            if verdict.after > LONGEST_ASKED_WAIT:
                raise self._stop(f"{verdict.words}. It asks to wait {verdict.after:.0f} seconds; run again then")
            self._pace.hold(verdict.after)
        self._clock.sleep(max(verdict.after or 0.0, self._pace.backoff(failures)))

    def _stop(self, words: str) -> TeacherStopped:
        """Nobody sends anything any more."""
        self._stopped = self._stopped or (
            f"the teacher at {self._settings.base_url} cannot go on: {words}. What is done is kept, and the same run "
            "goes on from there"
        )
        return TeacherStopped(self._stopped)

    def _send(self, messages: Messages, schema: Mapping[str, Any], dialect: Dialect) -> Reply:
        """One request, counted. _Failed."""
        settings = self._settings
        parameters = dialect.parameters(schema, settings.max_tokens, settings.temperature, settings.seed)
        with self._pace.turn():
            if self._stopped:
                raise TeacherStopped(self._stopped)
            reserved = self._budget.reserve(Usage(_input_bound(messages, schema), settings.max_tokens))
            usage, replied = None, False
            try:
                reply = self._read(self._post({"messages": messages, **parameters}))
                usage, replied = reply.usage, True
            except _Failed as failed:
                usage = failed.usage
                raise
            finally:
                self._budget.settle(reserved, usage, replied=replied)
        return reply

    def _read(self, text: str) -> Reply:
        try:
            return read_reply(text)
        except BadReply as error:
            raise _Failed(Verdict(Course.RETRY, str(error)), None) from None

    def _post(self, body: Mapping[str, Any]) -> str:
        """The body of a successful answer, without the key. _Failed."""
        import openai

        try:
            create = self._api.chat.completions.with_streaming_response.create
            with create(model=self._settings.model, **body) as response:
                return self._clean(self._whole(response))
        except openai.APIStatusError as error:
            after = retry_after(error.response.headers.get("retry-after"), self._clock.date())
            verdict = judge(error.status_code, self._clean(error.response.text), after)
            raise _Failed(verdict, _NOTHING) from None  # the cause would carry the request and so the key
        except Exception as error:
            if not _is_of_transport(error):
                raise
            words = self._clean(_transport_words(error, self._settings))
            usage = _NOTHING if type(error.__cause__).__name__ in _NEVER_SENT else None
            raise _Failed(Verdict(Course.RETRY, words), usage) from None

    def _whole(self, response: Any) -> str:
        """All of the answer, within the time of the request: a server that drips must not hold a thread.

        The time of the network is real, as the HTTP library's own timeout is, whatever the clock of our waits says.
        """
        end, parts, size = time.monotonic() + self._settings.timeout, [], 0
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if time.monotonic() > end:
                raise _Failed(Verdict(Course.RETRY, f"no whole answer within {self._settings.timeout} seconds"), None)
            if size > _MOST_REPLY:
                raise _Failed(Verdict(Course.RETRY, f"its answer has more than {_MOST_REPLY} bytes"), None)
        return b"".join(parts).decode("utf-8", "replace")

    def _clean(self, text: str) -> str:
        """Without the key, which servers repeat in their complaints."""
        return text.replace(self._key, "[key]") if self._key else text


def _api(settings: TeacherSettings, key: str) -> Any:
    try:
        import openai
    except ImportError as error:
        raise UserError('a teacher needs the openai package: pip install "regrpo_jax[tools]"') from error
    return openai.OpenAI(base_url=settings.base_url, api_key=key or "none", timeout=settings.timeout, max_retries=0)


def _input_bound(messages: Messages, schema: Mapping[str, Any]) -> int:
    """More tokens than a request has: no tokeniser makes more than one of a byte."""
    count = len(json.dumps(schema)) + _MESSAGE_TOKENS * len(messages)
    for message in messages:
        parts = [{"text": message["content"]}] if isinstance(message["content"], str) else message["content"]
        for part in parts:
            count += len(part["text"].encode("utf-8", "replace")) if "text" in part else _IMAGE_TOKENS
    return count


def _is_of_transport(error: Exception) -> bool:
    import openai

    if isinstance(error, openai.OpenAIError | OSError):
        return True
    return any(kind.__module__.partition(".")[0] in _TRANSPORTS for kind in type(error).__mro__)


def _transport_words(error: Exception, settings: TeacherSettings) -> str:
    cause = error.__cause__ or error
    if "Timeout" in type(error).__name__:
        return f"no answer within {settings.timeout} seconds"
    return f"no answer: {type(cause).__name__}: {cause}"
