"""ReAct turns become the code that does the same; whatever has another form stays what it is."""

from __future__ import annotations

import ast
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.records import extract_tool_calls
from regrpo_jax.records.react_turns import react_action

BLOB = '{"action": "ocr", "action_input": {"image": "a"}}'
TURNS = {
    "an object": ('Thought: I read.\nAction: ocr\nAction Input: {"image": "a.png"}', "print(ocr(image='a.png'))"),
    "words": ("Thought: I read.\nAction: search\nAction Input: tall towers", "print(search('tall towers'))"),
    "a text in quotes": ('Thought: I read.\nAction: search\nAction Input: "towers"', "print(search('towers'))"),
    "stop word": ('Thought: I read.\nAction: ocr\nAction Input: {"image": "a"}\nObservation:', "print(ocr(image='a'))"),
    "fence": ('Thought: I read.\nAction: ocr\nAction Input:\n```json\n{"image": "a"}\n```', "print(ocr(image='a'))"),
    "blob": (f"Thought: I read.\nAction:\n{BLOB}<end_action>", "print(ocr(image='a'))"),
    "fenced blob": (f"Thought: I read.\nAction:\n```json\n{BLOB}\n```", "print(ocr(image='a'))"),
    "a keyword": ('Thought: I read.\nAction: ocr\nAction Input: {"class": 1}', "print(ocr({'class': 1}))"),
    "no input": ("Thought: I read.\nAction: list_files", "print(list_files())"),
    "lines": ("Thought: I read.\nAction: search\nAction Input: one\ntwo", "print(search('one\\ntwo'))"),
    "a list": ("Thought: I read.\nAction: solver\nAction Input: [1, 2]", "print(solver([1, 2]))"),
    "final": ("Thought: I read.\nFinal Answer: It is 4.", "final_answer('It is 4.')"),
    "final tool": ('Thought: I read.\nAction: final_answer\nAction Input: {"answer": 4}', "final_answer(4)"),
    "finish": ("Thought: I read.\nAction: Finish\nAction Input: 4", "final_answer(4)"),
    "backticks": ("Thought: I read.\nAction: `ocr`\nAction Input: {}", "print(ocr())"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "code"), TURNS.values(), ids=TURNS.keys())
def test_a_turn_becomes_code(text: str, code: str) -> None:
    assert react_action(text) == ("I read.", code)


@pytest.mark.parametrize(
    "text",
    ["", "Thought: hm.", "I say Action: nothing", "Thought: x\nAction: two words\nAction Input: y",
     "Thought: x\nAction:\nAction Input: y", "Action: pass", "Thought: x\n\nCode:\n```py\nprint(1)\n```"],
)  # fmt: skip
def test_other_turns_are_none(text: str) -> None:
    assert react_action(text) is None


PLAIN = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()


@given(st.dictionaries(st.from_regex(r"[a-z]{1,5}_x", fullmatch=True), PLAIN, max_size=4))
def test_arguments_come_through(given_ones: dict[str, object]) -> None:
    found = react_action(f"Thought: t\nAction: ocr\nAction Input: {json.dumps(given_ones)}")
    assert found is not None
    [call] = extract_tool_calls(found[1])
    assert {name: ast.literal_eval(source) for name, source in call.keywords} == given_ones


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    for turn in (text, f"Action: {text}", f"Thought: x\nAction: a\nAction Input: {text}", f"Final Answer: {text}"):
        found = react_action(turn)
        assert found is None or isinstance(ast.parse(found[1]), ast.Module)
