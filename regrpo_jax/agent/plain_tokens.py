"""Tokens of a model that is not here: as its server tells them, in pieces of text where it tells none.

Enough to play and to measure; nothing can be trained on them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence

import numpy as np

from regrpo_jax.agent.policy import EpisodePrompt, Heard, Prefix, Told

# About as long as tokens are: at most four letters with the space before them.
_PIECE = re.compile(r"\s?[^\W_]{1,4}|\s?[\W_]|\s", re.DOTALL)


class PlainTokens:
    """See `remote_policy.Tokens`. Each piece that is met gets the next number."""

    named = False
    end_of_turn = -1

    def __init__(self) -> None:
        self._numbers: dict[bytes, int] = {}
        self._pieces: list[bytes] = []
        self._lock = threading.Lock()  # conversations are written by many threads

    def prefix(self, prompt: EpisodePrompt) -> Prefix:
        tokens = [token for turn in prompt.turns for token in self.encode(f"{turn.role}\n{turn.content}\n")]
        positions = np.repeat(np.arange(len(tokens), dtype=np.int32)[:, None], 3, axis=1)
        return Prefix(np.array(tokens, np.int32), positions, None)

    def heard(self, told: Told) -> Heard | None:
        tokens = self.encode(told.text)
        return Heard(np.array(tokens, np.int32), np.ones(len(tokens), bool))

    def encode(self, text: str) -> list[int]:
        return [self.token_of(piece.encode()) for piece in _PIECE.findall(text)]

    def token_of(self, piece: bytes) -> int:
        with self._lock:
            if piece not in self._numbers:
                self._numbers[piece] = len(self._pieces)
                self._pieces.append(piece)
            return self._numbers[piece]

    def may_say(self, token: int) -> bool:
        return True

    def text_of(self, tokens: Sequence[int]) -> tuple[str, np.ndarray]:
        """A token that is a part of a character begins where the character does."""
        said, starts = b"", []
        for token in tokens:
            starts.append(len(said.decode("utf-8", "ignore")))
            said += self._pieces[token]
        return said.decode("utf-8", "replace"), np.array(starts, np.int32)
