"""Requests to a teacher: counted, repeated while there is hope, and given up in one of two ways.

Servers that call themselves OpenAI-compatible differ in what they take. A Dialect is what is asked of them; a refusal
leads to a simpler one. Nothing below repeats a request, so that every request that leaves is one that was counted.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from regrpo_jax.engine.teacher.limits import Budget, TeacherRefused, TeacherSettings, TeacherStopped, Usage, read_key
from regrpo_jax.toolbox.chat_api import BadReply, Course, Verdict, choice_of, judge, text_of
from regrpo_jax.toolbox.http_client import LONGEST_ASKED_WAIT, Clock, HttpClient, NoAnswer, Pace

_BROKEN_OFF = frozenset({"abort", "error"})  # finish_reasons of an answer that the server did not bring to its end


@dataclass(frozen=True)
class Reply:
    """What the model said. finish: the server's finish_reason. usage None: the server does not tell."""

    content: str
    finish: str
    refusal: str
    usage: Usage | None


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
        if self.tokens == "max_tokens" and verdict.wants_other_limit:
            return replace(self, tokens="max_completion_tokens")
        if verdict.param == "temperature" and self.temperature:
            return replace(self, temperature=False)
        if verdict.param == "seed" and self.seed:
            return replace(self, seed=False)
        following = {"json_schema": "json_object", "json_object": "text"}.get(self.form)
        return None if following is None else replace(self, form=following)


def read_reply(text: str) -> Reply:
    """The body of a successful answer. BadReply when it is cut off, empty, or something else."""
    first, body = choice_of(text)
    finish = text_of(first.get("finish_reason"))
    if finish in _BROKEN_OFF:
        raise BadReply(f"it answered a reply that it broke off: finish_reason is {finish!r}")
    return Reply(
        content=text_of(first["message"].get("content")),
        finish=finish,
        refusal=text_of(first["message"].get("refusal")),
        usage=_usage(body.get("usage")),
    )


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    asked, answered = value.get("prompt_tokens"), value.get("completion_tokens")
    if type(asked) is not int or type(answered) is not int or min(asked, answered) < 0:
        return None
    return Usage(asked, answered)


Messages = Sequence[Mapping[str, Any]]

_IMAGE_TOKENS = 4096  # of an image at most, for what is reserved before the bill is known
_MESSAGE_TOKENS = 64  # around each message, likewise
_NOTHING = Usage(0, 0)
_ODD = "odd_reply"  # the rule of an answer that was none


class _Failed(Exception):
    """A request that brought no reply; usage: what it cost, None when nobody knows."""

    def __init__(self, verdict: Verdict, usage: Usage | None) -> None:
        super().__init__(verdict.words)
        self.verdict, self.usage = verdict, usage


class ChatClient:
    """One server, for any number of threads. TeacherStopped when the key is missing."""

    def __init__(self, settings: TeacherSettings, budget: Budget, clock: Clock) -> None:
        self._settings, self._budget, self._clock = settings, budget, clock
        interval = 60.0 / settings.requests_per_minute
        self._pace = Pace(clock, places=settings.max_concurrency, interval=interval, seed=f"{settings.seed}/pace")
        self._http = HttpClient(timeout=settings.timeout, key=read_key(settings))
        self._address = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._lock = threading.Lock()
        self._replies = 0
        self._dialect = Dialect()
        self._stopped: str = ""

    def close(self) -> None:
        self._http.close()

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
            # Others got replies meanwhile, or it answers and not to the point: it is this request that it cannot take.
            if self._replies > served or (self._replies and verdict.rule == _ODD):
                raise TeacherRefused(f"{verdict.rule}: {words}")
            raise self._stop(f"{words}. Run again when it answers")
        if verdict.after is not None and verdict.after > LONGEST_ASKED_WAIT:
            raise self._stop(f"{verdict.words}. It asks to wait {verdict.after:.0f} seconds; run again then")
        self._pace.wait(failures, verdict.after)

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
            raise _Failed(Verdict(Course.RETRY, str(error), rule=_ODD), None) from None

    def _post(self, body: Mapping[str, Any]) -> str:
        """The body of a successful answer. _Failed."""
        body = {"model": self._settings.model, **body}
        try:
            answer = self._http.send("POST", self._address, body=body, date=self._clock.date())
        except NoAnswer as error:
            usage = _NOTHING if error.never_sent else None
            raise _Failed(Verdict(Course.RETRY, f"no answer: {error}"), usage) from None
        if not answer.good:
            raise _Failed(judge(answer.status, answer.text, answer.after), _NOTHING)
        return answer.text


def _input_bound(messages: Messages, schema: Mapping[str, Any]) -> int:
    """More tokens than a request has: no tokeniser makes more than one of a byte."""
    count = len(json.dumps(schema)) + _MESSAGE_TOKENS * len(messages)
    for message in messages:
        parts = [{"text": message["content"]}] if isinstance(message["content"], str) else message["content"]
        for part in parts:
            count += len(part["text"].encode("utf-8", "replace")) if "text" in part else _IMAGE_TOKENS
    return count
