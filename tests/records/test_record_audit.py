"""The audit counts what is there and survives whatever it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.records import audit, content_key, format_audit
from regrpo_jax.records.audit import Spread

Make = Callable[[], dict[str, Any]]


def test_counts_of_a_mixed_corpus(rot_record: Make) -> None:
    vague, doubled, nameless = rot_record(), rot_record(), rot_record()
    vague["rot_meta"]["step_index"] = 99
    doubled["rot_meta"]["corrected_action"] = "Thought: x\nCode:\n\nCode:\n```py\nprint(1)\n```"
    del nameless["id"]
    report = audit([rot_record(), vague, doubled, nameless])
    assert (report.total, report.valid) == (4, 1)
    assert report.broken_rules == {"reflection_turn": 1, "schema_keys": 1, "step_index": 1}
    assert report.warnings == {"corrected_without_tool": 1, "doubled_code_label": 1}
    assert report.hard_failures == 3  # the second repeats the first, the third its id, the fourth its content
    assert report.error_types == {"ArgInvalid": 4}
    assert report.primary_tools == {"inspect_file_as_text": 3, "(none)": 1}
    assert report.duplicate_ids == ("ledger_rot_s1_ArgInvalid",)
    assert report.lengths["turns"] == Spread(9, 9, 9)
    assert report.lengths["fix_plan"] == Spread(5, 5, 5)


def test_the_page_names_every_count(rot_record: Make) -> None:
    page = format_audit(audit([rot_record(), {"id": 5}]))
    assert page.startswith("1 of 2 records keep every rule; 1 hard failures\n")
    for words in (
        "schema_keys                        1   50.0%",
        "ArgInvalid",
        "inspect_file_as_text",
        "(none)",
    ):
        assert words in page
    assert "0 of 0 records" in format_audit(audit([]))


def test_a_repeated_id_or_content_is_a_hard_failure(rot_record: Make) -> None:
    same_id, same_content, other = rot_record(), rot_record(), rot_record()
    same_id["conversations"][1]["content"] = "Task: What else is in ledger.csv?"
    same_content["id"] = "another"
    for turn in same_content["conversations"]:
        turn["content"] = turn["content"].replace("Thought: I read the ledger.", "Thought: Read it.")
    same_content["rot_meta"]["failed_action"] = same_content["conversations"][4]["content"]
    other["id"], other["conversations"][1]["content"] = "third", "Task: Read ledger.csv"
    report = audit([rot_record(), same_id, same_content, other])
    assert (report.valid, report.hard_failures) == (4, 2)
    assert report.duplicate_ids == ("ledger_rot_s1_ArgInvalid",)
    assert report.duplicate_contents == ("another",)
    assert content_key(other) not in {content_key(record) for record in (rot_record(), same_id)}


def test_warnings_tell_what_a_person_should_see(rot_record: Make) -> None:
    confessing, vague, open_end = rot_record(), rot_record(), rot_record()
    confessing["rot_meta"]["failed_action"] = confessing["rot_meta"]["failed_action"].replace(
        "I read", "Wrongly I read"
    )
    vague["rot_meta"]["reflection"]["evidence"] = "The legder was odd."
    del open_end["conversations"][7:]
    assert [dict(audit([record]).warnings) for record in (rot_record(), confessing, vague, open_end)] == [
        {},
        {"confessing_thought": 1},
        {"short_evidence": 1},
        {"open_ending": 1},
    ]


def test_origins_complexity_and_shares(rot_record: Make, executed_record: Make) -> None:
    report = audit([rot_record(), executed_record()])
    assert report.origins["kind"] == {"(none)": 1, "executed": 1}
    assert report.origins["proposer"] == {"(none)": 1, "misspelled_name": 1}
    length = executed_record()["execution"]["complexity"]["length"]
    assert report.complexity["words"] == Spread(length, length, length)
    assert report.deviations["ArgInvalid"] == pytest.approx(1 - 0.308)
    assert report.deviations["ToolMismatch"] == pytest.approx(-0.246)
    assert audit([]).deviations == {}


def test_other_rules_may_be_asked(executed_record: Make) -> None:
    report = audit([executed_record()], lambda record: ("too_plain: all of them are",))
    assert (report.valid, report.hard_failures, dict(report.broken_rules)) == (0, 1, {"too_plain": 1})


META_KEYS = st.sampled_from(["reflection", "corrected_action", "error_type"])
META_VALUES = st.text() | st.just({"evidence": 1})


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["id", "image", "answer", "conversations", "rot_meta", "execution"]),
            st.none() | st.integers() | st.text() | st.lists(st.integers()) | st.dictionaries(META_KEYS, META_VALUES),
        ),
        max_size=3,
    )
)
def test_nothing_breaks_the_audit(records: list[dict[str, Any]]) -> None:
    report = audit(records)
    assert report.total == len(records)
    assert sum(report.error_types.values()) == len(records)
    assert isinstance(format_audit(report), str)
