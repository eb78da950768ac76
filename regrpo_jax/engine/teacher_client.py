"""Requests to a chat API: paced, counted, repeated while there is hope, and given up in one of two ways.

The openai package's own retries are off, so that every request that leaves is one that was counted.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from regrpo_jax.engine.teacher_budget import Budget, Usage
from regrpo_jax.engine.teacher_pace import Pace
from regrpo_jax.engine.teacher_replies import (
    BadReply,
    Course,
    Dialect,
    Reply,
    Verdict,
    judge,
    read_reply,
    retry_after,
)
from regrpo_jax.engine.teacher_settings import Clock, TeacherRefused, TeacherSettings, TeacherStopped, read_key
from regrpo_jax.errors import UserError

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
