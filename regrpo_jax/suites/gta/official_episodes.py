"""GTA's figures end to end, as its evaluator adds them up (mode `every` of `gta_bench.py`, open-compass/GTA).

AnsAcc: the last turn's answer, over records with an answer. With images: also records that ask for one, where every
recorded call of a tool that makes images needs one of the same tool, and counts how alike its arguments are to those of
the *last* such call; over all records. Tool F1 by kind: a recorded call is hit if its tool was called anywhere in the
episode, however often.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from regrpo_jax.suites.gta.file_paths import relative_arguments
from regrpo_jax.suites.gta.official_answers import answer_score
from regrpo_jax.suites.gta.predicted import Kind, PredictedTurn, Prediction
from regrpo_jax.suites.gta.record_types import GtaRecord
from regrpo_jax.suites.gta.similarity import Similarity

KINDS = {
    "P": ("OCR", "ImageDescription", "RegionAttributeDescription", "TextToBbox"),
    "O": ("DrawBox", "AddText", "GoogleSearch"),
    "L": ("Calculator", "Solver", "Plot", "MathOCR", "CountGivenObject"),
    "C": ("TextToImage", "ImageStylization"),
}
"""Perception, operation, logic, creativity: the evaluator's own lists, in which counting is logic."""
MAKES_IMAGES = ("DrawBox", "AddText", "Plot", "TextToImage", "ImageStylization")
_TINY = 1e-5  # what the evaluator adds to the denominators of precision and F1


@dataclass(frozen=True)
class EpisodeVerdict:
    """What an episode counts.

    answer: of a record with an answer, 0 for others. image: of a record that asks for an image, 0 for others. recorded,
    predicted, hits: calls by kind. calls, errors: predicted. other_calls: recorded calls of no kind. overwritten: an
    image record that lost because an earlier call of the same tool was the like one.
    """

    record: GtaRecord
    answer: float
    image: float
    recorded: Counter[str]
    predicted: Counter[str]
    hits: Counter[str]
    calls: int
    errors: int
    other_calls: int
    overwritten: bool
    empty: bool


@dataclass(frozen=True)
class ToolF1:
    """F1 of the tools of a kind, from 0 to 1. recorded, predicted, hits: calls."""

    kind: str
    recorded: int
    predicted: int
    hits: int

    @property
    def value(self) -> float:
        """0 where no such call is recorded, where the evaluator divides by zero."""
        if not self.recorded:
            return 0.0
        precision, recall = self.hits / (self.predicted + _TINY), self.hits / self.recorded
        return 2 * precision * recall / (precision + recall + _TINY)


def episode_verdict(prediction: Prediction, similarity: Similarity) -> EpisodeVerdict:
    """What an episode counts."""
    record, answer = prediction.record, prediction.record.answer
    text = prediction.last.text if prediction.last.kind == Kind.ANSWER else ""
    calls = [turn for turn in prediction.turns if turn.kind == Kind.CALL]
    recorded = [turn for turn in prediction.gold if turn.kind == Kind.CALL]
    names = {turn.name for turn in calls}
    image = _image(calls, recorded, record, similarity) if answer.image else 0.0
    return EpisodeVerdict(
        record,
        answer=answer_score(text, answer, similarity) if text else 0.0,
        image=image,
        recorded=_by_kind(recorded),
        predicted=_by_kind(calls),
        hits=_by_kind([turn for turn in recorded if turn.name in names]),
        calls=len(calls),
        errors=sum(turn.error for turn in calls),
        other_calls=sum(kind_of(turn.name) == "" for turn in recorded),
        overwritten=answer.image and image < 1 and _all_there(calls, recorded, record),
        empty=not prediction.turns,
    )


def tool_f1(verdicts: Sequence[EpisodeVerdict], kind: str) -> ToolF1:
    """F1 over all episodes."""
    counts = [sum(getattr(verdict, name)[kind] for verdict in verdicts) for name in ("recorded", "predicted", "hits")]
    return ToolF1(kind, *counts)


def kind_of(name: str) -> str:
    """The letter of a tool's kind; "" for a tool that is not GTA's."""
    return next((kind for kind, names in KINDS.items() if name in names), "")


def _by_kind(calls: Sequence[PredictedTurn]) -> Counter[str]:
    return Counter(kind for turn in calls if (kind := kind_of(turn.name)))


def _image(
    calls: Sequence[PredictedTurn], recorded: Sequence[PredictedTurn], record: GtaRecord, similarity: Similarity
) -> float:
    """1 where no image is recorded; an episode's later calls of a tool take the place of earlier ones."""
    made = {turn.name: turn for turn in calls if not turn.error and turn.name in MAKES_IMAGES}
    score = 1.0
    for turn in recorded:
        if turn.name in MAKES_IMAGES:
            if turn.name not in made:
                return 0.0
            score *= similarity(_text(turn, record), _text(made[turn.name], record))
    return score


def _all_there(calls: Sequence[PredictedTurn], recorded: Sequence[PredictedTurn], record: GtaRecord) -> bool:
    """Whether every recorded call that makes an image was made with these arguments, at some time."""
    made = {(turn.name, _text(turn, record)) for turn in calls if not turn.error}
    return all((turn.name, _text(turn, record)) in made for turn in recorded if turn.name in MAKES_IMAGES)


def _text(turn: PredictedTurn, record: GtaRecord) -> str:
    arguments: Any = relative_arguments(turn.arguments, record)
    return json.dumps(arguments)
