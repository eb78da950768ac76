"""Which fence is the action: whatever stands around it, what is executed is what is labelled as code."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regrpo_jax.agent.parse import parse_turn
from regrpo_jax.records.actions import extract_code, split_action
from regrpo_jax.records.fences import code_range, executable
from regrpo_jax.records.reflection import split_reflection

CALL = 'print(search("a"))'
QUOTES = ("```\nrm(1)\n```", "~~~\nold\n~~~", "```json\n{}\n```", "```text\nCode:\n```", "Code:\n```py\nfirst()\n```",
          "````\nCode:\n```py\nfirst()\n```\n````", "the page says ``` and\n", "```\nnever closed", "say `Code:` first",
          "the\nCode: 7 is wrong", "'''\n```py\nx\n```")  # fmt: skip
BODIES = (CALL, 'x = "```"', "x = '```'  # ```", '"""\n```\nCode:\n```py\nno()\n```\n"""', "'''Code:\n```'''",
          "if x:\n    y()", "x = 'Code:'", "a = '\\'```'\n\nb()", "def f():\n\n    return 1")  # fmt: skip
LABELS = ("Code:", "Code: ", "**Code:**", "### Code:", "code:", "Code :", "I call it. Code:", "Code:\n")
ENDS = ("", "\n", "\nThat is all.", "<end_action>", "\nCode:", "\n```\nmore words\n```", "  \n\n```py\nlater()\n```")


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.sampled_from(QUOTES), max_size=3),
    st.sampled_from(LABELS),
    st.sampled_from(("`", "~")),
    st.integers(3, 5),
    st.sampled_from(("py", "python", "Python ", "")),
    st.sampled_from(("", "  ", "\t")),
    st.sampled_from(BODIES),
    st.sampled_from(ENDS),
    st.sampled_from(("\n", "\r\n")),
)
def test_the_action_is_the_fence_after_the_last_label(
    quotes: list[str], label: str, kind: str, size: int, language: str, indent: str, body: str, end: str, line: str
) -> None:
    fence = kind * size
    lines = [f"{indent}{part}" for part in (f"{fence}{language}", *body.split("\n"), fence)]
    text = "\n".join(("Thought: go", *quotes, label, *lines)) + end
    text = text.replace("\n", line)
    parsed = parse_turn(text)
    # A common indentation is dropped, and with it the one inside strings, as Markdown has it.
    assert parsed.code.split() == body.split() and parsed.code[:1].strip()
    assert parsed.code.replace("\r", "").split("\n")[-1].rstrip() == body.split("\n")[-1].rstrip()
    assert text[parsed.action_start :].lstrip("#*> \t").lower().startswith("code")


PIECES = (*QUOTES, *BODIES, *LABELS,
          "```py\n", "```\n", "~~~\n", "````\n", "```", "\n", "\r\n", "Thought: ", "Reflection:\n",
          "'''", '"""', "#", "`")  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=6), max_size=12).map("".join))
@example("```py\n\n   \n```")
def test_what_is_executed_is_what_is_labelled(text: str) -> None:
    parsed = parse_turn(text)
    opening, action = split_reflection(text)
    start, end = code_range(action)
    assert parsed.code == extract_code(text) == extract_code(action) == split_action(text)[1]
    assert parsed.code == executable(action[start:end]) == executable(text[parsed.code_start : parsed.code_end])
    assert not parsed.code or (parsed.code_start, parsed.code_end) == (len(opening) + start, len(opening) + end)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Thought: x\nCode:\n```py\nocr('a')", ""),  # the tokens ran out
        ("Thought:\n```\nquote\n```\nCode:\n```py\nocr('a')", ""),
        ("Code:\n```py\nold()\n```\nCode:\n```py\nnew(", ""),
        ('Code:\n```py\nx = "a```', ""),
        ("Thought: I saw\n```\nrm()\n```\nso\n```py\nocr()\n```", "ocr()"),
        ("Code:\nHere it is:\n```py\nocr()\n```", "ocr()"),
        ("Code:\n```json\n{}\n```\n```py\nocr()\n```", "ocr()"),
        ("Code:\n```py\nocr()```", "ocr()"),
        ("Code: ```py\nocr()\n``` and then", "ocr()"),
        ("Code:\n```py\nfoo(\nCode:\n```py\nbar()\n```", "bar()"),
        ('Code:\n```py\nx = """never ended\n```\nwords', 'x = """never ended'),
        ("````py\na()\n```\nb()\n````", "a()\n```\nb()"),
        ("go on ```py\nocr()\n```", "ocr()"),
        ("go on ```\nocr()\n```", ""),
    ],
)
def test_of_odd_turns(text: str, code: str) -> None:
    assert extract_code(text) == code


def test_a_turn_that_only_repeats_itself_is_read_at_once() -> None:
    for text in ("Code:\n```py\n" * 5000, "`" * 50_000, "'''\n```\n" * 5000, "```py\n" * 5000 + "```"):
        assert parse_turn(text).text == text
