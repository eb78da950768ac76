"""What a turn means outside its content is honoured or refused, and what a clean trajectory cannot teach is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.records import RecordError, Rejection, load_clean, parse_trajectory, rot_from_dict, validate_rot
from regrpo_jax.records.conversation import read_conversation
from regrpo_jax.records.failed_turns import failed_turns
from regrpo_jax.records.loading import says_something

Make = Callable[[], dict[str, Any]]
Write = Callable[[Any], Path]
CODE = "Thought: go\n```py\nsearch('x')\n```"


def trained(record: dict[str, Any]) -> list[bool]:
    return [turn.trained for turn in read_conversation(record)[0] if turn.role == "assistant"]


@pytest.mark.parametrize("key", ["loss", "weight", "train", "training", "train_on_turn"])
def test_turns_are_trained_as_their_keys_say(clean_record: Make, key: str) -> None:
    for value, expected in (
        (False, False),
        (0, False),
        (0.0, False),
        (True, True),
        (1, True),
        (1.0, True),
        (None, True),
    ):
        record = clean_record()
        record["conversations"][1][key] = value
        assert trained(record) == [expected, True]
    for value in (0.5, "no", "0", [], -1, float("nan")):
        record = clean_record()
        record["conversations"][1][key] = value
        with pytest.raises(RecordError, match=f"turn_keys: `{key}` of turn 1"):
            read_conversation(record)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tool_calls", [{"type": "function", "function": {"name": "search", "arguments": "{}"}}]),
        ("function_call", {"name": "search", "arguments": "{}"}),
        ("reasoning_content", "I think"),
        ("reasoning", "I think"),
        ("thinking", "I think"),
        ("thought", "I think"),
        ("audio", {"id": "a"}),
    ],
)
def test_what_no_policy_would_see_is_refused(clean_record: Make, rot_record: Make, key: str, value: object) -> None:
    for content in ("said", None, ""):
        record = clean_record()
        record["conversations"][1] = {"role": "assistant", "content": content, key: value}
        with pytest.raises(RecordError, match=f"turn_keys: turn 1 has `{key}`"):
            parse_trajectory(record)
    recovery = rot_record()
    recovery["conversations"][2][key] = value
    assert [reason.partition(":")[0] for reason in validate_rot(recovery)] == ["turn_keys"]
    empty = clean_record()
    empty["conversations"][1][key] = type(value)()
    assert len(parse_trajectory(empty).steps) == 2


def test_a_recovery_whose_reflection_is_masked_is_refused(rot_record: Make) -> None:
    masked = rot_record()
    masked["conversations"][2]["loss"] = False
    assert [turn.trained for turn in rot_from_dict(masked, ".").conversation].count(False) == 1
    masked["conversations"][6]["weight"] = 0
    assert [reason.partition(":")[0] for reason in validate_rot(masked)] == ["turn_keys"]


def test_keys_of_the_record(clean_record: Make) -> None:
    record = clean_record() | {"system": "Use tools."}
    trajectory = parse_trajectory(record)
    assert (trajectory.system, trajectory.task) == ("Use tools.", "Task: What is the total in ledger.csv?")
    record["conversations"].insert(0, {"from": "system", "value": "Use tools."})
    assert parse_trajectory(record) == trajectory
    record["conversations"][0]["value"] = "Do not."
    with pytest.raises(RecordError, match="`system` is not the text"):
        parse_trajectory(record)
    assert trained(clean_record() | {"mask_policy": "rot", "train_turn_index": 3}) == [False, True]
    for odd in (2, 9, "last"):
        with pytest.raises(RecordError, match="`train_turn_index`"):
            trained(clean_record() | {"train_turn_index": odd})
    with pytest.raises(RecordError, match="`tools`"):
        trained(clean_record() | {"tools": [{"name": "search"}]})
    assert trained(clean_record() | {"tools": "[]", "messages": []}) == [True, True]
    with pytest.raises(RecordError, match="both `conversations` and `messages`"):
        trained(clean_record() | {"messages": [{"role": "user", "content": "x"}]})


BLANK = st.text(st.sampled_from(" \t\n\r\u00a0\u200b\u2060\ufeff\u3000"), max_size=5)


@given(blank=BLANK, extra=st.sampled_from(["x", "。", "🤷", "```"]))
def test_blanks_say_nothing(blank: str, extra: str) -> None:
    assert not says_something(blank) and says_something(blank + extra)


@pytest.mark.parametrize("content", ["", " \n", "\u200b", [], [{"type": "text", "text": ""}]])
def test_a_turn_that_says_nothing_is_refused_unless_it_is_not_trained(
    clean_record: Make, write_json: Write, content: object
) -> None:
    silent, masked = clean_record(), clean_record()
    silent["conversations"][1]["value"] = masked["conversations"][1]["value"] = content
    masked["conversations"][1]["loss"] = False
    rejections: list[Rejection] = []
    assert len(load_clean(write_json([silent, masked]), rejections=rejections)) == 1
    assert [reason.partition(":")[0] for item in rejections for reason in item.reasons] == ["empty_turn"]


def test_nothing_to_train_is_named(clean_record: Make, write_json: Write) -> None:
    masked = clean_record()
    for turn in masked["conversations"]:
        turn["loss"] = False
    rejections: list[Rejection] = []
    load_clean(write_json([masked, clean_record()]), rejections=rejections)
    assert "no assistant turn is to be trained" in rejections[0].reasons[0]


def test_whole_numbers_are_ids(clean_record: Make, rot_record: Make, write_json: Write) -> None:
    assert [record.id for record in load_clean(write_json([clean_record() | {"id": 7}]))] == ["7"]
    numbered = rot_record() | {"id": 0}
    numbered["rot_meta"]["src_id"] = 12
    record = rot_from_dict(numbered, ".")
    assert (record.id, record.source_id) == ("0", "12")


HEADERS = [
    "Tool Response:", "Tool response: ", "TOOL RESULT:\n", "tool output:", "Function Response:", "tool_response:",
    "<tool_response>\n", "Tool Response (search):", "Tool result from web.search: ", "Observation:",
    "[OUTPUT OF STEP 3] -> Observation:\n", "Observation: <tool_response>",
]  # fmt: skip


@given(header=st.sampled_from(HEADERS), status=st.sampled_from(["ok", "tool_error", "empty"]), ending=st.booleans())
def test_observations_of_others_are_seen_in_the_humans_turns(header: str, status: str, ending: bool) -> None:
    payload = {"ok": "42 results", "tool_error": "Error: no such file", "empty": "[]"}[status]
    closing = "\n</tool_response>" if ending and "<tool_response>" in header else ""
    said = [("human", "Find x."), ("gpt", CODE), ("human", header + payload + closing), ("gpt", CODE)]
    trajectory = parse_trajectory({"id": 1, "conversations": [{"from": who, "value": what} for who, what in said]})
    observation = trajectory.steps[0].observation
    assert observation is not None and (observation.text, observation.status) == (payload, status)
    assert failed_turns(trajectory) == (() if status == "ok" else (1,))


FATES = {"ok": ("Observation: 5", ""), "failed": ("Observation:\nError: no such file", ""), "codeless": ("Go on.", "x")}


@given(fates=st.lists(st.sampled_from(sorted(FATES)), min_size=1, max_size=6))
def test_failed_and_codeless_turns_are_found(fates: list[str]) -> None:
    turns = [{"role": "user", "content": "Task: find x."}]
    for fate in fates:
        answer, plain = FATES[fate]
        turns += [{"role": "assistant", "content": plain or CODE}, {"role": "user", "content": answer}]
    found = failed_turns(parse_trajectory({"id": "a", "messages": turns}))
    acting = any(fate != "codeless" for fate in fates)
    assert found == tuple(
        1 + 2 * at for at, fate in enumerate(fates) if fate == "failed" or (fate == "codeless" and acting)
    )


def test_our_own_errors_are_failures() -> None:
    said = '[OUTPUT OF STEP 0] -> Observation:\nError at `pick("a")`: Unavailable.'
    turns = [
        {"role": "user", "content": "Task"},
        {"role": "assistant", "content": CODE},
        {"role": "user", "content": said},
    ]
    assert failed_turns(parse_trajectory({"messages": turns})) == (1,)
