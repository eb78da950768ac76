"""The reflection block: what is written is read back, and nothing of a turn is ever lost by cutting it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.records import (
    ErrorType,
    Reflection,
    evidence_grounded,
    parse_reflection,
    quoted_span,
    render_reflection,
    split_reflection,
)
from regrpo_jax.records.reflection import cites_observation

ACTION = "Thought: again\n\nCode:\n```py\nocr('a')\n```"
PIECES = ["Reflection:", "Reflection:\n", "- ErrorType: ", "ArgInvalid\n", "- Evidence: ", "- FixPlan: "]
PIECES += ["Thought:", "\n", "```", " x"]
FIELD = (
    st.text(alphabet=st.characters(exclude_characters="\n"), min_size=1)
    .map(str.strip)
    .filter(lambda text: text and not text.startswith(("Thought:", "Code:", "```")))
)
REFLECTIONS = st.builds(Reflection, st.sampled_from(ErrorType), FIELD, FIELD)


def test_the_block_is_exactly_the_authors() -> None:
    assert render_reflection(Reflection(ErrorType.TOOL_MISMATCH, "E", "F")) == (
        "Reflection:\n- ErrorType: ToolMismatch\n- Evidence: E\n- FixPlan: F\n"
    )


@given(REFLECTIONS)
def test_what_is_rendered_is_parsed(reflection: Reflection) -> None:
    block = render_reflection(reflection)
    assert parse_reflection(block) == reflection
    assert parse_reflection(block + ACTION) == reflection
    assert split_reflection(block + ACTION) == (block, ACTION)
    assert split_reflection(block + "\n" + ACTION)[0] == block


@given(st.text() | st.lists(st.sampled_from(PIECES)).map("".join))
def test_cutting_loses_nothing(text: str) -> None:
    block, rest = split_reflection(text)
    assert block + rest == text
    assert parse_reflection(block) == parse_reflection(text)
    assert block == "" or block.startswith("Reflection:")


def test_a_field_may_have_several_lines_but_not_the_action() -> None:
    reflection = Reflection(ErrorType.CODE_ERROR, "Traceback:\n  line 3\n\nNameError: x", "Define x\nbefore use")
    block = render_reflection(reflection)
    assert parse_reflection(block + ACTION) == reflection
    assert split_reflection(block + ACTION) == (block, ACTION)
    hidden = f"Reflection:\n- ErrorType: ArgInvalid\n- Evidence: e\n{ACTION}\n- FixPlan: f\n"
    assert parse_reflection(hidden) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        ACTION,
        " " + render_reflection(Reflection(ErrorType.ARG_INVALID, "e", "f")),
        "Reflection:\n- ErrorType: None\n- Evidence: e\n- FixPlan: f\n",
        "Reflection:\n- ErrorType: arginvalid\n- Evidence: e\n- FixPlan: f\n",
        "Reflection:\n- ErrorType: ArgInvalid\n- Evidence:  \n- FixPlan: f\n",
        "Reflection:\n- ErrorType: ArgInvalid\n- Evidence: e\n- FixPlan: \n",
        "Reflection:\n- ErrorType: ArgInvalid\n- FixPlan: f\n- Evidence: e\n",
        "Reflection:\n- ErrorType: ArgInvalid\n- Evidence: e\n",
    ],
)
def test_parsing_is_strict(text: str) -> None:
    assert parse_reflection(text) is None


def test_a_misspelt_block_still_counts_as_reflection() -> None:
    broken = "Reflection:\n- ErrorType: ArgInvalid\n- Evidence: long talk\n- Plan: f\n"
    assert split_reflection(broken + ACTION) == (broken, ACTION)
    assert split_reflection(broken) == (broken, "")
    unknown = "Reflection:\n- ErrorType: None\n- Evidence: e\n- FixPlan: f\n"
    assert split_reflection(unknown + ACTION) == (unknown, ACTION)


def test_a_turn_without_a_block_is_left_alone() -> None:
    for text in (ACTION, "Reflection: I should think.", "My Reflection:\n- ErrorType: ArgInvalid"):
        assert split_reflection(text) == ("", text)


def test_grounding_follows_the_release() -> None:
    assert evidence_grounded("says FILE NOT anything", "file gone")  # a token of 4 letters inside the evidence
    assert evidence_grounded("ab cd", "ab, cd!")  # two short tokens shared
    assert not evidence_grounded("ab only", "ab, cd!")
    assert not evidence_grounded("the argument is wrong", "No results")
    assert not evidence_grounded("", "text") and not evidence_grounded("text", "")
    assert not evidence_grounded("It returned '[]'", "[]")


def test_a_whole_quotation_grounds_what_the_release_cannot_read() -> None:
    assert cites_observation("It returned '[]'", "[]\n")
    assert cites_observation("it says 没有结果 only", "没有结果")
    assert not cites_observation("It is empty", "[]") and not cites_observation("It is empty", "  ")


@pytest.mark.parametrize(
    ("evidence", "observation", "span"),
    [
        ("It said 'file  not FOUND', so", "Error: File not\nfound: a.csv", "File not\nfound"),
        ("art", "start of an artful part", ""),
        ("a cat and a dog sat", "the dog sat; a cat and the", "a cat and"),
        ("看到没有结果了", "查询：没有结果", "没有结果"),
        ("", "abc", ""),
        ("abc", "", ""),
    ],
)
def test_quoted_span(evidence: str, observation: str, span: str) -> None:
    assert quoted_span(evidence, observation) == span


@given(st.text(), st.text(), st.text())
def test_the_span_stands_in_the_observation(left: str, quote: str, right: str) -> None:
    observation = f"{left} {quote} {right}"
    span = quoted_span(f"it says: {quote} - so there", observation)
    assert span in observation
    assert len("".join(span.split())) >= len("".join(quote.split()))
