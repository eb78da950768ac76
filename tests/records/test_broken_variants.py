"""One broken variant of a good record for every rule there is, the gates of the engine included."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import regrpo_jax
from regrpo_jax.engine.gates import gate_reasons
from regrpo_jax.records.reasons import rule_of
from tests.records.conftest import seal

Record = dict[str, Any]
Make = Callable[[], Record]
PACKAGE = Path(regrpo_jax.__file__).parent
CODE = 'inspect_file_as_text("ledger.csv", question="total")'
RULE_FILES = [
    "records/rot_rules.py", "records/rot_claims.py", "records/execution_rules.py", "records/images.py",
    "records/conversation.py", "records/turns.py", "records/placed_images.py", "records/picture_forms.py",
    "engine/gates.py",
]  # fmt: skip


def _edit(record: Record, index: int, old: str, new: str) -> None:
    turn = record["conversations"][index]
    assert old in turn["content"]
    turn["content"] = turn["content"].replace(old, new)


def _set_failed(record: Record, action: str) -> None:
    record["rot_meta"]["failed_action"] = record["conversations"][4]["content"] = action


def _set_corrected(record: Record, action: str) -> None:
    _edit(record, 6, record["rot_meta"]["corrected_action"], action)
    record["rot_meta"]["corrected_action"] = action


def _set_reflection(record: Record, key: str, text: str) -> None:
    _edit(record, 6, record["rot_meta"]["reflection"][key], text)
    record["rot_meta"]["reflection"][key] = text


def _set_type(record: Record, name: str) -> None:
    _edit(record, 6, record["rot_meta"]["error_type"], name)
    record["rot_meta"]["error_type"] = record["rot_meta"]["reflection"]["error_type"] = name


def _set_both(record: Record, name: str, failed: str) -> None:
    _set_type(record, name)
    _set_failed(record, failed)


def _block(record: Record, **values: object) -> None:
    record["execution"].update(values)


def _other_step(record: Record) -> None:
    """The block and the record agree on a step that is not the one before the reflection."""
    record["execution"]["failed_step"] = record["rot_meta"]["step_index"] = 0


def _fenced(code: str) -> str:
    return f"Thought: other words\n\nCode:\n```py\n{code}\n```"


# Broken after the episode: the block stays as it was.
TAMPERED: dict[str, Callable[[Record], object]] = {
    "schema_keys": lambda r: r["rot_meta"].pop("src_id"),
    "schema_types": lambda r: r.update(answer=["1280"]),
    "text_encoding": lambda r: _edit(r, 7, "Total", "\ud83d"),
    "turn_shape": lambda r: r["conversations"][8].update(role="judge"),
    "turn_keys": lambda r: r["conversations"][8].update(reasoning_content="I am sure."),
    "image_count": lambda r: _edit(r, 1, "ledger.csv?", "ledger.csv? <image>"),
    "image_place": lambda r: r["conversations"][8].update(content=[{"type": "image", "image": "a.png"}]),
    "image_form": lambda r: r.update(image={"base64": "?"}),
    "image_remote": lambda r: r.update(image="https://example.com/a.png"),
    "role_order": lambda r: r["conversations"].pop(0),
    "no_assistant_turn": lambda r: r.update(conversations=r["conversations"][:2]),
    "error_type": lambda r: _set_type(r, "Hallucination"),
    "error_types_agree": lambda r: r["rot_meta"].update(error_type="CodeError"),
    "evidence_grounded": lambda r: _set_reflection(r, "evidence", "I was not right about it."),
    "failed_is_corrected": lambda r: _set_failed(r, _fenced(f"x = {CODE}")),
    "tool_mismatch": lambda r: _set_type(r, "ToolMismatch"),
    "non_commit": lambda r: _set_both(r, "NonCommit", _fenced("final_answer('about 1000')")),
    "step_index": lambda r: r["rot_meta"].update(step_index=4),
    "reflection_missing": lambda r: _edit(r, 6, "Reflection:", "I see:"),
    "reflection_turn": lambda r: r["rot_meta"]["reflection"].update(fix_plan="Give up."),
    "failed_turn": lambda r: _edit(r, 5, "Error: File", "Error: A file"),
    "label_leak": lambda r: _edit(r, 3, "ledger.csv", r["rot_meta"]["corrected_action"]),
    "execution_schema": lambda r: r["execution"]["steps"][0].update(status="fine"),
    "execution_version": lambda r: _block(r, version=2),
    "execution_kind": lambda r: _block(r, kind="imagined"),
    "execution_source": lambda r: _block(r, source="hearsay"),
    "execution_annotator": lambda r: _block(r, annotator="teacher:"),
    "execution_task": lambda r: _block(r, task_sha256="abc"),
    "execution_loader": lambda r: _block(r, loader="books.tools"),
    "execution_tools": lambda r: r["execution"]["tools"].pop("inspect_file_as_text"),
    "execution_complexity": lambda r: r["execution"]["complexity"].update(length=3),
    "execution_failed_step": _other_step,
    "execution_steps": lambda r: r["execution"]["steps"].pop(),
    "execution_repaired": lambda r: _block(r, repaired=False),
    "execution_code": lambda r: _edit(r, 2, 'list_files(".")', 'list_files("..")'),
    "execution_observation": lambda r: _edit(r, 7, "1280", "1281"),
    "failed_status": lambda r: r["execution"]["steps"][1].update(status="infra_error"),
    "corrected_status": lambda r: r["execution"]["steps"][2].update(status="empty"),
    "step_header": lambda r: _edit(r, 7, "STEP 1", "STEP 2"),
    "execution_missing": lambda r: r.pop("execution"),
}
# Written so by an engine without gates: the block belongs to the record.
ILL_MADE: dict[str, Callable[[Record], object]] = {
    "evidence_span": lambda r: _set_reflection(r, "evidence", "The file was odd."),
    "reflection_length": lambda r: _set_reflection(r, "fix_plan", "Read the other one. " * 30 + "Now."),
    "corrected_code": lambda r: _set_corrected(r, "Thought: I should read ledger.csv."),
    "code_leak": lambda r: _edit(r, 1, "ledger.csv?", f"ledger.csv? {CODE} may help."),
    "reflection_leak": lambda r: _set_reflection(r, "fix_plan", f"Call {CODE} now."),
    "thought_confesses": lambda r: _set_failed(
        r, r["rot_meta"]["failed_action"].replace("I read", "By mistake I read")
    ),
    "final_answer": lambda r: _edit(r, 8, "1280", "1281"),
    "image_placeholders": lambda r: r.update(image={"<image_00>": "scan.png"}),
}


def _rules(record: Record) -> set[str]:
    reasons = gate_reasons(record)
    assert all(reason.partition(": ")[2].strip() for reason in reasons)
    return {rule_of(reason) for reason in reasons}


@pytest.mark.parametrize("rule", TAMPERED)
def test_a_tampered_record_is_caught_by_its_rule_alone(executed_record: Make, rule: str) -> None:
    record = executed_record()
    assert _rules(record) == set()
    TAMPERED[rule](record)
    assert _rules(record) == {rule}


@pytest.mark.parametrize("rule", ILL_MADE)
def test_an_ill_made_record_is_caught_by_its_gate_alone(executed_record: Make, rule: str) -> None:
    record = executed_record()
    ILL_MADE[rule](record)
    assert _rules(seal(record)) == {rule}


def test_every_rule_has_its_variant() -> None:
    text = "\n".join((PACKAGE / name).read_text(encoding="utf-8") for name in RULE_FILES)
    told = set(re.findall(r'[(\s]f?["\']([a-z]+(?:_[a-z]+)+): ', text)) - {"rule_name"}
    assert told == set(TAMPERED) | set(ILL_MADE)
    assert len(told) >= 30
