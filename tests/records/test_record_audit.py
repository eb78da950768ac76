"""The audit counts what is there and survives whatever it is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.records import audit, format_audit
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
    assert report.error_types == {"ArgInvalid": 4}
    assert report.primary_tools == {"inspect_file_as_text": 3, "(none)": 1}
    assert report.duplicate_ids == ("ledger_rot_s1_ArgInvalid",)
    assert report.lengths["turns"] == Spread(9, 9, 9)
    assert report.lengths["fix_plan"] == Spread(5, 5, 5)


def test_the_page_names_every_count(rot_record: Make) -> None:
    page = format_audit(audit([rot_record(), {"id": 5}]))
    assert page.startswith("1 of 2 records keep every rule\n")
    for words in (
        "schema_keys                        1   50.0%",
        "ArgInvalid",
        "inspect_file_as_text",
        "(none)",
    ):
        assert words in page
    assert "0 of 0 records" in format_audit(audit([]))


META_KEYS = st.sampled_from(["reflection", "corrected_action", "error_type"])
META_VALUES = st.text() | st.just({"evidence": 1})


@settings(deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["id", "image", "answer", "conversations", "rot_meta"]),
            st.none() | st.text() | st.lists(st.integers()) | st.dictionaries(META_KEYS, META_VALUES),
        ),
        max_size=3,
    )
)
def test_nothing_breaks_the_audit(records: list[dict[str, Any]]) -> None:
    report = audit(records)
    assert report.total == len(records)
    assert sum(report.error_types.values()) == len(records)
    assert isinstance(format_audit(report), str)
