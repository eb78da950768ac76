"""The execution block: read, written back, and what it changes for the rest of the record."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.records import (
    KNOWN_TOOLS,
    RotRecord,
    Status,
    contrastive_candidates,
    parse_trajectory,
    rot_from_dict,
    rot_to_dict,
    tools_of,
    tools_of_raw,
    validate_rot,
)
from regrpo_jax.records.execution import text_sha256
from tests.records.conftest import ROT_RECORD, seal

Record = dict[str, Any]
Make = Callable[[], Record]


def _compact() -> Record:
    """A record whose tools are nowhere known but in its own block; the actions differ in the key alone."""
    record = copy.deepcopy(ROT_RECORD)
    failed, corrected = (f'Thought: look.\n\nCode:\n```py\nsheet("river")["{key}"]\n```' for key in ("bonus", "delta"))
    block = 'Reflection:\n- ErrorType: CodeError\n- Evidence: "bonus" in "delta"\n- FixPlan: use "delta"\n'
    turns = {
        4: failed,
        5: '[OUTPUT OF STEP 1] -> Observation:\nLookupError: no "bonus". "bonus" in "delta".',
        6: block + corrected,
    }
    for index, content in turns.items():
        record["conversations"][index]["content"] = content
    record["rot_meta"] |= {
        "error_type": "CodeError",
        "failed_action": failed,
        "failed_observation": 'LookupError: no "bonus". "bonus" in "delta".',
        "corrected_action": corrected,
        "reflection": {"error_type": "CodeError", "evidence": '"bonus" in "delta"', "fix_plan": 'use "delta"'},
    }
    sealed = seal(record)
    sealed["execution"]["tools"] = {"sheet": "1", "final_answer": "1", "list_files": "1"}
    return sealed


def test_a_block_comes_back_as_it_was_written(executed_record: Make) -> None:
    raw = executed_record()
    record = rot_from_dict(raw, ".")
    assert rot_to_dict(record) == raw
    assert rot_from_dict(rot_to_dict(record), "/elsewhere") == record
    assert record.execution is not None and hash(record)
    assert record.failed_status is Status.TOOL_ERROR is record.execution.failed_status


@pytest.mark.parametrize("block", ["absent", None])
def test_a_record_without_a_block_has_no_status(rot_record: Make, block: str | None) -> None:
    raw = rot_record() if block else rot_record() | {"execution": None}
    record = rot_from_dict(raw, ".")
    assert record.execution is None and record.failed_status is None
    assert "execution" not in rot_to_dict(record) and tools_of(record) == KNOWN_TOOLS


def test_synthetic_records_ran_nothing(executed_record: Make) -> None:
    raw = executed_record()
    raw["execution"] |= {"kind": "synthetic", "steps": [], "repaired": False}
    assert rot_from_dict(raw, ".").failed_status is None
    raw["execution"]["repaired"] = True
    assert [reason.partition(":")[0] for reason in validate_rot(raw)] == ["execution_repaired"]


def test_the_records_own_tools_are_tools() -> None:
    raw = _compact()
    assert validate_rot(raw) == ()
    record: RotRecord = rot_from_dict(raw, ".")
    assert "sheet" in tools_of(record) == tools_of_raw(raw)
    assert [call.name for step in parse_trajectory(record).steps for call in step.tool_calls] == [
        "list_files", "sheet", "sheet", "final_answer",
    ]  # fmt: skip
    assert parse_trajectory(raw).steps == parse_trajectory(record).steps
    assert [candidate.success for candidate in contrastive_candidates(record)] == [True, False, True, True, False]


def test_a_non_commit_may_have_gone_well(executed_record: Make) -> None:
    raw = executed_record()
    raw["execution"]["steps"][1]["status"] = "ok"
    assert [reason.partition(":")[0] for reason in validate_rot(raw)] == ["failed_status"]
    raw["conversations"][6]["content"] = raw["conversations"][6]["content"].replace("ArgInvalid", "NonCommit")
    raw["rot_meta"]["error_type"] = raw["rot_meta"]["reflection"]["error_type"] = "NonCommit"
    assert validate_rot(raw) == ()


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_observations_are_compared_character_by_character(text: str) -> None:
    raw = seal(copy.deepcopy(ROT_RECORD))
    raw["conversations"][7]["content"] = f"[OUTPUT OF STEP 1] -> Observation:\n{text}"
    raw["execution"]["steps"][2]["observation_sha256"] = text_sha256(text)
    assert validate_rot(raw) == ()
    raw["conversations"][7]["content"] += " "
    assert [reason.partition(":")[0] for reason in validate_rot(raw)] == ["execution_observation"]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(alphabet="ab{}"),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "status"]), inner, max_size=2),
    max_leaves=4,
)
KEYS = sorted(seal(copy.deepcopy(ROT_RECORD))["execution"])


@given(st.sampled_from(KEYS), JSON)
def test_no_value_of_a_block_breaks_the_reader(key: str, value: object) -> None:
    raw = seal(copy.deepcopy(ROT_RECORD))
    raw["execution"][key] = value
    if not validate_rot(raw):
        assert rot_from_dict(raw, ".").execution is not None
