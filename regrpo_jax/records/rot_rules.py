"""The rules a Reflection-of-Thought record must keep, each with a name to audit a corpus by.

A record that breaks one would teach the wrong thing in silence: a reflection about another observation, a
target that the prompt already contains, a "failure" that is the right action in other quotes. The rules run
in three rounds (keys and types, then the conversation, then what the record claims); a round is run only when
the one before found nothing.
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
from regrpo_jax.records.conversation import normalise_turns, strip_observation
from regrpo_jax.records.images import image_reasons
from regrpo_jax.records.reasons import RecordError, kind_of, printable
from regrpo_jax.records.reflection import cites_observation, parse_reflection, split_reflection
from regrpo_jax.records.types import ErrorType, Turn

RECORD_KEYS = ("id", "image", "answer", "conversations", "rot_meta")
META_KEYS = (
    "src_id",
    "step_index",
    "error_type",
    "failed_action",
    "failed_observation",
    "reflection",
    "corrected_action",
    "final_answer",
)
REFLECTION_KEYS = ("error_type", "evidence", "fix_plan")
_TEXT_META_KEYS = ("src_id", "error_type", "failed_action", "failed_observation", "corrected_action")
_FILLED_META_KEYS = ("failed_action", "corrected_action")
_REFLECTION_OPENS = "Reflection:"


def _missing(values: Mapping[str, object], keys: tuple[str, ...], where: str) -> Iterator[str]:
    for key in keys:
        if key not in values:
            yield f"schema_keys: {where} has no key `{key}`"


def _not_text(
    values: Mapping[str, object], keys: tuple[str, ...], where: str, filled: tuple[str, ...]
) -> Iterator[str]:
    for key in keys:
        value = values[key]
        if not isinstance(value, str):
            yield f"schema_types: `{key}` of {where} must be a string, not {kind_of(value)}"
        elif key in filled and not value.strip():
            yield f"schema_types: `{key}` of {where} is empty"


def _not_scalar(values: Mapping[str, object], key: str, where: str) -> Iterator[str]:
    if isinstance(values[key], dict | list):
        yield f"schema_types: `{key}` of {where} must be a string or a number, not {kind_of(values[key])}"


def encoding_reasons(record: object) -> tuple[str, ...]:
    """A reason when a text of the record has half a surrogate pair: no tokeniser and no file can take it."""
    waiting: list[object] = [record]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend((*value.keys(), *value.values()))
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, str) and any("\ud800" <= character <= "\udfff" for character in value):
            return (f"text_encoding: {printable(value)!r} holds a lone surrogate; write the character itself",)
    return ()


def _key_reasons(record: Mapping[str, object]) -> Iterator[str]:
    yield from _missing(record, RECORD_KEYS, "the record")
    meta = record.get(
        "rot_meta", {key: None for key in META_KEYS} | {"reflection": {key: None for key in REFLECTION_KEYS}}
    )
    if not isinstance(meta, dict):
        yield f"schema_types: `rot_meta` must be an object, not {kind_of(meta)}"
        return
    yield from _missing(meta, META_KEYS, "`rot_meta`")
    reflection = meta.get("reflection", {key: None for key in REFLECTION_KEYS})
    if not isinstance(reflection, dict):
        yield f"schema_types: `reflection` of `rot_meta` must be an object, not {kind_of(reflection)}"
        return
    yield from _missing(reflection, REFLECTION_KEYS, "`rot_meta.reflection`")


def _type_reasons(
    record: Mapping[str, object], meta: Mapping[str, object], reflection: Mapping[str, object]
) -> Iterator[str]:
    yield from _not_text(record, ("id",), "the record", filled=("id",))
    yield from _not_scalar(record, "answer", "the record")
    yield from image_reasons(record["image"])
    yield from _not_text(meta, _TEXT_META_KEYS, "`rot_meta`", filled=_FILLED_META_KEYS)
    yield from _not_scalar(meta, "final_answer", "`rot_meta`")
    if type(meta["step_index"]) is not int:
        yield "schema_types: `step_index` of `rot_meta` must be a whole number"
    yield from _not_text(reflection, REFLECTION_KEYS, "`rot_meta.reflection`", filled=("evidence", "fix_plan"))


def _role_order_reasons(conversation: tuple[Turn, ...]) -> Iterator[str]:
    roles = [turn.role for turn in conversation]
    if "assistant" not in roles:
        yield "no_assistant_turn: the conversation has no assistant turn, so there is nothing to learn from"
        return
    expected = ["system", *("user" if index % 2 == 0 else "assistant" for index in range(len(roles) - 1))]
    wrong = [index for index, pair in enumerate(zip(roles, expected, strict=True)) if pair[0] != pair[1]]
    if wrong:
        place = wrong[0]
        yield (
            f"role_order: turn {place} is from {roles[place]} where {expected[place]} is due "
            "(the order is system, user, assistant, user, ...)"
        )


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


def _unknown_type_reasons(meta: Mapping[str, object]) -> Iterator[str]:
    names = {_text(meta, "error_type"), _text(meta["reflection"], "error_type")}
    for name in sorted(names - set(ErrorType)):
        yield f"error_type: {printable(name)!r} is none of {', '.join(ErrorType)}"


def _disagreeing_type_reasons(meta: Mapping[str, object], turn: Turn | None) -> Iterator[str]:
    names = {_text(meta, "error_type"), _text(meta["reflection"], "error_type")}
    written = None if turn is None else parse_reflection(turn.content)
    if len(names if written is None else names | {written.error_type.value}) > 1:
        yield "error_types_agree: `rot_meta`, its reflection and the turn name different error types"


def _action_reasons(meta: Mapping[str, object]) -> Iterator[str]:
    failed, corrected = _text(meta, "failed_action"), _text(meta, "corrected_action")
    if actions_equivalent(failed, corrected):
        yield "failed_is_corrected: the failed action does the same as the corrected one"
        return
    calls = extract_tool_calls(code_of(failed))
    if meta["error_type"] == ErrorType.TOOL_MISMATCH:
        failed_tool = primary_tool(calls)
        if failed_tool is None or failed_tool == primary_tool(extract_tool_calls(code_of(corrected))):
            yield "tool_mismatch: a ToolMismatch must call another tool than its correction"
    if meta["error_type"] == ErrorType.NON_COMMIT and any(call.name == FINAL_ANSWER for call in calls):
        yield "non_commit: a NonCommit's failed action must not call final_answer"


def _leaks(conversation: tuple[Turn, ...], reflection_turn: int, corrected_action: str) -> bool:
    needle = corrected_action.strip()
    return any(needle in turn.content for turn in conversation[:reflection_turn])


def _claim_reasons(conversation: tuple[Turn, ...], meta: Mapping[str, object]) -> Iterator[str]:
    attempts = sum(turn.role == "assistant" for turn in conversation)
    step_index = meta["step_index"]
    if not isinstance(step_index, int) or not 0 <= step_index < attempts:
        yield f"step_index: {printable(step_index)} is no step of a conversation with {attempts} steps"
    if not cites_observation(_text(meta["reflection"], "evidence"), _text(meta, "failed_observation")):
        yield "evidence_grounded: the evidence shares no wording with the failed observation"
    yield from _action_reasons(meta)
    reflection_turn = locate_reflection(conversation, meta)
    if reflection_turn is None:
        yield 'reflection_missing: no assistant turn opens with "Reflection:"'
        yield from _disagreeing_type_reasons(meta, None)
        return
    yield from _disagreeing_type_reasons(meta, conversation[reflection_turn])
    yield from _reflection_turn_reasons(conversation[reflection_turn], meta)
    yield from _failed_turn_reasons(conversation, reflection_turn, meta)
    if _leaks(conversation, reflection_turn, _text(meta, "corrected_action")):
        yield "label_leak: the corrected action is already in the conversation before the reflection turn"


def validate_rot(obj: object) -> tuple[str, ...]:
    """Every rule the raw record `obj` breaks, as "rule_name: sentence"; () for a record fit for training."""
    if not isinstance(obj, dict):
        return (f"schema_types: a record must be an object, not {kind_of(obj)}",)
    reasons = (*_key_reasons(obj), *encoding_reasons(obj))
    if reasons:
        return reasons
    meta = obj["rot_meta"]
    reasons = tuple(_type_reasons(obj, meta, meta["reflection"])) or tuple(_unknown_type_reasons(meta))
    if reasons:
        return reasons
    try:
        conversation = normalise_turns(obj["conversations"])
    except RecordError as error:
        return error.reasons
    return tuple(_role_order_reasons(conversation)) or tuple(_claim_reasons(conversation, meta))
