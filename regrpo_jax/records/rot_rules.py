"""The rules a Reflection-of-Thought record must keep, each with a name to audit a corpus by.

A record that breaks one would teach the wrong thing in silence: a reflection about another observation, a
target that the prompt already contains, a "failure" that is the right action in other quotes. The rules run
in three rounds (keys and types, then the conversation, then what the record claims); a round is run only when
the one before found nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from regrpo_jax.records.conversation import identity_text, read_conversation
from regrpo_jax.records.execution_rules import execution_claim_reasons, execution_schema_reasons
from regrpo_jax.records.images import named_images
from regrpo_jax.records.reasons import RecordError, kind_of, printable
from regrpo_jax.records.rot_claims import claim_reasons, locate_reflection, unknown_type_reasons
from regrpo_jax.records.tool_names import tools_of_raw
from regrpo_jax.records.types import Turn

__all__ = ["encoding_reasons", "locate_reflection", "validate_rot"]

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
_TEXT_META_KEYS = ("error_type", "failed_action", "failed_observation", "corrected_action")
_FILLED_META_KEYS = ("failed_action", "corrected_action")


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
    if not identity_text(record["id"]):
        yield "schema_types: `id` of the record must be a text that is not empty, or a whole number"
    yield from _not_scalar(record, "answer", "the record")
    yield from _image_reasons(record)
    if not isinstance(meta["src_id"], str) and not identity_text(meta["src_id"]):
        yield "schema_types: `src_id` of `rot_meta` must be a text or a whole number"
    yield from _not_text(meta, _TEXT_META_KEYS, "`rot_meta`", filled=_FILLED_META_KEYS)
    yield from _not_scalar(meta, "final_answer", "`rot_meta`")
    if type(meta["step_index"]) is not int:
        yield "schema_types: `step_index` of `rot_meta` must be a whole number"
    yield from _not_text(reflection, REFLECTION_KEYS, "`rot_meta.reflection`", filled=("evidence", "fix_plan"))


def _image_reasons(record: Mapping[str, object]) -> tuple[str, ...]:
    try:
        named_images(record)
    except RecordError as error:
        return error.reasons
    return ()


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


def validate_rot(obj: object) -> tuple[str, ...]:
    """Every rule the raw record `obj` breaks, as "rule_name: sentence"; () for a record fit for training.

    Tools are the known ones and those of the record's execution block, whose own rules hold where there is one.
    """
    if not isinstance(obj, dict):
        return (f"schema_types: a record must be an object, not {kind_of(obj)}",)
    reasons = (*_key_reasons(obj), *encoding_reasons(obj))
    if reasons:
        return reasons
    meta = obj["rot_meta"]
    types = (*_type_reasons(obj, meta, meta["reflection"]), *execution_schema_reasons(obj.get("execution")))
    reasons = types or tuple(unknown_type_reasons(meta))
    if reasons:
        return reasons
    try:
        conversation, _ = read_conversation(obj)
    except RecordError as error:
        return error.reasons
    tools = tools_of_raw(obj)
    reasons = tuple(_role_order_reasons(conversation)) or tuple(
        claim_reasons(conversation, meta, tools, obj.get("execution"))
    )
    return reasons or tuple(execution_claim_reasons(obj.get("execution"), conversation, meta, tools))
