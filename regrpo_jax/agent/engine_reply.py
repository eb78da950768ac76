"""What an engine's reply says of a turn, read without trust: a turn is used whole, or not at all.

A reply that is odd in any part (a log-prob that is none, a key that is missing, half a character) is no turn: what was
sampled cannot be told from it, and a wrong number would be trained without a word. Sources: the chat completions API
of OpenAI; vLLM, which writes -9999 where a log-prob is minus infinity, and its finish_reason "abort".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regrpo_jax.records.reasons import kind_of, printable
from regrpo_jax.toolbox.chat_api import BadReply, choice_of

_LEAST_LOGPROB = -1000.0  # nats; nothing so unlikely was ever sampled
_ROUNDING = 1e-4  # nats above 0
_PASSING = frozenset({"abort", "error"})  # the engine broke the turn off; another try may come through


@dataclass(frozen=True)
class SaidToken:
    """A sampled token. name: its text, or "token_id:N". piece: the bytes that it says."""

    name: str
    piece: bytes
    logprob: float


@dataclass(frozen=True)
class Said:
    """A turn. finished: it has an end, else the tokens were used up. tokens: () where the engine does not tell them.
    counted: tokens that the engine says it sampled; prompt: those that it says the conversation before has. None where
    it does not say."""

    text: str
    finished: bool
    tokens: tuple[SaidToken, ...]
    counted: int | None
    prompt: int | None = None


def read_said(text: str, most: int) -> Said:
    """The turn that the body of a good answer holds. most: tokens that were asked for, at most.

    Raises:
      BadReply: it holds none, or anything in it is odd; final where another try would bring the same.
    """
    choice, body = choice_of(text)
    reason = choice.get("finish_reason")
    if reason not in ("stop", "length"):
        told = printable(reason) if isinstance(reason, str) else kind_of(reason)
        final = isinstance(reason, str) and reason not in _PASSING
        raise BadReply(f"the engine gave a turn without its end: finish_reason is {told}", final=final)
    said = _words(choice["message"])
    tokens = _tokens(choice.get("logprobs"))
    if len(tokens) > most:
        raise BadReply(f"the engine wrote {len(tokens)} tokens where at most {most} were asked for")
    return Said(said, reason == "stop", tokens, _count(body, "completion_tokens"), _count(body, "prompt_tokens"))


def _words(message: dict[str, Any]) -> str:
    for elsewhere in ("tool_calls", "function_call", "refusal"):
        if message.get(elsewhere):
            words = f"the engine put words of the turn into {elsewhere}"
            raise BadReply(f"{words}; start it without a parser that takes turns apart", final=True)
    if message.get("role", "assistant") != "assistant":
        raise BadReply(f"the engine wrote as {printable(message['role'])}, not as the assistant")
    if "content" not in message:
        raise BadReply("the engine's message has no content")
    content = message["content"]
    if content is None:  # a turn that ended at once
        return ""
    if not isinstance(content, str):
        raise BadReply(f"the engine's content is {kind_of(content)}, not a text")
    _encoded(content)
    return content


def _tokens(logprobs: object) -> tuple[SaidToken, ...]:
    if logprobs is None:
        return ()
    if not isinstance(logprobs, dict):
        raise BadReply(f"the engine's logprobs are {kind_of(logprobs)}, not an object")
    entries = logprobs.get("content")
    if entries is None:
        return ()
    if not isinstance(entries, list):
        raise BadReply(f"the engine's logprobs.content is {kind_of(entries)}, not a list")
    return tuple(_token(entry, place) for place, entry in enumerate(entries))


def _token(entry: object, place: int) -> SaidToken:
    if not isinstance(entry, dict):
        raise BadReply(f"the engine's token {place} is {kind_of(entry)}, not an object")
    name = entry.get("token")
    if not isinstance(name, str):
        raise BadReply(f"the engine's token {place} is called by {kind_of(name)}, not by a text")
    piece = entry.get("bytes")
    return SaidToken(name, _bytes(piece, place) if piece else _encoded(name), _logprob(entry.get("logprob"), place))


def _logprob(value: object, place: int) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadReply(f"the engine's token {place} has {kind_of(value)} for a log-prob")
    if not _LEAST_LOGPROB <= value <= _ROUNDING or math.isnan(value):
        raise BadReply(f"the engine's token {place} has the log-prob {printable(value)}, which no sampled token has")
    return min(float(value), 0.0)


def _bytes(values: object, place: int) -> bytes:
    if not isinstance(values, Sequence) or not all(type(value) is int and 0 <= value < 256 for value in values):
        raise BadReply(f"the bytes of the engine's token {place} are no bytes")
    return bytes(values)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise BadReply(f"the engine's words hold half a character: {printable(text)!r}") from None


def _count(body: dict[str, Any], name: str) -> int | None:
    usage = body.get("usage")
    found = usage.get(name) if isinstance(usage, dict) else None
    return found if type(found) is int else None
