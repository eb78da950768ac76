"""The calls of tools that a trajectory of others made, and what each returned, read off its code and observations.

A call is recorded where all its arguments are known (`followed_code.py`), and its result stands in the observation in
one way only (`printed.py`). Nothing is guessed, and nothing of the code is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regrpo_jax.engine.followed_code import Follower, MetCall
from regrpo_jax.engine.printed import Result, Text, Unknown, holds_results, solved, text_of
from regrpo_jax.records.actions import parse_python
from regrpo_jax.records.syntax import evaluated_literal
from regrpo_jax.records.types import Step
from regrpo_jax.toolbox.recorded import Recording


@dataclass(frozen=True)
class RecordedCalls:
    """recordings: in the order of the calls. unknown: tools with a call whose arguments or result nobody can tell."""

    recordings: tuple[Recording, ...]
    unknown: frozenset[str]


def recorded_calls(
    steps: Sequence[Step], answer: str, arguments: Mapping[str, Sequence[str]], texts: frozenset[str]
) -> RecordedCalls:
    """What the steps' calls returned.

    Args:
      answer: of the trajectory, which is what its `final_answer` was given.
      arguments: the names of the arguments of each tool, in order; calls of others are none of a tool.
      texts: tools whose results are texts, whatever they look like.
    """
    follower = Follower(arguments)
    for step in steps:
        _read(follower, step, answer, texts)
    found = [(call, _recording(follower, call)) for call in follower.calls]
    unknown = {call.tool for call, recording in found if recording is None}
    return RecordedCalls(
        tuple(recording for _, recording in found if recording is not None), frozenset(unknown | follower.unfollowed)
    )


def _read(follower: Follower, step: Step, answer: str, texts: frozenset[str]) -> None:
    """Follow one step, then find the results that its observation tells."""
    tree = parse_python(step.code)
    last = follower.follow(tree) if tree is not None else None
    told = {} if step.observation is None else solved(follower.printed, _last(last), step.observation.text)
    for given in follower.answered:
        if isinstance(given, Result) and answer.strip():
            told.setdefault(given.call, answer)
    for number, words in told.items():
        call = follower.calls[number]
        if isinstance(call.result, Unknown):
            call.result = words if call.tool in texts else _value_of(words)
    follower.names = {name: follower.filled(value) for name, value in follower.names.items()}


def _last(value: Any) -> Text | None:
    """What frameworks tell of a last expression: nothing of None."""
    return None if value is None else text_of(value)


def _value_of(words: str) -> Any:
    """A result as its tool gave it, of the words that were printed."""
    try:
        return evaluated_literal(words.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return words


def _recording(follower: Follower, call: MetCall) -> Recording | None:
    """The recording of a call; None where something of it is not known, or it returned None."""
    arguments = {name: follower.filled(value) for name, value in call.arguments.items()}
    if call.result is None or any(map(holds_results, (*arguments.values(), call.result))):
        return None
    return Recording(call.tool, arguments, call.result)
