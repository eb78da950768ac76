"""Whatever a teacher says is either a record's worth or refused with words that it can act on."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.engine.gates import MOST_CHARACTERS, MOST_WORDS
from regrpo_jax.engine.teacher.questions import Malformed, read_near_misses, read_object, read_reflection
from regrpo_jax.records.actions import actions_equivalent, parse_python
from regrpo_jax.records.reflection import cites_observation, parse_reflection, render_reflection
from regrpo_jax.records.types import ErrorType, Reflection
from tests.engine.teacher_cases import simple_failure, some_failures

FAILURE = simple_failure()
RIGHT = {"error_type": "ArgInvalid", "evidence": 'it says "Ann" at "bridge"', "fix_plan": "Ask for bridge instead."}
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
names = st.sampled_from(["error_type", "evidence", "fix_plan", "near_misses", "thought", "code"]) | st.text(max_size=3)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=4))
pieces = st.sampled_from(
    ["Ann", '"Ann" at "bridge"', "\n", "\n\n", "Thought: go", "Code:", "```", "- FixPlan: x", "Reflection:", "eagle",
     'read("bridge")', "\ud800", "\x00", "  ", "NotFound.", "é", "<think>", "</think>", "{", "}"]
)  # fmt: skip
texts = st.lists(pieces | st.text(max_size=4), max_size=8).map(" ".join)


def said(**changes: object) -> str:
    return json.dumps(RIGHT | changes)


@given(values | st.fixed_dictionaries({"error_type": st.just("ArgInvalid"), "evidence": values, "fix_plan": values}))
def test_any_json_is_a_reflection_or_malformed(value: object) -> None:
    check(json.dumps(value))


@given(st.text() | texts)
def test_any_text_is_a_reflection_or_malformed(text: str) -> None:
    check(text)


@given(texts, texts)
def test_what_is_accepted_survives_being_written_down(evidence: str, fix_plan: str) -> None:
    check(said(evidence=evidence, fix_plan=fix_plan))
    check(said(evidence=RIGHT["evidence"] + evidence, fix_plan="Go. " + fix_plan))


def check(text: str) -> None:
    try:
        found = read_reflection(text, FAILURE)
    except Malformed as error:
        assert error.problems and all(problem.strip() for problem in error.problems)
        return
    turn = render_reflection(found) + 'Thought: look.\n\nCode:\n```py\nread("bridge")\n```'
    assert parse_reflection(turn) == found
    assert found.error_type == ErrorType.ARG_INVALID
    assert cites_observation(found.evidence, FAILURE.failed.text)
    assert 'read("bridge")' not in found.fix_plan and "\n" not in found.evidence + found.fix_plan
    turn.encode("utf-8")


@given(
    values | st.fixed_dictionaries({"near_misses": st.lists(st.fixed_dictionaries({"thought": texts, "code": texts}))})
)
def test_any_json_is_near_misses_or_malformed(value: object) -> None:
    for kind in ErrorType:
        try:
            found = read_near_misses(json.dumps(value), FAILURE.situation, kind)
        except Malformed:
            continue
        assert 1 <= len(found) <= 3
        for miss in found:
            assert (miss.error_type, miss.proposer) == (kind, "teacher")
            assert miss.thought.strip() and miss.code.strip() and "```" not in miss.thought + miss.code
            assert kind == ErrorType.CODE_ERROR or parse_python(miss.code) is not None
            assert not actions_equivalent(miss.code, FAILURE.situation.step.code)


def test_a_right_answer_in_the_wrappings_of_models() -> None:
    wanted = Reflection(ErrorType.ARG_INVALID, RIGHT["evidence"], RIGHT["fix_plan"])
    for text in (
        said(),
        f"\n{said()}\n",
        f"```json\n{said()}\n```",
        f"<think>It must be {{}} or so.</think>\n\n{said()}",
        f"so it is Ann.\n</think>\n```\n{said()}\n```\n",
    ):
        assert read_reflection(text, FAILURE) == wanted
    assert read_reflection(said(evidence='it says\n  "Ann"  at\n"bridge"'), FAILURE) == wanted


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"error_type": "ToolMismatch"}, "must be 'ArgInvalid'"),
        ({"error_type": None}, "must be 'ArgInvalid'"),
        ({"evidence": "   "}, "evidence is empty"),
        ({"evidence": 5}, "evidence must be a string, not a number"),
        ({"evidence": "Nothing was found."}, "does not quote"),
        ({"evidence": "It said Max."}, "does not quote"),
        ({"evidence": 'It failed at `read("eagle")`.'}, "does not quote"),  # the call, not what the tool said of it
        ({"evidence": '"Ann" at "bridge" ' + "x" * MOST_CHARACTERS}, f"at most {MOST_CHARACTERS}"),
        ({"evidence": 'he said read("bridge"), and "Ann" at "bridge"'}, "evidence contains the code"),
        ({"fix_plan": ""}, "fix_plan is empty"),
        ({"fix_plan": "a " * (MOST_WORDS + 1)}, f"at most {MOST_WORDS} are"),
        ({"fix_plan": 'Call read("bridge") now.'}, "fix_plan contains the code of the corrected action"),
        ({"fix_plan": "Write ```x```."}, "code fence"),
        ({"fix_plan": "bell \x07"}, "control character"),
        ({"fix_plan": "half \ud800"}, "half a character"),
        ({"note": "more"}, "'note', which it must not have"),
    ],
)
def test_what_is_wrong_is_told(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(Malformed, match=re.escape(told)):
        read_reflection(said(**changes), FAILURE)


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{", '{"a": 1, "a": 2}', "NaN", '{"a": NaN}', "[" * 100_000, "1" * 5000, "{}"]
)
def test_what_is_no_object_is_malformed(text: str) -> None:
    with pytest.raises(Malformed):
        read_reflection(text, FAILURE)


def test_a_short_or_foreign_observation_can_be_quoted() -> None:
    for observation, evidence in (("17", "it only shows 17"), ("[]", "it returned []"),
                                  ("文件未找到：发票图片在桌面上", "它说：文件未找到：发票图片在桌面上")):  # fmt: skip
        failure = simple_failure(observation=observation)
        assert read_reflection(said(evidence=evidence), failure).evidence == evidence
    for part, told in (("未找到", "does not quote"), ("未找到：发票图片在桌面上", "quote all of it")):
        with pytest.raises(Malformed, match=told):
            read_reflection(said(evidence=part), simple_failure(observation="文件未找到：发票图片在桌面上"))


def test_a_line_that_failed_and_stays_may_be_named() -> None:
    failure = simple_failure(wrong='a = read("moon")\nb = read("eagle")', right='a = read("moon")\nb = read("bridge")')
    assert read_reflection(said(fix_plan='Keep a = read("moon") and take bridge.'), failure)
    with pytest.raises(Malformed, match="line of the corrected action"):
        read_reflection(said(fix_plan='Then b =  read("bridge") will do.'), failure)


def test_near_misses_are_filtered_one_by_one() -> None:
    situation = FAILURE.situation
    said = [("x", "read( 'bridge')"), ("Thought: Ann.", 'crop("a")'), ("y", "crop('a')")]
    text = json.dumps({"near_misses": [{"thought": thought, "code": code} for thought, code in said]})
    found = read_near_misses(text, situation, ErrorType.TOOL_MISMATCH)
    assert [(miss.thought, miss.code) for miss in found] == [("Ann.", 'crop("a")')]
    for kind, code, told in (
        (ErrorType.ARG_INVALID, "read(", "no Python"),
        (ErrorType.TOOL_MISMATCH, 'read("a")', "another tool"),
        (ErrorType.TOOL_MISMATCH, "1 + 1", "another tool"),
        (ErrorType.NON_COMMIT, "final_answer(3)", "final_answer"),
        (ErrorType.ARG_INVALID, 'read("bridge")', "same as the right action"),
        (ErrorType.ARG_INVALID, 'read("eagel")  # a typo', "says 'typo'"),
    ):
        with pytest.raises(Malformed, match=told):
            read_near_misses(json.dumps({"near_misses": [{"thought": "x", "code": code}]}), situation, kind)
    broken = json.dumps({"near_misses": [{"thought": "x", "code": 'read("bridge"'}]})
    assert [miss.code for miss in read_near_misses(broken, situation, ErrorType.CODE_ERROR)] == ['read("bridge"']


def test_the_failures_of_the_tests_are_many_and_different() -> None:
    made = some_failures(60)
    assert len({failure.situation.source_id + str(failure.situation.index) for failure in made}) == 60
    assert len({failure.near_miss.error_type for failure in made}) >= 3
    assert read_object('{"a": {"b": [1]}}') == {"a": {"b": [1]}}
