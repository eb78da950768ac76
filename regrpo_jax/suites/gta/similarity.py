"""How alike two texts are: what GTA needs for its subjective answers and for the arguments of calls that make images.

GTA's evaluator takes the cosine of all-mpnet-base-v2's embeddings, nothing below 0. That model is not part of this
package; without a folder of it two texts are alike when they are the same text, and every number says so.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from regrpo_jax.errors import UserError

ENCODER = "all-mpnet-base-v2"  # the one of GTA's evaluator
LIBRARY, EXTRA = "sentence_transformers", "regrpo_jax[similarity]"


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
            raise UserError(f"the sentence encoder {folder} is no folder; name the one of {ENCODER}")
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise UserError(
                f"the sentence encoder {folder} needs a library ({error}): pip install '{EXTRA}' "
                "(without an encoder two texts are alike when they are the same)"
            ) from error
        try:
            self._model = SentenceTransformer(str(folder), device="cpu")
        except Exception as error:  # whatever that library raises for files that are none of its own
            raise UserError(f"{folder}: {LIBRARY} cannot read it ({type(error).__name__}: {error})") from error
        self._known: dict[str, tuple[float, ...]] = {}
        self.label = f"similarity: cosine of {folder.resolve().name}"

    def __call__(self, one: str, other: str) -> float:
        first, second = self._embedded(one), self._embedded(other)
        length = sum(value * value for value in first) ** 0.5 * sum(value * value for value in second) ** 0.5
        if not length:
            return 0.0
        return max(0.0, sum(a * b for a, b in zip(first, second, strict=True)) / length)

    def _embedded(self, text: str) -> tuple[float, ...]:
        """Each text once: the references come again and again."""
        if text not in self._known:
            self._known[text] = tuple(float(value) for value in self._model.encode(text))
        return self._known[text]


def similarity_of(folder: Path | None) -> Similarity:
    """The encoder of a folder, or the same text without one. UserError as `SentenceEncoder`."""
    return SameText() if folder is None else SentenceEncoder(folder)
