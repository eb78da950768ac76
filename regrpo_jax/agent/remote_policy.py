"""An OpenAI-compatible engine as a player: chat completions with log-probs, many at once.

The engine tokenises, so a rollout keeps the tokens that it says it sampled, with its log-probs of them. Where it does
not say (or its words cannot be told apart, or the model is not here), the episode is good for evaluation and for a
report, and never trains.
"""

from __future__ import annotations

import base64
import hashlib
import math
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from regrpo_jax.agent.engine_reply import Said, SaidToken, read_said
from regrpo_jax.agent.policy import Branch, EpisodePrompt, Heard, PolicyError, Prefix, SampledTurn, Told, WriteRequest
from regrpo_jax.agent.remote_engine import EngineSettings, engine_api
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ImageReference, Turn
from regrpo_jax.toolbox.chat_api import TOO_LONG, ApiError

_TOKEN_ID = re.compile(r"token_id:(\d{1,9})", re.ASCII)
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

    def heard(self, told: Told) -> Heard | None:
        """A user turn after an end of turn, up to the next header; None when it cannot be said."""

    def encode(self, text: str) -> list[int]:
        """Tokens of a text."""

    def token_of(self, piece: bytes) -> int | None:
        """The one token that says this, None when there is none or more than one."""

    def may_say(self, token: int) -> bool:
        """Whether a turn may hold the token with this id: one of the vocabulary, and no picture's."""

    def text_of(self, tokens: Sequence[int]) -> tuple[str, np.ndarray]:
        """The text of tokens, and where in it each begins."""


@dataclass(frozen=True)
class RemotePolicy:
    """version: updates that the served weights have seen. room: tokens that an episode may have after its prompt."""

    settings: EngineSettings
    tokens: Tokens
    version: int = 0
    room: int | None = None

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
        self._pictured = {branch for branch in self._messages if prompts[branch[0]].images}
        self._lengths = dict.fromkeys(self._messages, 0)  # tokens after the prompt
        self._spelt = dict.fromkeys(self._messages, 0)  # the same as an engine reads them, which is given words
        self._warned = False
        self._served = False  # whether the engine has understood anything yet
        self._api = engine_api(policy.settings)

    def write(self, requests: Sequence[WriteRequest]) -> list[SampledTurn]:
        """One turn each; an error where the engine gave none.

        Raises:
          UserError: the engine is not there, or has not understood anything yet. A reply that is odd, and stays so, is
            its own episode's trouble, also where that is the last one.
        """
        with ThreadPoolExecutor(self._policy.settings.concurrency) as threads:
            found = list(threads.map(self._turn, requests))
        errors = [turn for turn in found if isinstance(turn, ApiError)]
        self._served |= len(errors) < len(found)
        if found and len(errors) == len(found) and self._is_useless(errors):
            raise UserError(f"the engine wrote nothing at all: {errors[0]}")
        return [_no_turn(str(turn)) if isinstance(turn, ApiError) else turn for turn in found]

    def _is_useless(self, errors: Sequence[ApiError]) -> bool:
        """Whether an engine is, of which no request of a round got a turn."""
        if all(error.gone for error in errors):
            return True
        return not self._served and not (len(errors) == 1 and errors[0].odd)

    def observe(self, observations: Sequence[tuple[Branch, Told]]) -> list[Heard | None]:
        """Puts user turns after the branches' last ones; None where the text cannot be said or has no room."""
        found = []
        for branch, told in observations:
            heard = self._policy.tokens.heard(told)
            if heard is not None and branch in self._endless and self._policy.tokens.named:
                end = self._policy.tokens.end_of_turn
                heard = Heard(np.insert(heard.tokens, 0, end), np.insert(heard.spoken, 0, False))
            if heard is not None and self._room(branch) <= len(heard.tokens):
                heard = None
            if heard is not None:
                self._lengths[branch] += len(heard.tokens)
                self._spelt[branch] += len(heard.tokens)
                self._messages[branch] += chat_messages([Turn("user", told.text)], told.images)
                self._pictured |= {branch} if told.images else set()
            found.append(heard)
        return found

    def finish(self, branches: Sequence[Branch]) -> None:
        for branch in branches:
            del self._messages[branch], self._lengths[branch], self._spelt[branch]
        if not self._messages:
            self._api.close()

    def conversation(self, branch: Branch) -> tuple[Sequence[dict[str, Any]], int]:
        """What a branch's next request carries, and how many tokens that has here."""
        return self._messages[branch], len(self.prefixes[branch[0]].tokens) + self._spelt[branch]

    def _room(self, branch: Branch) -> float:
        return math.inf if self._policy.room is None else self._policy.room - self._lengths[branch]

    def _turn(self, request: WriteRequest) -> SampledTurn | ApiError:
        opening = request.opening if self._policy.settings.extended else ""
        opened, room = self._policy.tokens.encode(opening), self._room(request.branch)
        most = int(min(request.budget, room - len(opened)))
        if most < 1:
            return _no_turn("the episode has no room for another turn", no_room=True)
        try:
            body = self._body(request.branch, opening, most)
            said = self._api.ask("/chat/completions", body, lambda text: read_said(text, most))
        except ApiError as error:
            # The engine's own limit is the end of this episode, as a budget of ours would be.
            return _no_turn(str(error), no_room=True) if error.verdict.rule == TOO_LONG else error
        turn = self._sampled(opening, opened, said)
        if turn.error:
            return turn
        if self._counts_otherwise(request.branch, len(opened), said):
            turn = replace(turn, scored=False)
        if len(opened) + len(turn.tokens) > room:  # words whose tokens it does not tell may be more of ours
            return _no_turn("the episode has no room for the turn that the engine wrote", no_room=True)
        self._lengths[request.branch] += len(opened) + len(turn.tokens)
        ended = len(turn.tokens) and turn.tokens[-1] == self._policy.tokens.end_of_turn
        self._spelt[request.branch] += len(self._policy.tokens.encode(turn.text)) + bool(ended)
        self._messages[request.branch].append({"role": "assistant", "content": turn.text})
        self._endless.discard(request.branch)
        if said.finished and (not len(turn.tokens) or turn.tokens[-1] != self._policy.tokens.end_of_turn):
            self._endless.add(request.branch)
        return turn

    def _counts_otherwise(self, branch: Branch, opened: int, said: Said) -> bool:
        """Whether the engine makes other tokens of a conversation with pictures; said once, and never trained on."""
        known = self.conversation(branch)[1] + opened
        if branch not in self._pictured or not self._policy.tokens.named or said.prompt in (None, known):
            return False
        if not self._warned:
            self._warned = True
            print(
                f"the engine made {said.prompt} tokens of a conversation with pictures that has {known} here; such "
                "episodes count and are not trained on. Give it the model's own image processor settings (min_pixels, "
                "max_pixels)",
                flush=True,
            )
        return True

    def _body(self, branch: Branch, opening: str, most: int) -> dict[str, Any]:
        settings, messages = self._policy.settings, self._messages[branch]
        body: dict[str, Any] = {
            "model": settings.model,
            "messages": messages + ([{"role": "assistant", "content": opening}] if opening else []),
            "max_tokens": most,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "logprobs": True,
            "seed": self._draw_seed(branch, len(messages)),
        }
        if settings.extended and self._policy.tokens.named:
            body["return_tokens_as_token_ids"] = True  # vLLM's; SGLang ignores it
        if opening:
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        return body

    def _draw_seed(self, branch: Branch, place: int) -> int:
        words = f"{self._seed}/{self._prompts[branch[0]].draw_id}/{branch[1]}/{place}"
        return int.from_bytes(hashlib.sha256(words.encode()).digest()[:4], "big") >> 1

    def _sampled(self, opening: str, opened: list[int], said: Said) -> SampledTurn:
        """The turn in the engine's own tokens where they can be told, else in ours and without log-probs."""
        tokens = self._policy.tokens
        known = _token_ids(said.tokens, tokens)
        ended = bool(known) and known[-1] == tokens.end_of_turn
        text, starts = tokens.text_of([*opened, *(known[:-1] if ended else known)])
        told = bool(known) and text == opening + said.text
        if not told:
            known, ended = tokens.encode(said.text), False
            if not all(map(tokens.may_say, known)):
                return _no_turn("the engine's words spell a token that only a template or a picture may have")
            text, starts = tokens.text_of([*opened, *known])
        starts = starts[len(opened) :]
        logprobs = [token.logprob for token in said.tokens] if told else [0.0] * len(known)
        return SampledTurn(
            opening=np.array(opened, np.int32),
            tokens=np.array(known, np.int32),
            logprobs=np.array(logprobs, np.float32),
            text=text,
            starts=np.append(starts, len(text)).astype(np.int32) if ended else starts,
            finished=said.finished,
            scored=told and tokens.named and _agrees(said, ended),
        )


def _token_ids(said: Sequence[SaidToken], tokens: Tokens) -> list[int]:
    """The ids that an engine names or whose words are one token's alone; [] when one of them is not known."""
    found = []
    for place, one in enumerate(said):
        named = _TOKEN_ID.fullmatch(one.name)
        if named and not tokens.named:
            return []
        token = int(named[1]) if named else tokens.token_of(one.piece)
        last = place == len(said) - 1 and token == tokens.end_of_turn
        if token is None or not (last or tokens.may_say(token)):
            return []
        found.append(token)
    return found


def _agrees(said: Said, ended: bool) -> bool:
    """Whether an engine told as many tokens as it counted; some do not tell the end of a turn, some do not count it."""
    if said.counted is None:
        return True
    untold = said.counted - len(said.tokens)
    return untold == 0 or (said.finished and untold == (-1 if ended else 1))


def _no_turn(error: str, *, no_room: bool = False) -> SampledTurn:
    empty = np.zeros(0, np.int32)
    return SampledTurn(empty, empty, np.zeros(0, np.float32), "", empty, finished=False, error=error, no_room=no_room)


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
