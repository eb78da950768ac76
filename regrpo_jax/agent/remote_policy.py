"""An OpenAI-compatible engine as a player: chat completions with log-probs, many at once.

The engine tokenises, so a rollout keeps the tokens that it says it sampled, with its log-probs of them. Where it does
not say (or its words cannot be told apart, or the model is not here), the episode is good for evaluation and for a
report, and never trains.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from regrpo_jax.agent.policy import Branch, EpisodePrompt, Heard, PolicyError, Prefix, SampledTurn, WriteRequest
from regrpo_jax.agent.remote_engine import EngineError, EngineSettings, post
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ImageReference, Turn

_TOKEN_ID = re.compile(r"token_id:(\d+)")
_MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


class Tokens(Protocol):
    """The tokens of the model that the engine serves, as the trainer knows them."""

    @property
    def named(self) -> bool:
        """Whether the engine may name a token by its id, because ours are the same."""

    @property
    def end_of_turn(self) -> int:
        """The token that closes a turn."""

    def prefix(self, prompt: EpisodePrompt) -> Prefix:
        """A prompt as tokens. PolicyError."""

    def heard(self, text: str) -> Heard | None:
        """A user turn after an end of turn, up to the next header; None when it cannot be said."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""

    def token_of(self, piece: bytes) -> int | None:
        """The one token that says this, None when there is none or more than one."""

    def text_of(self, tokens: Sequence[int]) -> tuple[str, np.ndarray]:
        """The text of tokens, and where in it each begins."""


@dataclass(frozen=True)
class RemotePolicy:
    """version: updates that the served weights have seen."""

    settings: EngineSettings
    tokens: Tokens
    version: int = 0

    def start(self, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> RemoteSession:
        """A session. PolicyError: a prompt that the model's template refuses."""
        return RemoteSession(self, prompts, branches, seed)


class RemoteSession:
    """Conversations with an engine that remembers nothing: each request carries all of it."""

    def __init__(self, policy: RemotePolicy, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> None:
        self._policy, self._seed, self._prompts = policy, seed, prompts
        self.prefixes = [policy.tokens.prefix(prompt) for prompt in prompts]
        first = [chat_messages(prompt.turns, prompt.images) for prompt in prompts]
        self._messages: dict[Branch, list[dict[str, Any]]] = {
            (group, branch): list(messages) for group, messages in enumerate(first) for branch in range(branches)
        }
        self._endless: set[Branch] = set()  # whose last turn came without the token that ends it

    def write(self, requests: Sequence[WriteRequest]) -> list[SampledTurn]:
        """One turn each; an error where the engine gave none. UserError when it gave none at all."""
        with ThreadPoolExecutor(self._policy.settings.concurrency) as threads:
            turns = list(threads.map(self._turn, requests))
        if turns and all(turn.error for turn in turns):
            raise UserError(f"the engine wrote nothing at all: {turns[0].error}")
        return turns

    def observe(self, observations: Sequence[tuple[Branch, str]]) -> list[Heard | None]:
        """Puts user turns after the branches' last ones."""
        found = []
        for branch, text in observations:
            heard = self._policy.tokens.heard(text)
            if heard is not None and branch in self._endless and self._policy.tokens.named:
                end = self._policy.tokens.end_of_turn
                heard = Heard(np.insert(heard.tokens, 0, end), np.insert(heard.spoken, 0, False))
            self._messages[branch].append({"role": "user", "content": text})
            found.append(heard)
        return found

    def finish(self, branches: Sequence[Branch]) -> None:
        for branch in branches:
            del self._messages[branch]

    def _turn(self, request: WriteRequest) -> SampledTurn:
        opening = request.opening if self._policy.settings.extended else ""
        try:
            reply = post(self._policy.settings, "/chat/completions", self._body(request, opening))
            choice = reply["choices"][0]
            said, stopped = str(choice["message"]["content"] or ""), choice["finish_reason"] == "stop"
            entries = list((choice.get("logprobs") or {}).get("content") or ())
        except EngineError as error:
            return _nothing(str(error))
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            return _nothing(f"the engine's reply is no chat completion: {type(error).__name__}: {error}")
        turn = self._sampled(opening, said, entries, stopped)
        self._messages[request.branch].append({"role": "assistant", "content": turn.text})
        self._endless.discard(request.branch)
        if stopped and (not len(turn.tokens) or turn.tokens[-1] != self._policy.tokens.end_of_turn):
            self._endless.add(request.branch)
        return turn

    def _body(self, request: WriteRequest, opening: str) -> dict[str, Any]:
        settings, messages = self._policy.settings, self._messages[request.branch]
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": messages + ([{"role": "assistant", "content": opening}] if opening else []),
            "max_tokens": request.budget,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "logprobs": True,
            "seed": self._draw_seed(request.branch, len(messages)),
        }
        if settings.extended and self._policy.tokens.named:
            body["return_tokens_as_token_ids"] = True  # vLLM's; SGLang ignores it
        if opening:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    def _draw_seed(self, branch: Branch, place: int) -> int:
        words = f"{self._seed}/{self._prompts[branch[0]].draw_id}/{branch[1]}/{place}"
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") >> 1

    def _sampled(self, opening: str, said: str, entries: Sequence[Any], stopped: bool) -> SampledTurn:
        """The turn in the engine's own tokens where they can be told, else in ours and without log-probs."""
        tokens = self._policy.tokens
        opened = tokens.encode(opening)
        known = _token_ids(entries, tokens)
        ended = bool(known) and known[-1] == tokens.end_of_turn
        text, starts = tokens.text_of([*opened, *(known[:-1] if ended else known)])
        told = bool(known) and text == opening + said
        if not told:
            known, ended = tokens.encode(said), False
            text, starts = tokens.text_of([*opened, *known])
        starts = starts[len(opened) :]
        logprobs = [float(entry["logprob"]) for entry in entries] if told else [0.0] * len(known)
        return SampledTurn(
            opening=np.array(opened, np.int32),
            tokens=np.array(known, np.int32),
            logprobs=np.minimum(np.array(logprobs, np.float32), 0),
            text=text,
            starts=np.append(starts, len(text)).astype(np.int32) if ended else starts,
            finished=stopped,
            scored=told and tokens.named,
        )


def _token_ids(entries: Sequence[Any], tokens: Tokens) -> list[int]:
    """The ids that an engine names or whose words are one token's alone; [] when one of them is not known."""
    found = []
    for entry in entries:
        named = _TOKEN_ID.fullmatch(entry["token"])
        piece = bytes(entry["bytes"]) if entry.get("bytes") else entry["token"].encode()
        if named and not tokens.named:
            return []
        token = int(named[1]) if named else tokens.token_of(piece)
        if token is None:
            return []
        found.append(token)
    return found


def _nothing(error: str) -> SampledTurn:
    empty = np.zeros(0, np.int32)
    return SampledTurn(empty, empty, np.zeros(0, np.float32), "", empty, finished=False, error=error)


def chat_messages(turns: Sequence[Turn], images: Sequence[ImageReference]) -> list[dict[str, Any]]:
    """Turns as a chat API takes them; pictures stand at their placeholders as data URLs.

    Raises:
      PolicyError: a picture cannot be read.
    """
    messages: list[dict[str, Any]] = []
    waiting = list(images)
    for turn in turns:
        parts: list[dict[str, Any]] = []
        rest = turn.content
        while turn.role == "user" and waiting and waiting[0].placeholder and waiting[0].placeholder in rest:
            image = waiting.pop(0)
            before, _, rest = rest.partition(image.placeholder)
            parts += [{"type": "text", "text": before}] if before else []
            parts.append({"type": "image_url", "image_url": {"url": _data_url(image.path)}})
        content = [*parts, {"type": "text", "text": rest}] if parts else turn.content
        messages.append({"role": turn.role, "content": content})
    if waiting:
        raise PolicyError(f"no user turn has a place for the picture {waiting[0].path}")
    return messages


def _data_url(path: str) -> str:
    try:
        content = base64.b64encode(Path(path).read_bytes()).decode("ascii")
    except OSError as error:
        raise PolicyError(f"the picture {path} cannot be read: {error}") from error
    return f"data:{_MEDIA.get(Path(path).suffix.lower(), 'image/png')};base64,{content}"
