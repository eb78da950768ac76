"""Failed observations that are made up, for records whose tools or files are not here.

They are what the authors' release has throughout. They say what a tool of that kind commonly says, are marked
`synthetic`, and are written to files of their own, because a policy that has only met them has not met a tool.
"""

from __future__ import annotations

import random

from regrpo_jax.engine.cases import Failure, NearMiss, Situation
from regrpo_jax.engine.execute import Refused
from regrpo_jax.records.actions import FINAL_ANSWER, extract_tool_calls, primary_tool
from regrpo_jax.records.syntax import evaluated_literal
from regrpo_jax.records.types import ErrorType, Observation, Status

_TEXTS: dict[ErrorType, tuple[tuple[Status, str], ...]] = {
    ErrorType.GROUNDING_DRIFT: (
        (Status.EMPTY, "No objects found by {tool} for {value}."),
        (Status.EMPTY, "No text was found by {tool} at {value}."),
    ),
    ErrorType.TOOL_MISMATCH: (
        (Status.TOOL_ERROR, "Error: {tool} cannot work on {value}."),
        (Status.EMPTY, "No results found by {tool} for {value}."),
    ),
    ErrorType.ARG_INVALID: (
        (Status.TOOL_ERROR, "Error: {tool} got the invalid argument {value}."),
        (Status.TOOL_ERROR, "Error: {tool}: there is no {value}."),
    ),
    ErrorType.INFO_INSUFFICIENT: (
        (Status.TOOL_ERROR, "Error: {tool} found several things that fit {value}."),
        (Status.EMPTY, "No results found by {tool} for {value}: too little was given."),
    ),
}


def made_up_failure(situation: Situation, miss: NearMiss, rng: random.Random) -> Failure:
    """The failure with a made-up observation, and the recorded observations of the clean steps.

    Refused: a clean step has no recorded observation, or nothing can be said of such a near miss.
    """
    failed = _observation(situation, miss, rng)
    recorded = [Observation(Status.OK, text) for text in situation.observations]
    if len(recorded) < len(situation.steps) - 1:
        raise Refused("no_observation: a clean step of the trajectory has no recorded observation")
    recorded += [Observation(Status.OK, "")] * (len(situation.steps) - len(recorded))
    recorded.insert(situation.index, failed)
    return Failure(situation, miss, tuple(recorded), answered=False, kind="synthetic")


def _observation(situation: Situation, miss: NearMiss, rng: random.Random) -> Observation:
    calls = extract_tool_calls(miss.code, frozenset(situation.tools) | {FINAL_ANSWER})
    tool = primary_tool(calls)
    if miss.error_type not in _TEXTS or tool is None:
        raise Refused(f"not_made_up: no observation can be made up for a {miss.error_type} of this action")
    call = next(call for call in calls if call.name == tool)
    values = [*call.arguments, *(value for _, value in call.keywords)]
    status, text = rng.choice(_TEXTS[miss.error_type])
    return Observation(status, text.format(tool=tool, value=_shown(values)))


def _shown(values: list[str]) -> str:
    """The arguments as a tool's message would quote them."""
    shown = []
    for value in values:
        try:
            shown.append(repr(evaluated_literal(value)))
        except (ValueError, SyntaxError):
            shown.append(value)
    return ", ".join(shown) or "no arguments"
