"""Reflection-of-Thought records between the authors' JSON schema and our typed form.

The schema is the one of the release (id, image, answer, conversations, rot_meta), so that its data sets load
here and what our data engine writes loads there. Ours have one key more, `execution`, which other readers pass over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regrpo_jax.records.conversation import answer_text, identity_text, read_conversation
from regrpo_jax.records.execution import execution_from_dict, execution_to_dict
from regrpo_jax.records.images import NO_ROOTS, images_to_json
from regrpo_jax.records.path_roots import PathRoots
from regrpo_jax.records.reasons import RecordError
from regrpo_jax.records.rot_rules import locate_reflection, validate_rot
from regrpo_jax.records.types import ErrorType, Reflection, RotRecord

__all__ = ["RecordError", "rot_from_dict", "rot_to_dict", "validate_rot"]


def _reflection_from(raw: Mapping[str, str]) -> Reflection:
    return Reflection(ErrorType(raw["error_type"]), raw["evidence"].strip(), raw["fix_plan"].strip())


def rot_from_dict(obj: Mapping[str, Any], base_dir: str | Path, roots: PathRoots = NO_ROOTS) -> RotRecord:
    """Read a raw record; relative image paths are resolved against `base_dir`, the folder of its file.

    roots: under which other roots they lie. Raises RecordError with every broken rule (see `validate_rot`). Whether
    image files exist is the loader's question.
    """
    reasons = validate_rot(obj)
    if reasons:
        raise RecordError(reasons)
    meta = obj["rot_meta"]
    conversation, images = read_conversation(obj, Path(base_dir), roots)
    reflection_turn = locate_reflection(conversation, meta)
    assert reflection_turn is not None  # validate_rot found it
    return RotRecord(
        id=identity_text(obj["id"]),
        images=images,
        answer=answer_text(obj["answer"]),
        conversation=conversation,
        source_id=answer_text(meta["src_id"]),
        step_index=meta["step_index"],
        error_type=ErrorType(meta["error_type"]),
        failed_action=meta["failed_action"],
        failed_observation=meta["failed_observation"],
        reflection=_reflection_from(meta["reflection"]),
        corrected_action=meta["corrected_action"],
        final_answer=answer_text(meta["final_answer"]),
        failed_turn=reflection_turn - 2,
        reflection_turn=reflection_turn,
        execution=None if obj.get("execution") is None else execution_from_dict(obj["execution"]),
    )


def rot_to_dict(record: RotRecord) -> dict[str, Any]:
    """Write a record in the authors' schema; `rot_from_dict` of the result gives the record back."""
    execution = {} if record.execution is None else {"execution": execution_to_dict(record.execution)}
    return {
        "id": record.id,
        "image": images_to_json(record.images),
        "answer": record.answer,
        "conversations": [{"role": turn.role, "content": turn.content} for turn in record.conversation],
        "rot_meta": {
            "src_id": record.source_id,
            "step_index": record.step_index,
            "error_type": record.error_type.value,
            "failed_action": record.failed_action,
            "failed_observation": record.failed_observation,
            "reflection": {
                "error_type": record.reflection.error_type.value,
                "evidence": record.reflection.evidence,
                "fix_plan": record.reflection.fix_plan,
            },
            "corrected_action": record.corrected_action,
            "final_answer": record.final_answer,
        },
        **execution,
    }
