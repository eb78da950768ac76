"""What calls of others returned is read off what was printed, where it can be read in one way, and never guessed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.engine.recorded_calls import RecordedCalls, recorded_calls
from regrpo_jax.records.types import Observation, Status, Step

ARGUMENTS = {"see": ["question", "image_path"], "find": ["object", "image_path"], "search": ["query"]}
SEE = 'see("q", "a.jpg")'


def read(*steps: tuple[str, str | None], answer: str = "the answer") -> RecordedCalls:
    found = [
        Step(at, "", code, (), None if said is None else Observation(Status.OK, said), None, "")
        for at, (code, said) in enumerate(steps)
    ]
    return recorded_calls(found, answer, ARGUMENTS, frozenset({"see", "search"}))


def framework(text: str, last: str = "None") -> str:
    return f"Print outputs:\n{text}\nLast output from code snippet:\n{last}"


TOLD: dict[str, tuple[list[tuple[str, str | None]], list[Any]]] = {
    "printed": ([(f"a = {SEE}\nprint(a)", framework("A cat.\nIt sits."))], ["A cat.\nIt sits."]),
    "printed without a framework": ([(f"print({SEE})", "A cat.")], ["A cat."]),
    "the last value": ([(SEE, "A cat.")], ["A cat."]),
    "the last value of a framework": ([(SEE, framework("", "A cat."))], ["A cat."]),
    "a label": ([(f'print("It says:", {SEE}, sep=" ")', "It says: A cat.")], ["A cat."]),
    "an f-string": ([(f"a = {SEE}\nprint(f'<{{a}}>')", "<A cat.>")], ["A cat."]),
    "a text that is put together": ([(f'print("It is " + {SEE} + "!")', "It is a cat!")], ["a cat"]),
    "a number that stays a text": ([(f"print({SEE})", "3")], ["3"]),
    "a list": ([('print(find("dog", "a.jpg"))', "[[1, 2, 3, 4]]")], [[[1, 2, 3, 4]]]),
    "a list beside what is unknown": ([('b = find("dog", "a")\nprint("b:", b, len(b))', "b: [[1, 2]] 1")], [[[1, 2]]]),
    "a loop": (
        [('for n, p in enumerate(["a", "b"], 1):\n    print(f"Image {n}: {see(\'q\', p)}")', "Image 1: x\nImage 2: y")],
        ["x", "y"],
    ),
    "a list of results": (
        [('r = [see(q, "a") for q in ("x", "y")]\nprint(r)', "['A cat', \"it's\"]")],
        ["A cat", "it's"],
    ),
    "a list that grows": (
        [('r = []\nfor p in ["a", "b"]:\n    r.append(see("q", p))\nprint(", ".join(r))', "x, y")],
        ["x", "y"],
    ),
    "a later step prints it": ([(f"a = {SEE}", framework("")), ("print(a)", "A cat.")], ["A cat."]),
    "printed twice": ([(f'a = {SEE}\nprint(a)\nprint("again", a)', "A cat.\nagain A cat.")], ["A cat."]),
    "it is the answer": ([("print(1)", "1"), (f"final_answer({SEE})", None)], ["the answer"]),
    "a variable is the answer": ([(f"a = {SEE}\nfinal_answer(a)", None)], ["the answer"]),
    "a result is an argument": (
        [(f"a = {SEE}\nprint(a)", "Ana"), ('print(search(query="Who is " + a))', "A painter.")],
        ["Ana", "A painter."],
    ),
    "an import and a branch that is known": (
        [(f'import re\nx = 1\nif x:\n    print({SEE})\nelse:\n    print("no")', "A cat.")],
        ["A cat."],
    ),
    "a dict": ([(f'd = {{"first": {SEE}}}\nprint(d["first"])', "A cat.")], ["A cat."]),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "results"), TOLD.values(), ids=TOLD.keys())
def test_results_that_the_observations_tell(steps: list[tuple[str, str | None]], results: list[Any]) -> None:
    found = read(*steps)
    assert [one.result for one in found.recordings] == results
    assert not found.unknown


UNTOLD: dict[str, list[tuple[str, str | None]]] = {
    "two that could be cut anywhere": [('print(see("q", "a"))\nprint(see("q", "b"))', "x\ny\nz")],
    "nothing between them": [('print(see("q", "a"), end="")\nprint(see("q", "b"))', "xy")],
    "other words": [(f'print("It says:", {SEE})', "It is: A cat.")],
    "only a part is printed": [(f"print({SEE}[:3])", "A c")],
    "only a decision": [(f'if "cat" in {SEE}:\n    print("yes")', "yes")],
    "only its length": [('print(len(find("dog", "a")))', "2")],
    "a loop of unknown length": [('import os\nfor p in os.listdir("."):\n    print(see("q", p))', "x")],
    "a function": [(f"def look():\n    return {SEE}\nprint(look())", "x")],
    "an argument that is computed": [('import time\nprint(see(str(time.time()), "a"))', "x")],
    "arguments with a star": [('print(see(*["q", "a"]))', "x")],
    "printed twice and not the same": [(f"a = {SEE}\nprint(a)\nprint('-')\nprint(a)", "x\n-\ny")],
    "nothing was observed": [(f"print({SEE})", None)],
}


@pytest.mark.parametrize("steps", UNTOLD.values(), ids=UNTOLD.keys())
def test_what_is_not_told_is_not_recorded(steps: list[tuple[str, str | None]]) -> None:
    found = read(*steps, answer="")
    assert not found.recordings
    assert found.unknown


WORDS = st.text("ab \n.", max_size=8).map(str.strip)


@given(st.lists(WORDS, min_size=1, max_size=4))
def test_what_is_recorded_would_have_been_printed(results: list[str]) -> None:
    paths = [f"{at}.jpg" for at in range(len(results))]
    code = f"for p in {paths}:\n    print(p, '=', see('q', p))"
    said = "\n".join(f"{path} = {words}" for path, words in zip(paths, results, strict=True))
    known = {one.arguments["image_path"]: one.result for one in read((code, said)).recordings}
    for path, words in zip(paths, results, strict=True):
        assert known.get(path, words).strip() == words  # the observation's ends are bare


@pytest.mark.parametrize(
    "code",
    ["while True:\n    x = 1", "x = 'a'\nfor i in range(60):\n    x = x + x",
     "x = 2\nfor i in range(60):\n    x = x * x",
     "l = []\nl.append(l)\nprint(l)", "x = " + "(" * 150 + "1" + ")" * 150,
     "for a in range(60):\n    for b in range(60):\n        for c in range(60):\n            x = a",
     "x = [1]\nfor i in range(60):\n    x = x + x"],
    ids=["loop", "text", "number", "itself", "nested", "rounds", "list"],
)  # fmt: skip
def test_code_of_others_costs_little(code: str) -> None:
    found = read((f"{code}\nprint({SEE})", "x"))
    assert {one.result for one in found.recordings} <= {"x"}


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_code_and_no_observation_breaks_it(code: str, said: str) -> None:
    read((code, said), (f"print({SEE}, {code!r})", said))
