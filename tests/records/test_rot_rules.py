"""Every rule of a Reflection-of-Thought record is broken once, and that rule alone must say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from regrpo_jax.records import ErrorType, RecordError, rot_from_dict, rot_to_dict, validate_rot

Make = Callable[[], dict[str, Any]]
Record = dict[str, Any]


def _set_failed(record: Record, action: str) -> None:
    record["rot_meta"]["failed_action"] = action
    record["conversations"][4]["content"] = action


def _set_type(record: Record, name: str) -> None:
    """Name another error type in all three places at once."""
    turn = record["conversations"][6]
    turn["content"] = turn["content"].replace(record["rot_meta"]["error_type"], name)
    record["rot_meta"]["error_type"] = record["rot_meta"]["reflection"]["error_type"] = name


def _set_evidence(record: Record, evidence: str) -> None:
    turn = record["conversations"][6]
    turn["content"] = turn["content"].replace(record["rot_meta"]["reflection"]["evidence"], evidence)
    record["rot_meta"]["reflection"]["evidence"] = evidence


def _edit_turn(record: Record, index: int, old: str, new: str) -> None:
    turn = record["conversations"][index]
    assert old in turn["content"]
    turn["content"] = turn["content"].replace(old, new)


def _non_commit_that_commits(record: Record) -> None:
    _set_type(record, "NonCommit")
    _set_failed(record, "Thought: done\n```py\nfinal_answer('about 1000')\n```")


def _leak(record: Record) -> None:
    _edit_turn(record, 3, "ledger.csv", record["rot_meta"]["corrected_action"])


def _drop_failure(record: Record) -> None:
    del record["conversations"][2:6]


def _code(source: str) -> str:
    return f"Thought: other words\n\nCode:\n```py\n{source}\n```"


USER_TURN = {"role": "user", "content": "and?"}
BROKEN: list[tuple[str, str, Callable[[Record], object]]] = [
    ("schema_keys", "no id", lambda r: r.pop("id")),
    ("schema_keys", "no image", lambda r: r.pop("image")),
    ("schema_keys", "no rot_meta", lambda r: r.pop("rot_meta")),
    ("schema_keys", "no src_id", lambda r: r["rot_meta"].pop("src_id")),
    ("schema_keys", "no reflection", lambda r: r["rot_meta"].pop("reflection")),
    ("schema_keys", "no fix plan", lambda r: r["rot_meta"]["reflection"].pop("fix_plan")),
    ("schema_types", "id is a number", lambda r: r.update(id=5.5)),
    ("schema_types", "id is empty", lambda r: r.update(id=" ")),
    ("schema_types", "answer is a list", lambda r: r.update(answer=["a"])),
    ("schema_types", "image is a number", lambda r: r.update(image=3)),
    ("schema_types", "rot_meta is a list", lambda r: r.update(rot_meta=[])),
    ("schema_types", "reflection is text", lambda r: r["rot_meta"].update(reflection="x")),
    ("schema_types", "step_index is true", lambda r: r["rot_meta"].update(step_index=True)),
    ("schema_types", "step_index is text", lambda r: r["rot_meta"].update(step_index="1")),
    ("schema_types", "failed action is empty", lambda r: r["rot_meta"].update(failed_action="")),
    ("schema_types", "final answer is an object", lambda r: r["rot_meta"].update(final_answer={})),
    ("schema_types", "evidence is null", lambda r: r["rot_meta"]["reflection"].update(evidence=None)),
    ("text_encoding", "half a surrogate pair", lambda r: _edit_turn(r, 7, "Total", "\ud83d Total")),
    ("turn_shape", "conversations is text", lambda r: r.update(conversations="x")),
    ("turn_shape", "no turns", lambda r: r.update(conversations=[])),
    ("turn_shape", "a turn is a number", lambda r: r["conversations"].append(5)),
    ("turn_shape", "unknown role", lambda r: r["conversations"][8].update(role="judge")),
    ("role_order", "no system turn", lambda r: r["conversations"].pop(0)),
    ("role_order", "two user turns", lambda r: r["conversations"].insert(2, USER_TURN)),
    ("no_assistant_turn", "task only", lambda r: r.update(conversations=r["conversations"][:2])),
    ("error_type", "a seventh type", lambda r: _set_type(r, "Hallucination")),
    ("error_types_agree", "rot_meta differs", lambda r: r["rot_meta"].update(error_type="CodeError")),
    ("error_types_agree", "the turn differs", lambda r: _edit_turn(r, 6, "ArgInvalid", "CodeError")),
    ("evidence_grounded", "a general claim", lambda r: _set_evidence(r, "I was wrong about it.")),
    ("label_leak", "in an observation", _leak),
    (
        "failed_is_corrected",
        "other quotes and order",
        lambda r: _set_failed(r, _code("print(1)\ninspect_file_as_text('ledger.csv', question='total')")),
    ),
    ("reflection_missing", "no block", lambda r: _edit_turn(r, 6, "Reflection:", "I see:")),
    ("reflection_turn", "a line is missing", lambda r: _edit_turn(r, 6, "- FixPlan: ", "- Plan: ")),
    ("reflection_turn", "another plan", lambda r: r["rot_meta"]["reflection"].update(fix_plan="Give up.")),
    ("reflection_turn", "another action", lambda r: _edit_turn(r, 6, "ledger.csv\", q", "book.csv\", q")),
    ("failed_turn", "another failed action", lambda r: _edit_turn(r, 4, "legder", "lodger")),
    ("failed_turn", "another observation", lambda r: _edit_turn(r, 5, "Error: File", "Error: A file")),
    ("failed_turn", "nothing failed before", _drop_failure),
    ("step_index", "too large", lambda r: r["rot_meta"].update(step_index=4)),
    ("step_index", "negative", lambda r: r["rot_meta"].update(step_index=-1)),
    ("tool_mismatch", "the same tool", lambda r: _set_type(r, "ToolMismatch")),
    ("non_commit", "it commits", _non_commit_that_commits),
]  # fmt: skip


@pytest.mark.parametrize(("rule", "case", "damage"), BROKEN, ids=[f"{rule}-{case}" for rule, case, _ in BROKEN])
def test_a_broken_record_is_caught_by_exactly_its_rule(
    rot_record: Make, rule: str, case: str, damage: Callable[[Record], object]
) -> None:
    record = rot_record()
    damage(record)
    reasons = validate_rot(record)
    assert {reason.partition(": ")[0] for reason in reasons} == {rule}, (case, reasons)
    assert all(reason.partition(": ")[2].strip() for reason in reasons)
    with pytest.raises(RecordError) as caught:
        rot_from_dict(record, ".")
    assert caught.value.reasons == reasons


def _tool_mismatch(record: Record) -> None:
    _set_type(record, "ToolMismatch")
    _set_failed(record, _code("search('total of legder')"))


def _prose_failure(record: Record) -> None:
    _set_type(record, "NonCommit")
    _set_failed(record, "Thought: The total is probably about 1280, I think.")


def _error_header(record: Record) -> None:
    record["conversations"][5]["content"] = "[OUTPUT OF STEP 1] -> Error:\nFile not found: legder.csv"


def _empty_observation(record: Record) -> None:
    record["conversations"][5]["content"] = "[OUTPUT OF STEP 1] -> Observation:\n[]"
    record["rot_meta"]["failed_observation"] = "[]"
    _set_evidence(record, "The tool returned '[]'.")


def _earlier_reflection(record: Record) -> None:
    block = "Reflection:\n- ErrorType: CodeError\n- Evidence: e\n- FixPlan: f\n"
    record["conversations"][2]["content"] = block + record["conversations"][2]["content"]


SOUND: dict[str, Callable[[Record], object]] = {
    "as it is": lambda r: None,
    "other tool": _tool_mismatch,
    "prose instead of a commitment": _prose_failure,
    "error header": _error_header,
    "empty list quoted": _empty_observation,
    "an earlier reflection on something else": _earlier_reflection,
    "numbers as answers": lambda r: (r.update(answer=1280), r["rot_meta"].update(final_answer=1280)),
    "images by placeholder": lambda r: r.update(image={"<image_00>": "a.jpg"}),
    "a bare image": lambda r: r.update(image="a.jpg"),
    "ends after the correction": lambda r: r.update(conversations=r["conversations"][:7]),
    "unknown extra keys": lambda r: r.update(note={"by": "a teacher"}),
}


@pytest.mark.parametrize("change", SOUND.values(), ids=SOUND.keys())
def test_sound_variants_are_read_and_written_back(rot_record: Make, change: Callable[[Record], object]) -> None:
    raw = rot_record()
    change(raw)
    assert validate_rot(raw) == ()
    record = rot_from_dict(raw, "/data")
    assert (record.failed_turn, record.reflection_turn) == (4, 6)
    assert record.conversation[record.reflection_turn].content.endswith(record.corrected_action)
    assert rot_from_dict(rot_to_dict(record), "/elsewhere") == record


def test_the_written_form_is_the_authors_schema(rot_record: Make) -> None:
    raw = rot_record()
    assert rot_to_dict(rot_from_dict(raw, ".")) == raw


@pytest.mark.parametrize("error_type", [kind for kind in ErrorType if kind is not ErrorType.TOOL_MISMATCH])
def test_all_error_types_are_known(rot_record: Make, error_type: ErrorType) -> None:
    record = rot_record()
    _set_type(record, error_type.value)
    assert rot_from_dict(record, ".").error_type is error_type


def test_several_faults_are_told_at_once(rot_record: Make) -> None:
    record = rot_record()
    _set_evidence(record, "I was wrong about it.")
    record["rot_meta"]["step_index"] = 99
    _edit_turn(record, 4, "legder", "lodger")
    assert [reason.partition(":")[0] for reason in validate_rot(record)] == [
        "step_index",
        "evidence_grounded",
        "failed_turn",
    ]


@pytest.mark.parametrize("value", [None, 5, "x", [], [{}]])
def test_what_is_no_object_is_no_record(value: object) -> None:
    assert [reason.partition(":")[0] for reason in validate_rot(value)] == ["schema_types"]
