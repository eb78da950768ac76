"""The offline group of a record: order, context, success and verifier value of each branch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from regrpo_jax.records import RotRecord, contrastive_candidates, render_reflection, rot_from_dict
from regrpo_jax.records.actions import code_of, extract_tool_calls


@pytest.fixture
def record(rot_record: Callable[[], dict[str, Any]]) -> RotRecord:
    return rot_from_dict(rot_record(), ".")


def test_the_group_as_a_table(record: RotRecord) -> None:
    group = contrastive_candidates(record)
    assert [(c.label, c.after_failure, c.success, c.verifier_value) for c in group] == [
        ("correct", False, True, 0.5),
        ("failed", False, False, 0.0),
        ("reflect_correct", True, True, 1.0),
        ("retry_correct", True, True, 0.5),
        ("corrupted", True, False, 0.0),
    ]
    assert [c.reflection for c in group] == ["", "", render_reflection(record.reflection), "", ""]
    assert [c.action for c in group[:4]] == [record.corrected_action, record.failed_action] + [
        record.corrected_action
    ] * 2
    reflecting = group[2]
    assert reflecting.reflection + reflecting.action == record.conversation[record.reflection_turn].content


def test_the_corrupted_action_calls_another_tool_with_nothing(record: RotRecord) -> None:
    final = replace(record, corrected_action="Thought: done\n```py\nfinal_answer('3')\n```")
    for changed, tool in ((record, "final_answer"), (final, "ask_search_agent")):
        [call] = extract_tool_calls(code_of(contrastive_candidates(changed)[4].action))
        assert (call.name, call.arguments) == (tool, ("''",))


def test_a_reflection_that_quotes_nothing_earns_no_grounding(record: RotRecord) -> None:
    vague = replace(record, reflection=replace(record.reflection, evidence="I was wrong."))
    assert [c.verifier_value for c in contrastive_candidates(vague)] == [0.5, 0.0, 0.5, 0.5, 0.0]


def test_a_failure_that_shares_its_first_argument_is_still_a_failure(record: RotRecord) -> None:
    crop = "```py\nvisualizer('read', 'a.jpg', bbox=[{}])\n```"
    shifted = replace(record, failed_action=crop.format("0, 9"), corrected_action=crop.format("5, 9"))
    assert not contrastive_candidates(shifted)[1].success
