"""What a file of predictions says of one record: turns as GTA's evaluator tells them apart.

A turn with `tool_calls` is a call, whatever else it has; another one of the assistant is an answer; the rest is what a
tool gave back (`opencompass/datasets/gta_bench.py` of open-compass/GTA, `get_response_type`). There a turn of another
shape ends the program; here it is of no kind, and counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from regrpo_jax.suites.gta.record_types import GtaRecord


class Kind(StrEnum):
    """What a turn is."""

    CALL = "tool"
    ANSWER = "answer"
    RESULT = "tool_return"
    NONE = "none"  # a turn of another shape


@dataclass(frozen=True)
class PredictedTurn:
    """A turn of a prediction, or of the gold dialog beside it.

    name, arguments: of a call, the first one of the turn; arguments are whatever the file has. content: of an answer,
    whatever the file has. error: whether the turn has that key.
    """

    kind: Kind
    name: str = ""
    arguments: Any = None
    content: Any = None
    error: bool = False

    @property
    def text(self) -> str:
        """The answer as text; "" for what is none."""
        return self.content if isinstance(self.content, str) else ""


@dataclass(frozen=True)
class Prediction:
    """What was predicted for a record.

    turns: in step mode one for each recorded turn of the assistant, else the whole episode. gold: the recorded turns
    that the file sets beside them.
    """

    record: GtaRecord
    turns: tuple[PredictedTurn, ...]
    gold: tuple[PredictedTurn, ...]

    @property
    def last(self) -> PredictedTurn:
        """The last turn; of no kind in an episode without any."""
        return self.turns[-1] if self.turns else PredictedTurn(Kind.NONE)


def turn_of(told: Any) -> PredictedTurn:
    """A turn from its JSON."""
    if not isinstance(told, Mapping):
        return PredictedTurn(Kind.NONE)
    error = "error" in told
    if "tool_calls" in told:
        function = _function(told["tool_calls"])
        if function is None:
            return PredictedTurn(Kind.NONE, error=error)
        return PredictedTurn(Kind.CALL, function["name"], function.get("arguments"), told.get("content"), error)
    if told.get("role") == "assistant":
        return PredictedTurn(Kind.ANSWER, content=told.get("content"), error=error)
    return PredictedTurn(Kind.RESULT if "role" in told else Kind.NONE, content=told.get("content"), error=error)


def recorded(record: GtaRecord, *, steps: bool) -> tuple[PredictedTurn, ...]:
    """The record's own turns, as a file of predictions would set them beside: the assistant's, or all but the user's.

    Of a dialog with several turns of the user an episode is what follows the first one.
    """
    if steps:
        return tuple(turn_of(turn.told) for turn in record.assistant_turns)
    following = []
    for turn in record.dialog[1:]:
        if turn.role == "user":
            break
        following.append(turn_of(turn.told))
    return tuple(following)


def _function(calls: Any) -> Mapping[str, Any] | None:
    first = calls[0] if isinstance(calls, list) and calls else None
    function = first.get("function") if isinstance(first, Mapping) else None
    return function if isinstance(function, Mapping) and isinstance(function.get("name"), str) else None
