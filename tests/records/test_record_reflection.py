"""The reflection block: what is written is read back, and nothing of a turn is ever lost by cutting it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.agent.parse import parse_turn
from regrpo_jax.agent.rollout import Label
from regrpo_jax.agent.token_book import labels_of
from regrpo_jax.data.chat import Segment, _labelled_parts
from regrpo_jax.records import (
    ErrorType,
    Reflection,
    evidence_grounded,
    parse_reflection,
    quoted_span,
    render_reflection,
    split_reflection,
)
from regrpo_jax.records.reflection import cites_observation, reflection_ranges

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
    assert block == "" or "reflection" in block.lower() or "ErrorType:" in block


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
    for text in (ACTION, "Reflections of light help.", "My reflection: none", "Thought: Reflection: none"):
        assert split_reflection(text) == ("", text)
        assert reflection_ranges(text) == ()
    in_code = ACTION.replace("ocr('a')", 'print("""\nReflection:\n- ErrorType: x\n""")')
    assert reflection_ranges(in_code) == ()


HEADINGS = (
    *("Reflection:", "Reflection: ", "**Reflection:**", "**Reflection**:", "### Reflection", "# Reflection:"),
    *("reflection:", "REFLECTION:", "> Reflection:", "- Reflection:", "1. Reflection:", "Reflection：", "Reflections:"),
    *("_Reflection:_", "Reflection: I was wrong.", "Self-reflection:", "<reflection>", "Reflection :", "  Reflection:"),
)
BODY = "- ErrorType: ArgInvalid\n- Evidence: the file\n- FixPlan: another file\n"


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(HEADINGS),
    st.sampled_from(("", "\n", "\n\n", " \n", "\ufeff", "---\n")),
    st.sampled_from(
        (BODY, BODY.replace("- ", "* "), "- ErrorType:ArgInvalid\n", "I read the wrong file.\n", "\n" + BODY)
    ),
    st.sampled_from(("", "\n")),
    st.sampled_from(("\n", "\r\n")),
)
def test_every_variant_of_a_heading_is_charged(heading: str, before: str, body: str, gap: str, line: str) -> None:
    block = f"{before}{heading}\n{body}{gap}".replace("\n", line)
    text = block + ACTION.replace("\n", line)
    found, rest = split_reflection(text)
    assert found.rstrip() == block.rstrip() and rest.lstrip() == ACTION.replace("\n", line)
    parsed = parse_turn(text)
    assert parsed.code == "ocr('a')" and parsed.reflects
    assert parsed.malformed == (parse_reflection(text) is None)
    assert parsed.malformed == ((heading, before, body, line) != ("Reflection:", "", BODY, "\n"))


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(("", "Reflection:\n" + BODY, "Reflection:\n" + BODY + "\n")),
    st.sampled_from(HEADINGS + ("",)),
    st.sampled_from((BODY, "Again I was wrong.\n")),
    st.sampled_from(("first", "thought", "end")),
)
def test_a_second_block_is_charged_wherever_it_stands(first: str, heading: str, body: str, where: str) -> None:
    if not heading and body != BODY:
        return
    second = f"{heading}\n{body}" if heading else body
    text = {
        "first": first + second + ACTION,
        "thought": first + "Thought: so\n" + second + ACTION.removeprefix("Thought: again\n"),
        "end": first + ACTION + "\n" + second,
    }[where]
    parsed = parse_turn(text)
    charged = "".join(text[start:end] for start, end in parsed.reflections)
    assert "".join(charged.split()) == "".join((first + second).split())
    assert parsed.malformed or (not first and where == "first" and heading == "Reflection:")
    assert ("second_reflection" in parsed.problems) == bool(first)
    labels = labels_of(parsed, np.arange(len(text)))
    trained = [kind for part, kind, _ in _labelled_parts(text) for _ in part]
    np.testing.assert_array_equal(labels == Label.REFLECTION, np.array(trained) == Segment.REFLECTION)
    assert parsed.code == "ocr('a')" and "ocr" not in charged


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
