"""A turn cut into its parts: whatever a policy writes, the code that runs is the code that is labelled."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regrpo_jax.agent.parse import parse_turn
from regrpo_jax.records.actions import extract_code, split_action
from regrpo_jax.records.reflection import parse_reflection, split_reflection

ACTION = 'Thought: open it.\n\nCode:\n```py\nread("a.txt")\n```'
BLOCK = 'Reflection:\n- ErrorType: ArgInvalid\n- Evidence: "a" is "b"\n- FixPlan: read b.\n'
FIELDS = ("Reflection:\n", "- ErrorType: None\n", "- Evidence: x\n", "- FixPlan: y\n", "Thought: ", "Code:\n")
PIECES = st.sampled_from((*FIELDS, "```py\n", "```", "\n", " ", "x = 1\n", "  y\n", "```json\n", "\r\n", "思考"))
TURNS = st.lists(PIECES | st.text(max_size=8), max_size=12).map("".join)


@settings(max_examples=500, deadline=None)
@given(TURNS)
@example("```py\n\n   \n```")
@example("Reflection:")
def test_the_parts_are_those_that_run_and_that_pay(text: str) -> None:
    parsed = parse_turn(text)
    block, _ = split_reflection(text)
    assert text[: parsed.reflection_end] == block
    assert parsed.code == extract_code(split_reflection(text)[1]) == split_action(text)[1]
    code = text[parsed.code_start : parsed.code_end]
    assert parsed.code in (code, textwrap.dedent(code))
    assert parsed.reflection_end <= parsed.action_start <= parsed.code_start <= parsed.code_end <= len(text)
    assert ("no_code" in parsed.problems) == (not parsed.code.strip())
    known = parse_reflection(text)
    if known is not None:
        fields = (parsed.error_type, parsed.evidence, parsed.fix_plan)
        assert not parsed.malformed and fields == (known.error_type, known.evidence, known.fix_plan)
    assert parsed.malformed == ("malformed_reflection" in parsed.problems)


def test_a_turn_as_it_should_be_has_no_problem() -> None:
    parsed = parse_turn(BLOCK + ACTION)
    assert (parsed.problems, parsed.thought, parsed.code) == ((), "open it.", 'read("a.txt")')
    assert (parsed.error_type, parsed.evidence, parsed.fix_plan) == ("ArgInvalid", '"a" is "b"', "read b.")
    assert (BLOCK + ACTION)[parsed.action_start :].startswith("Code:")


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        (BLOCK.replace("ArgInvalid", "None") + ACTION, ()),
        (BLOCK.replace("ArgInvalid", "Oddity") + ACTION, ("malformed_reflection",)),
        (BLOCK.replace("read b.", "") + ACTION, ("malformed_reflection",)),
        (BLOCK.replace("- Evidence", "- Because") + ACTION, ("malformed_reflection",)),
        (
            BLOCK + "Thought: x\nReflection:\nagain\n" + ACTION.removeprefix("Thought: open it.\n"),
            ("malformed_reflection", "second_reflection"),
        ),
        (ACTION.replace("Thought: ", ""), ("no_thought",)),
        ("Thought: only.", ("no_code",)),
        ("Thought: open.\n```py\nread(", ("no_code",)),
        (ACTION.replace("Code:\n", ""), ("no_code_label",)),
        (ACTION + "\n```py\nmore()\n```", ("several_codes",)),
        (ACTION + "\nSo it is.", ("words_after_code",)),
    ],
)
def test_problems_are_named(text: str, problems: tuple[str, ...]) -> None:
    assert parse_turn(text).problems == problems
