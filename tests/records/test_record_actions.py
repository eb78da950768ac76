"""Code, tool calls and the sameness of actions, on text that models really write."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.records import (
    KNOWN_TOOLS,
    action_signature,
    actions_equivalent,
    extract_code,
    extract_tool_calls,
    primary_tool,
    split_action,
)


@pytest.mark.parametrize("fence", ["```py", "```python", "```", "```Python "])
def test_code_of_each_kind_of_fence(fence: str) -> None:
    text = f"Thought: go\n\nCode:\n{fence}\nsearch('a')\n```\nand ```py\nsearch('b')\n```"
    assert extract_code(text) == "search('a')"


def test_other_languages_and_open_fences_hold_no_code() -> None:
    assert extract_code('```json\n{"a": 1}\n```\nthen\n```py\nocr("a.png")\n```') == 'ocr("a.png")'
    assert extract_code('```json\n{"a": 1}\n```') == ""
    assert extract_code("```py\nocr('a.png')") == ""
    assert extract_code("no code at all") == ""


def test_windows_line_ends_and_indented_blocks() -> None:
    assert extract_code("Code:\r\n```py\r\nocr('a')\r\n```") == "ocr('a')"
    indented = extract_code("- step\n  ```py\n  for path in paths:\n      ocr(path)\n  ```")
    assert indented == "for path in paths:\n    ocr(path)"


@given(st.text(alphabet=st.characters(exclude_characters="`")), st.sampled_from(["py", "python", ""]))
def test_fenced_code_comes_back(code: str, language: str) -> None:
    body = "x = 1\n" + code + "\nx"
    assert extract_code(f"Thought: t\nCode:\n```{language}\n{body}\n```\nafter") == body


def test_split_action_drops_labels_and_the_reflection() -> None:
    block = "Reflection:\n- ErrorType: ArgInvalid\n- Evidence: e\n- FixPlan: f\n"
    action = "Thought: read it again\n\nCode:\n```py\nocr('a')\n```"
    assert split_action(action) == ("read it again", "ocr('a')")
    assert split_action(block + action) == ("read it again", "ocr('a')")
    assert split_action("I think the answer is 3.") == ("I think the answer is 3.", "")


def test_tool_calls_come_in_source_order_with_their_arguments() -> None:
    code = (
        "a = ask_search_agent(query='who', k=2)\n"
        "final_answer(visualizer(image_path = \"x.jpg\", *more, **rest)); search('z')\n"
    )
    calls = extract_tool_calls(code)
    assert [call.name for call in calls] == ["ask_search_agent", "final_answer", "visualizer", "search"]
    assert [call.line for call in calls] == [1, 2, 2, 2]
    assert calls[0].keywords == (("query", "'who'"), ("k", "2"))
    assert calls[2].arguments == ("*more",)
    assert calls[2].keywords == (("image_path", "'x.jpg'"), ("**", "rest"))


@given(st.lists(st.sampled_from(sorted(KNOWN_TOOLS)), max_size=6))
def test_order_is_that_of_the_source(names: list[str]) -> None:
    code = "".join(f"if True:\n    r = [{name}('a')]\n" if len(name) % 2 else f"{name}('a')\n" for name in names)
    assert [call.name for call in extract_tool_calls(code)] == names


def test_a_method_of_something_the_code_made_is_no_tool() -> None:
    code = "import re\nimage = open_image('a')\nre.search('a', 'b')\nimage.crop(1)\ntools.crop('a.png')\n"
    assert [call.arguments for call in extract_tool_calls(code)] == [("'a.png'",)]


def test_a_given_set_of_tools_replaces_the_known_ones() -> None:
    code = "mine('a')\nsearch('b')"
    assert [call.name for call in extract_tool_calls(code, frozenset({"mine"}))] == ["mine"]


@pytest.mark.parametrize("code", ["def", "search('a'", "\x00", "\ud800", "(" * 5000, "-" * 100_000 + "1", "'\\d'"])
def test_code_that_is_not_python_has_no_calls(code: str) -> None:
    assert extract_tool_calls(code) == ()


@given(st.text())
def test_no_text_breaks_the_readers(text: str) -> None:
    assert isinstance(extract_code(text), str)
    assert actions_equivalent(text, text) and actions_equivalent(text, text, strict=False)
    assert all(call.name in KNOWN_TOOLS for call in extract_tool_calls(text))


def test_primary_tool() -> None:
    assert primary_tool(extract_tool_calls("ocr('a'); search('b'); final_answer('c')")) == "search"
    assert primary_tool(extract_tool_calls("final_answer('c')")) == "final_answer"
    assert primary_tool(()) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("search('a')", 'search( "a" )  # a comment'),
        ("ocr(path='a', k=1)", "ocr(k=1, path='a')"),
        ("search('a' 'b')", "search('ab')"),
        ("path = 'a.jpg'\nprint(ocr(path))", "ocr('a.jpg')"),
        ("Thought: one\n```py\nsearch('a')\n```", "Thought: another\nCode:\n```python\nsearch('a')\n```"),
        ("r = search('a')\nprint(r)", "print(search('a'))"),
        ("no code, cut (", " no code, cut ( "),
        ("x = 1+1", "x = 1 + 1"),
    ],
)
def test_actions_that_do_the_same(first: str, second: str) -> None:
    assert actions_equivalent(first, second)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("visualizer('q', 'a.jpg', bbox=[1, 2])", "visualizer('q', 'a.jpg', bbox=[1, 3])"),
        ("search('a')", "search('A')"),
        ("search('a')", "ask_search_agent('a')"),
        ("search('a'); search('b')", "search('b'); search('a')"),
        ("q = make(1)\nsearch(q)", "q = make(2)\nsearch(q)"),
        ("q = 'a'\nq = 'b'\nsearch(q)", "q = 'b'\nq = 'a'\nsearch(q)"),
        ("for q in ['a']:\n    search(q)", "for q in ['b']:\n    search(q)"),
        ("x = 1", "x = 2"),
        ("search('a'", "search('b'"),
        ("search('a')", "search('a'"),
    ],
)
def test_actions_that_differ(first: str, second: str) -> None:
    assert not actions_equivalent(first, second)
    assert action_signature(first) != action_signature(second)


def test_the_release_compares_the_first_tool_and_first_argument_only() -> None:
    assert actions_equivalent("visualizer('Q ', bbox=[1])", "visualizer('q', bbox=[2])", strict=False)
    assert actions_equivalent("ask_search_agent(query='a')", "ask_search_agent('a')", strict=False)
    assert actions_equivalent("ocr(name)", "ocr(NAME)", strict=False)
    assert actions_equivalent("prose", "other prose", strict=False)
    assert not actions_equivalent("search('a')", "search('b')", strict=False)
    assert not actions_equivalent("search()", "search('b')", strict=False)
