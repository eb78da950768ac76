"""What OpenAI-compatible servers answer, read without trust, and what to do after an answer that is no reply.

Engines, teachers and tools judge alike: what may pass is tried again, what is too long or not allowed is one request's
own trouble, and a key, an address or an account that is refused is everybody's. Sources: OpenAI's, vLLM's, SGLang's,
llama.cpp's and TGI's complaints as they send them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, TypeVar

from regrpo_jax.records.reasons import printable
from regrpo_jax.toolbox.http_client import FIRST_WAIT, LONGEST_ASKED_WAIT, Clock, HttpClient, NoAnswer, Pace

_WORDS = 300  # characters of a server's complaint that are told
_SOONER = 3  # an odd answer is no sign of a busy server: the next try comes 2^3 times as soon
_CONTENT_CODES = frozenset({"content_filter", "content_policy_violation", "ResponsibleAIPolicyViolation"})
_LENGTH_CODES = frozenset(
    {"context_length_exceeded", "string_above_max_length", "request_too_large", "exceed_context_size_error"}
)
_MONEY_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"})
_TOO_LONG = re.compile(
    r"context.{0,20}\b(length|size|window|limit)|maximum model length|max_model_len|max_seq_len"
    r"|longer than the (model|maximum)|(prompt|input|message|request)s?\b.{0,60}\btoo (long|large for)"
    r"|reduce the length|exceeds? .{0,40}number of tokens|tokens\b.{0,30}\bmust (be (<=|less than)|have less)"
    r"|must have less than \d+ .{0,10}tokens",
    re.IGNORECASE | re.DOTALL,
)
_UNKNOWN = re.compile(r"unsupported|not supported|unexpected|unknown|unrecogni[sz]ed|not permitted|deprecated", re.I)

Result = TypeVar("Result")


class BadReply(ValueError):
    """A successful answer that cannot be used. final: another try would bring the same."""

    def __init__(self, words: str, *, final: bool = False) -> None:
        super().__init__(words)
        self.final = final


class Course(StrEnum):
    """What to do after a failed request."""

    RETRY = "retry"  # the same again, later
    SIMPLIFY = "simplify"  # in a simpler dialect
    REFUSE = "refuse"  # this record, or turn, cannot be had
    STOP = "stop"  # nothing can be had


TOO_LONG = "too_long"
"""The rule of a request that has more tokens than the model takes."""


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

    @property
    def wants_other_limit(self) -> bool:
        """Whether max_tokens is refused: newer models of OpenAI know max_completion_tokens only."""
        if self.course != Course.SIMPLIFY:
            return False
        named = "max_tokens" in self.words and _UNKNOWN.search(self.words) is not None
        return named or self.param == "max_tokens" or "max_completion_tokens" in self.words


def judge(status: int, text: str, after: float | None) -> Verdict:
    """What an answer that says "no" asks for. text: its body; after: seconds it asks to wait."""
    code, param, message = _complaint(text)
    told = printable(message, _WORDS)
    words = f"HTTP {status}: {told}" if told else f"HTTP {status}"
    if code in _MONEY_CODES or status == 402:
        return Verdict(Course.STOP, f"{words}. The account has no money left; top it up")
    if status in (401, 403):
        return Verdict(Course.STOP, f"{words}. The server does not accept the key; mend it")
    if status in (408, 409, 425, 429) or status >= 500:
        return Verdict(Course.RETRY, words, after=after, busy=status == 429)
    if code in _CONTENT_CODES:
        return Verdict(Course.REFUSE, words, rule="content_filter")
    if code in _LENGTH_CODES or status == 413 or (status in (400, 422) and _TOO_LONG.search(message)):
        return Verdict(Course.REFUSE, words, rule=TOO_LONG)
    if status in (400, 422):
        return Verdict(Course.SIMPLIFY, words, rule="bad_request", param=param)
    return Verdict(Course.STOP, f"{words}. Check base_url and model")


def _complaint(text: str) -> tuple[str, str, str]:
    """(code, parameter, message) of an error's body, which may be anything."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        return "", "", text
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return "", "", error if isinstance(error, str) else text
    code = text_of(error.get("code")) or text_of(error.get("type"))
    return code, text_of(error.get("param")), text_of(error.get("message")) or _detail(error.get("detail")) or text


def _detail(detail: object) -> str:
    """What FastAPI says; its lists repeat what was sent, which must not be taken for the complaint."""
    if not isinstance(detail, list):
        return text_of(detail)
    told = [(each.get("loc"), each.get("msg")) for each in detail if isinstance(each, dict)]
    return "; ".join(f"{'.'.join(map(str, loc)) if isinstance(loc, list) else loc}: {msg}" for loc, msg in told)


def text_of(value: object) -> str:
    """A text; "" for anything else."""
    return value if isinstance(value, str) else ""


def body_of(text: str) -> dict[str, Any]:
    """The object that a successful answer holds. BadReply: it is cut off, empty, or something else."""
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        raise BadReply(f"it answered {printable(text, _WORDS)!r}, which is no JSON") from None
    if not isinstance(body, dict):
        raise BadReply(f"it answered {printable(text, _WORDS)!r}, which is no object")
    return body


def choice_of(text: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """(choice, body) of a chat completion that was asked for one choice: the one with index 0, wherever it stands.

    Raises:
      BadReply: the answer is no completion, or two different choices claim the place.
    """
    body = body_of(text)
    choices = body.get("choices")
    found = choices if isinstance(choices, list) else []
    first = [each for each in found if isinstance(each, dict) and each.get("index") in (None, 0)]
    first = [each for each in first if not isinstance(each.get("index"), bool)]
    if not first or not isinstance(first[0].get("message"), dict):
        raise BadReply(f"it answered {printable(text, _WORDS)!r}, which holds no message")
    if any(each != first[0] for each in first):
        raise BadReply("it answered with more than one choice, where one was asked for")
    return first[0], body


class ApiError(Exception):
    """A request that brought nothing in the end; verdict: of its last try.

    status: of HTTP, 0 when there was none. odd: what came was no answer, or none that can be used. gone: the server
    is not there.
    """

    def __init__(self, words: str, verdict: Verdict, *, status: int = 0, odd: bool = False, gone: bool = False) -> None:
        super().__init__(words)
        self.verdict, self.status, self.odd, self.gone = verdict, status, odd, gone


class Api:
    """A server's routes, asked as often as there is hope; for any number of threads.

    retries: after a request that failed for a while. places: requests at the same time. patience: seconds; a server
    that asks to wait longer has no answer for now.
    """

    def __init__(
        self,
        client: HttpClient,
        base_url: str,
        *,
        retries: int,
        places: int = 1,
        first_wait: float = FIRST_WAIT,
        patience: float = LONGEST_ASKED_WAIT,
    ) -> None:
        self._client, self._base, self._retries, self._patience = client, base_url, retries, patience
        self._pace = Pace(Clock(), places=places, first_wait=first_wait)
        self._limit = "max_tokens"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def ask(self, route: str, body: Mapping[str, Any] | None, read: Callable[[str], Result]) -> Result:
        """What `read` makes of the answer's text; it raises BadReply for one that cannot be used.

        Args:
          body: sent by POST, with its max_tokens under the name that the server takes; None is a GET.
        Raises:
          ApiError: no try brought anything.
        """
        failures, limit = 0, self._limit
        while True:
            try:
                found = self._once(route, _limited(body, limit), read)
            except ApiError as error:
                verdict = error.verdict
                if limit == "max_tokens" and body and limit in body and verdict.wants_other_limit:
                    limit = "max_completion_tokens"
                    continue
                failures += 1
                hopeful = verdict.course == Course.RETRY and (verdict.after or 0.0) <= self._patience
                if not hopeful or failures > self._retries:
                    raise
                self._pace.wait(failures - _SOONER * error.odd, verdict.after)
            else:
                self._limit = limit  # kept only now: a refusal may have had another reason
                return found

    def _once(self, route: str, body: Mapping[str, Any] | None, read: Callable[[str], Result]) -> Result:
        address = self._base.rstrip("/") + route if route.startswith("/") else self._base + route
        try:
            with self._pace.turn():
                answer = self._client.send("GET" if body is None else "POST", address, body=body)
        except NoAnswer as error:
            words = f"{self._base} did not answer: {error}"
            verdict = Verdict(Course.RETRY, words)
            raise ApiError(words, verdict, odd=not error.never_sent, gone=error.never_sent) from None
        status = answer.status
        if answer.good:
            try:
                return read(answer.text)
            except BadReply as error:
                status = _inner_status(answer.text)
                if not status:
                    words = f"{address}: {error}"
                    verdict = Verdict(Course.REFUSE if error.final else Course.RETRY, words)
                    raise ApiError(words, verdict, status=answer.status, odd=True) from None
        verdict = judge(status, answer.text, answer.after)
        words = f"{address} answered {verdict.words}"
        raise ApiError(words, replace(verdict, words=words), status=status)


def _inner_status(text: str) -> int:
    """The status that a proxy wraps in a good answer, {"error": {"code": 502}}; 0 when there is none."""
    try:
        error = body_of(text).get("error")
    except BadReply:
        return 0
    code = error.get("code") if isinstance(error, dict) else None
    return code if type(code) is int and 400 <= code < 600 else 0


def _limited(body: Mapping[str, Any] | None, limit: str) -> dict[str, Any] | None:
    """The body with the most tokens of an answer under the name that the server takes."""
    if body is None or limit in body or "max_tokens" not in body:
        return None if body is None else dict(body)
    return {name: value for name, value in body.items() if name != "max_tokens"} | {limit: body["max_tokens"]}
