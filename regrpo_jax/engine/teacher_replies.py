"""What a server's answer means: a reply of the model, or what to do about a request that failed. Pure functions.

Servers that call themselves OpenAI-compatible differ in what they take. A Dialect is what is asked of them; a refusal
leads to a simpler one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

from regrpo_jax.engine.teacher_budget import Usage
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
