"""Records that the gates let through; the ones they refuse are in tests/records/test_broken_variants.py."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from regrpo_jax.engine.gates import MOST_CHARACTERS, MOST_WORDS, audit_reasons, gate_reasons
from regrpo_jax.records.reasons import rule_of
from tests.records.conftest import ROT_RECORD, seal

Record = dict[str, Any]
CODE = 'inspect_file_as_text("ledger.csv", question="total")'


def _made(change: Callable[[Record], object]) -> Record:
    record = copy.deepcopy(ROT_RECORD)
    change(record)
    return seal(record)


def _edit(record: Record, index: int, old: str, new: str) -> None:
    turn = record["conversations"][index]
    assert old in turn["content"]
    turn["content"] = turn["content"].replace(old, new)


def _set_reflection(record: Record, key: str, text: str) -> None:
    _edit(record, 6, record["rot_meta"]["reflection"][key], text)
    record["rot_meta"]["reflection"][key] = text


def _answer(record: Record, given: str, answer: str = "1280") -> None:
    _edit(record, 8, '"1280"', given)
    record["answer"] = answer


def _picture(record: Record) -> None:
    record["image"] = {"<image_00>": "scan.png"}
    _edit(record, 1, "Task:", "<image_00>\nTask:")


def _odd_task(record: Record) -> None:
    _edit(record, 1, "Task:", "Task: Mind the wrong lines.")
    _edit(record, 4, "I read the ledger.", "Find the wrong lines.")
    record["rot_meta"]["failed_action"] = record["conversations"][4]["content"]


SOUND: dict[str, Callable[[Record], object]] = {
    "as it is": lambda r: None,
    "a number for a text": lambda r: _answer(r, "1280"),
    "the same number, written otherwise": lambda r: _answer(r, '"1,280.0"'),
    "an answer in a sentence": lambda r: _answer(r, '"The total is 1280."'),
    "a computed answer, checked when it ran": lambda r: _answer(r, "total"),
    "a keyword": lambda r: _answer(r, 'answer="1280"'),
    "an image that the task shows": _picture,
    "a word that the task itself has": _odd_task,
    "a longer name is not the correction": lambda r: _edit(r, 3, "ledger.csv", f"re{CODE}"),
    "the whole of a short observation": lambda r: _set_reflection(r, "evidence", "File not found: legder.csv"),
    "just short enough": lambda r: _set_reflection(r, "fix_plan", " ".join(["word"] * MOST_WORDS)),
}  # fmt: skip
REFUSED: list[tuple[str, str, Callable[[Record], object]]] = [
    ("final_answer", "another number", lambda r: _answer(r, "1281")),
    ("final_answer", "several numbers", lambda r: _answer(r, '"12 or 80"')),
    ("final_answer", "nothing given", lambda r: _answer(r, "")),
    ("final_answer", "nothing called", lambda r: _edit(r, 8, "final_answer", "print")),
    ("final_answer", "no answer known", lambda r: _answer(r, '"1280"', " ")),
    ("code_leak", "the same call in other quotes", lambda r: _edit(r, 2, 'list_files(".")', CODE.replace('"', "'"))),
    ("image_count", "no file declared", lambda r: _edit(r, 1, "Task:", "<image_01>\nTask:")),
    ("image_placeholders", "no placeholder", lambda r: r.update(image="scan.png")),
    ("reflection_leak", "in other spacing", lambda r: _set_reflection(r, "fix_plan", f"Do {CODE.replace(' ', '  ')}.")),
    ("reflection_length", "one long word", lambda r: _set_reflection(r, "fix_plan", "a" * (MOST_CHARACTERS + 1))),
]  # fmt: skip


@pytest.mark.parametrize("case", SOUND)
def test_sound_records_pass(case: str) -> None:
    assert gate_reasons(_made(SOUND[case])) == ()


@pytest.mark.parametrize(("rule", "case", "damage"), REFUSED, ids=[f"{rule}-{case}" for rule, case, _ in REFUSED])
def test_other_ways_to_break_a_gate(rule: str, case: str, damage: Callable[[Record], object]) -> None:
    assert [rule_of(reason) for reason in gate_reasons(_made(damage))] == [rule], case


def test_the_header_alone_is_no_evidence() -> None:
    def header_only(record: Record) -> None:
        text = 'Error at `inspect_file_as_text("legder.csv", question="total")`: NotFound. no "legder.csv".'
        record["rot_meta"]["failed_observation"] = text
        record["conversations"][5]["content"] = f"[OUTPUT OF STEP 1] -> Observation:\n{text}"
        _set_reflection(record, "evidence", 'Error at inspect_file_as_text was said of question="total"')

    assert [rule_of(reason) for reason in gate_reasons(_made(header_only))] == ["evidence_span"]


def test_other_peoples_records_are_held_to_the_common_rules_alone() -> None:
    vague = copy.deepcopy(ROT_RECORD)
    _set_reflection(vague, "evidence", "The file was odd.")
    assert audit_reasons(vague) == () != gate_reasons(vague)
    assert [rule_of(reason) for reason in audit_reasons(seal(vague))] == ["evidence_span"]
