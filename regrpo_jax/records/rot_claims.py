"""What a Reflection-of-Thought record claims, checked against its own conversation.

The reflection turn is found, and then evidence, actions, observation and error type must be the ones that the
conversation really has, and the actions must be what the error type says they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from regrpo_jax.records.actions import (
    FINAL_ANSWER,
    actions_equivalent,
    code_of,
    extract_tool_calls,
    primary_tool,
)
from regrpo_jax.records.execution import quotable
from regrpo_jax.records.observation_text import strip_observation
from regrpo_jax.records.reasons import printable
from regrpo_jax.records.reflection import cites_observation, parse_reflection, split_reflection
from regrpo_jax.records.types import ErrorType, Turn

_REFLECTION_OPENS = "Reflection:"


def _text(values: object, key: str) -> str:
    value = values.get(key) if isinstance(values, dict) else None
    return value if isinstance(value, str) else ""


def locate_reflection(conversation: tuple[Turn, ...], meta: Mapping[str, object]) -> int | None:
    """Index of the reflection turn: the one that carries rot_meta's reflection, else the first of any."""
    opening = [
        index
        for index, turn in enumerate(conversation)
        if turn.role == "assistant" and turn.content.startswith(_REFLECTION_OPENS)
    ]
    matching = [index for index in opening if not any(_reflection_turn_reasons(conversation[index], meta))]
    return next(iter((*matching, *opening)), None)


def _reflection_turn_reasons(turn: Turn, meta: Mapping[str, object]) -> Iterator[str]:
    block, action = split_reflection(turn.content)
    written = parse_reflection(block)
    if written is None:
        yield "reflection_turn: its block is not a known ErrorType, an Evidence and a FixPlan, in this order"
        return
    told = meta["reflection"]
    if (written.evidence, written.fix_plan) != (
        _text(told, "evidence").strip(),
        _text(told, "fix_plan").strip(),
    ):
        yield "reflection_turn: its evidence or fix plan is not that of `rot_meta.reflection`"
    if action.strip() != _text(meta, "corrected_action").strip():
        yield "reflection_turn: its action is not `rot_meta.corrected_action`"


def _bare_failure(text: str) -> str:
    return strip_observation(text).removeprefix("Error:").strip()


def _failed_turn_reasons(
    conversation: tuple[Turn, ...], reflection_turn: int, meta: Mapping[str, object]
) -> Iterator[str]:
    if reflection_turn < 4:
        yield "failed_turn: no failed action and observation come before the reflection turn"
        return
    if conversation[reflection_turn - 2].content.strip() != _text(meta, "failed_action").strip():
        yield f"failed_turn: turn {reflection_turn - 2} is not `rot_meta.failed_action`"
    if _bare_failure(conversation[reflection_turn - 1].content) != _bare_failure(_text(meta, "failed_observation")):
        yield f"failed_turn: turn {reflection_turn - 1} is not `rot_meta.failed_observation`"


def unknown_type_reasons(meta: Mapping[str, object]) -> Iterator[str]:
    """A reason for every error type named that is none."""
    names = {_text(meta, "error_type"), _text(meta["reflection"], "error_type")}
    for name in sorted(names - set(ErrorType)):
        yield f"error_type: {printable(name)!r} is none of {', '.join(ErrorType)}"


def _disagreeing_type_reasons(meta: Mapping[str, object], turn: Turn | None) -> Iterator[str]:
    names = {_text(meta, "error_type"), _text(meta["reflection"], "error_type")}
    written = None if turn is None else parse_reflection(turn.content)
    if len(names if written is None else names | {written.error_type.value}) > 1:
        yield "error_types_agree: `rot_meta`, its reflection and the turn name different error types"


def _action_reasons(meta: Mapping[str, object], tools: frozenset[str]) -> Iterator[str]:
    failed, corrected = _text(meta, "failed_action"), _text(meta, "corrected_action")
    if actions_equivalent(failed, corrected, tools=tools):
        yield "failed_is_corrected: the failed action does the same as the corrected one"
        return
    calls = extract_tool_calls(code_of(failed), tools)
    if meta["error_type"] == ErrorType.TOOL_MISMATCH:
        failed_tool = primary_tool(calls)
        if failed_tool is None or failed_tool == primary_tool(extract_tool_calls(code_of(corrected), tools)):
            yield "tool_mismatch: a ToolMismatch must call another tool than its correction"
    if meta["error_type"] == ErrorType.NON_COMMIT and any(call.name == FINAL_ANSWER for call in calls):
        yield "non_commit: a NonCommit's failed action must not call final_answer"


def _leaks(conversation: tuple[Turn, ...], reflection_turn: int, corrected_action: str) -> bool:
    needle = corrected_action.strip()
    return any(needle in turn.content for turn in conversation[:reflection_turn])


def claim_reasons(
    conversation: tuple[Turn, ...], meta: Mapping[str, object], tools: frozenset[str], execution: object = None
) -> Iterator[str]:
    """Every claim of `rot_meta` that its conversation does not bear out; `tools` are the names of tools."""
    attempts = sum(turn.role == "assistant" for turn in conversation)
    step_index = meta["step_index"]
    if not isinstance(step_index, int) or not 0 <= step_index < attempts:
        yield f"step_index: {printable(step_index)} is no step of a conversation with {attempts} steps"
    observed = quotable(_text(meta, "failed_observation"), execution)
    if not cites_observation(_text(meta["reflection"], "evidence"), observed):
        yield "evidence_grounded: the evidence shares no wording with the failed observation"
    yield from _action_reasons(meta, tools)
    reflection_turn = locate_reflection(conversation, meta)
    if reflection_turn is None:
        yield 'reflection_missing: no assistant turn opens with "Reflection:"'
        yield from _disagreeing_type_reasons(meta, None)
        return
    yield from _disagreeing_type_reasons(meta, conversation[reflection_turn])
    yield from _reflection_turn_reasons(conversation[reflection_turn], meta)
    if not conversation[reflection_turn].trained:
        yield f"turn_keys: turn {reflection_turn} reflects and is said not to be trained, but nothing else would be"
    yield from _failed_turn_reasons(conversation, reflection_turn, meta)
    if _leaks(conversation, reflection_turn, _text(meta, "corrected_action")):
        yield "label_leak: the corrected action is already in the conversation before the reflection turn"
