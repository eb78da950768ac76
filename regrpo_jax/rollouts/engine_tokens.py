"""The tokens of a served model, from the same reader that training uses."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from regrpo_jax.agent.policy import EpisodePrompt, Heard, PolicyError, Prefix, Told
from regrpo_jax.data.chat import ChatError
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.rollouts.token_text import TokenText


@dataclasses.dataclass(frozen=True)
class EngineTokens:
    """See `agent.remote_policy.Tokens`."""

    reader: ConversationReader
    named: bool = dataclasses.field(default=True, init=False)

    @functools.cached_property
    def end_of_turn(self) -> int:
        return self.reader.renderer.end_of_turn_id

    def prefix(self, prompt: EpisodePrompt) -> Prefix:
        try:
            return Prefix(*self.reader.read_prompt(prompt.turns, prompt.images))
        except ChatError as error:
            raise PolicyError(str(error)) from error

    def heard(self, told: Told) -> Heard | None:
        try:
            return self.reader.read_told(told)[0]
        except ChatError:
            return None

    def encode(self, text: str) -> list[int]:
        ids = self.reader.renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
        return [int(token) for token in ids]

    def token_of(self, piece: bytes) -> int | None:
        return self._vocabulary.get(piece)

    def may_say(self, token: int) -> bool:
        return token not in self._never_said and 0 <= token < len(self.reader.renderer.tokenizer)

    def text_of(self, tokens: Sequence[int]) -> tuple[str, np.ndarray]:
        return self._text.text_of(tokens)

    @functools.cached_property
    def _text(self) -> TokenText:
        return TokenText(self.reader.renderer.tokenizer)

    @functools.cached_property
    def _never_said(self) -> frozenset[int]:
        return frozenset(self.reader.renderer.control_tokens.values())

    @functools.cached_property
    def _vocabulary(self) -> dict[bytes, int]:
        """What one token alone says -> that token; parts of characters, which look alike, are left out."""
        found: dict[bytes, list[int]] = {}
        for token in range(len(self.reader.renderer.tokenizer)):
            text = self._text.text_of([token])[0]
            if text and "\ufffd" not in text:
                found.setdefault(text.encode(), []).append(token)
        return {piece: tokens[0] for piece, tokens in found.items() if len(tokens) == 1}
