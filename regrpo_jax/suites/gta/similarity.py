"""How alike two texts are: what GTA needs for its subjective answers and for the arguments of calls that make images.

GTA's evaluator takes the cosine of all-mpnet-base-v2's embeddings, nothing below 0. That model is not part of this
package; without a folder of it two texts are alike when they are the same text, and every number says so.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Protocol

from regrpo_jax.errors import UserError

EXTRA = "sentence-transformers"


class Similarity(Protocol):
    """label: what a number that was made with it says."""

    @property
    def label(self) -> str: ...

    def __call__(self, one: str, other: str) -> float:
        """From 0 to 1."""


class SameText:
    """1 for the same text, else 0."""

    label = "similarity: the same text"

    def __call__(self, one: str, other: str) -> float:
        return float(one == other)


class SentenceEncoder:
    """The cosine of two embeddings, nothing below 0.

    folder: of a model that `sentence_transformers` reads, as all-mpnet-base-v2 is given out.
    UserError when there is no such folder, the library is missing, or it cannot read the folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise UserError(f"the sentence encoder {folder} is no folder; name the one of all-mpnet-base-v2")
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise UserError(
                f"the sentence encoder {folder} needs a library: pip install {EXTRA} "
                "(without an encoder two texts are alike when they are the same)"
            ) from error
        try:
            self._model = SentenceTransformer(str(folder), device="cpu")
        except Exception as error:  # whatever that library raises for files that are none of its own
            raise UserError(f"{folder}: {EXTRA} cannot read it ({type(error).__name__}: {error})") from error
        self.label = f"similarity: cosine of {folder.resolve().name}"

    def __call__(self, one: str, other: str) -> float:
        first, second = self._embedded(one), self._embedded(other)
        length = sum(value * value for value in first) ** 0.5 * sum(value * value for value in second) ** 0.5
        if not length:
            return 0.0
        return max(0.0, sum(a * b for a, b in zip(first, second, strict=True)) / length)

    @functools.cache  # noqa: B019  the same few references are asked for again and again; it lives as long as a scoring
    def _embedded(self, text: str) -> tuple[float, ...]:
        return tuple(float(value) for value in self._model.encode(text))


def similarity_of(folder: Path | None) -> Similarity:
    """The encoder of a folder, or the same text without one. UserError as `SentenceEncoder`."""
    return SameText() if folder is None else SentenceEncoder(folder)
