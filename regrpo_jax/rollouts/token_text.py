"""Sampled tokens as text, and where in it each of them begins."""

from collections.abc import Sequence

import numpy as np
from transformers import PreTrainedTokenizerBase


class TokenText:
    """Decodes for one tokenizer; what a token says alone is looked up once."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._alone: dict[int, str] = {}

    def text_of(self, tokens: Sequence[int]) -> tuple[str, np.ndarray]:
        """The text of tokens, and where in it each begins; a part of a character begins where the character does.

        Returns:
          text; int32.  # [token]
        """
        pieces = [self._piece(token) for token in tokens]
        text = "".join(pieces)
        if "\ufffd" not in text and text == self._decode(tokens):
            ends = np.cumsum([0, *map(len, pieces)])
            return text, ends[:-1].astype(np.int32)
        # Parts of a character do not decode alone, nor do tokens whose space depends on their place.
        text = self._decode(tokens)
        starts = [_common(self._decode(tokens[:count]), text) for count in range(len(tokens))]
        return text, np.maximum.accumulate(np.array(starts, np.int32)) if starts else np.zeros(0, np.int32)

    def _piece(self, token: int) -> str:
        if token not in self._alone:
            self._alone[token] = self._decode([token])
        return self._alone[token]

    def _decode(self, tokens: Sequence[int]) -> str:
        return str(self._tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _common(start: str, text: str) -> int:
    """How far the text of the first tokens is also that of all: not into a character that is not whole yet."""
    while not text.startswith(start):
        start = start[:-1]
    return len(start)
