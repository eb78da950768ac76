"""What differs between two actions, as a table, and the clauses that observations are cut into."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.records import ChangeKind, action_signature, actions_equivalent, difference
from regrpo_jax.records.clauses import clauses, holds_value, values_in
from regrpo_jax.records.confession import confession
from regrpo_jax.records.reflection import telling_span

TOOLS = frozenset({"read", "pick", "count", "sheet", "crop", "final_answer"})
K = ChangeKind
# failed, corrected, [(kind, place, old, new)]
TABLE = [
    ('read("a")', "print(read('a'))", []),
    ('read("a")', 'read("b")', [(K.ARGUMENT, "1", "a", "b")]),
    ('read("a")', 'pick("a")', [(K.TOOL, "", "read", "pick")]),
    ('reed("a")', 'read("a")', [(K.TOOL, "", "reed", "read")]),
    ('count("red")', 'count("square", "red")', [(K.ADDED, "1", "", "square")]),
    ('count("red", "x")', 'count("red")', [(K.REMOVED, "2", "x", "")]),
    ('count("a", "b")', 'count("b", "a")', [(K.ARGUMENT, "1", "a", "b"), (K.ARGUMENT, "2", "b", "a")]),
    ('crop("a", box=[1, 2])', 'crop("a", box=[3, 4])', [(K.ARGUMENT, "box", "[1, 2]", "[3, 4]")]),
    ('crop("a", box=[1, 2])', 'crop("a")', [(K.REMOVED, "box", "[1, 2]", "")]),
    ('read(nmae="a")', 'read(name="a")', [(K.RENAMED, "name", "nmae", "name")]),
    ('sheet("a")["rent"]', 'sheet("a")["delta"]', [(K.KEY, "", "rent", "delta")]),
    ('read("a").text', 'read("a")', [(K.REMOVED, "", "text", "")]),
    ('sheet("a")', 'sheet("a")["x"]', [(K.ADDED, "", "", "x")]),
    ('"17"', 'final_answer("17")', [(K.ANSWER, "", "", "17")]),
    ('read("a"', 'read("a")', [(K.CODE, "", "", "")]),
    ('x = read("a")\nprint(y)', 'x = read("a")', []),  # the calls agree, which is all that is compared
    ('read("a")\nread("b")', 'read("b")', [(K.CODE, "", "", "")]),
]  # fmt: skip


@pytest.mark.parametrize(("failed", "corrected", "changes"), TABLE)
def test_differences(failed: str, corrected: str, changes: list[tuple[ChangeKind, str, str, str]]) -> None:
    found = difference(failed, corrected, TOOLS)
    assert [(change.kind, change.place, change.old, change.new) for change in found.changes] == changes
    assert found.new_values == tuple(new for *_, new in changes if new)


ACTION = st.sampled_from([row[index] for row in TABLE for index in (0, 1)])


@given(ACTION, ACTION)
def test_there_is_a_difference_exactly_where_actions_differ(first: str, second: str) -> None:
    same = actions_equivalent(first, second, tools=TOOLS)
    assert (difference(first, second, TOOLS).changes == ()) == same


def test_what_is_taken_of_a_result_belongs_to_the_action() -> None:
    assert not actions_equivalent('sheet("a")["x"]', 'sheet("a")["y"]', tools=TOOLS)
    assert not actions_equivalent("ocr('a')[0]", "ocr('a')")
    assert actions_equivalent("print(ocr('a')[0].strip())", "x = ocr('a')[0].strip()")
    assert action_signature("ocr(search('a')[0])[1]") == ("calls", "ocr(search('a')[0])[1]", "search('a')[0]")


EAGLE = 'Error at `read("eagle")`: NotFound. "Delhi" is "Leo", "Rome" is "Ann". 2 in "Oslo", 1 in "Bern".'


def test_clauses_of_real_observations() -> None:
    assert clauses(EAGLE) == ("NotFound", '"Delhi" is "Leo"', '"Rome" is "Ann"', '2 in "Oslo"', '1 in "Bern"')
    assert clauses('"count" wants "shape", then "colour".') == ('"count" wants "shape", then "colour"',)
    assert clauses("Error: File not found: a.csv\nTools: read, pick.") == ("File not found: a.csv", "Tools: read, pick")
    assert clauses("Print outputs:\n3.5 kg, not 4\nLast output from code snippet is:\nNone") == (
        "3.5 kg, not 4",
        "None",
    )
    assert clauses('Error at `read("eagle")`:') == clauses("") == clauses(" .\n") == ()
    assert values_in("2 in \"Oslo\", it's 'a b'") == ("2", "Oslo", "a b")


@given(st.text(alphabet="ab\"'`,.:\n 1") | st.text())
def test_every_clause_is_a_span_of_its_observation(text: str) -> None:
    found = clauses(text)
    assert all(clause in text and clause == clause.strip() for clause in found)
    assert all(holds_value(clause, value) for clause in found for value in values_in(clause))


@pytest.mark.parametrize(
    ("evidence", "observation", "span"),
    [
        ('no "blue" card', 'Empty. no "blue" card.', 'no "blue" card'),
        ("it says file NOT found here", "File not found: a", "File not found"),
        ("the value 48 came back", "48", "48"),
        ("it returned '[]'", "[]", "[]"),
        ("found", "File not found: a", ""),
        ("a b", "a b c", ""),
        ("anything", "", ""),
    ],
)
def test_spans_of_useful_length(evidence: str, observation: str, span: str) -> None:
    assert telling_span(evidence, observation) == span


def test_confessions() -> None:
    action = "Thought: {}\n\nCode:\n```py\nread('{}')  # {}\n```"
    assert confession(action.format("I will read the wrong file.", "a", "now")) == "wrong"
    assert confession(action.format("Read it.", "a", "a typo")) == "typo"
    assert confession(action.format("Read what went well.", "wrong.txt", "now")) == ""
    assert confession(action.format("Find the wrong sum.", "a", "now"), "Task: which sum is wrong?") == ""
