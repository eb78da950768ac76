"""Complexity counted by hand on observations of the compact suite, and what must hold of it always."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.records import ErrorType, Reflection, complexity, complexity_score, record_complexity, rot_from_dict

TOOLS = frozenset({"read", "parse", "pick", "load", "scan", "file", "crop", "sheet", "final_answer"})
EAGLE = 'Error at `read("eagle")`: NotFound. "Milan" is "Max", "Delhi" is "Leo". "Ann" at "bridge", "Leo" at "tiger".'
PARSE = 'Error at `parse("oak")`: Unavailable. "oak" is "csv". Use "json" in "scan", "xml" in "load", "csv" in "pick".'
BALLOT = 'Error at `file("1 or 2")`: Undecided. "final" is "Rome", "Rome" is "Pam", "Cairo" is "Kim".'
VOTES = '"11" by "Pam", "46" by "Kim".'
# failed, corrected, observation, evidence, earlier, (candidates, steps_back)
COUNTED = {
    "two hops": ('read("eagle")', 'read("tiger")', EAGLE, '"Delhi" is "Leo"', (), (2, 2)),
    "the fix itself is quoted": ('read("eagle")', 'read("tiger")', EAGLE, '"Leo" at "tiger"', (), (2, 1)),
    "another tool": ('parse("oak")', 'pick("oak")', PARSE, '"oak" is "csv"', (), (3, 2)),
    "told a step before": ('file("1 or 2")', 'file("11")', BALLOT, '"final" is "Rome"', (VOTES,), (2, 4)),
    "told two steps before": ('file("1 or 2")', 'file("11")', BALLOT, '"final" is "Rome"', (VOTES, "ok"), (2, 5)),
    "seen in the picture": ('crop("up")', 'crop("low")', 'Empty. nothing at "up".', 'nothing at "up"', (), (1, 0)),
    "same names, other order": ('read("a", "b")', 'read("b", "a")', 'no "a" at "b".', 'no "a" at "b"', (), (1, 0)),
    "code mended": ('read("eagle"', 'read("eagle")', "SyntaxError: never closed", "never closed", (), (1, 0)),
}  # fmt: skip


@pytest.mark.parametrize("case", COUNTED)
def test_counted_by_hand(case: str) -> None:
    failed, corrected, observation, evidence, earlier, counts = COUNTED[case]
    found = complexity(
        failed, corrected, observation, Reflection(ErrorType.ARG_INVALID, evidence, "two words"), earlier, TOOLS
    )
    assert (found.candidates, found.steps_back) == counts
    assert found.length == len(evidence.split()) + 2
    assert found.score == complexity_score(found.candidates, found.steps_back, found.length)


COUNT = st.integers(0, 10_000)


@given(COUNT, COUNT, COUNT)
def test_the_score_grows_with_each_count(candidates: int, steps_back: int, length: int) -> None:
    score = complexity_score(candidates + 1, steps_back, length)
    assert 0 <= score < 1
    assert complexity_score(candidates + 2, steps_back, length) >= score
    assert complexity_score(candidates + 1, steps_back + 1, length) >= score
    assert complexity_score(candidates + 1, steps_back, length + 1) >= score
    assert complexity_score(1, 0, 0) == 0 < complexity_score(2, 0, 0)


WORDS = st.lists(st.sampled_from(['"a"', '"b"', "is", "at", ",", ".", "3", "\n", "read", "Error:", "`"])).map(" ".join)
CODE = st.sampled_from(['read("a")', 'read("b")', 'pick("a")', 'read("b", 3)', "read(", 'final_answer("b")', "x = 1"])


@given(CODE, CODE, WORDS, WORDS, st.lists(WORDS, max_size=3))
def test_any_texts_have_a_complexity(failed: str, right: str, text: str, evidence: str, earlier: list[str]) -> None:
    found = complexity(failed, right, text, Reflection(ErrorType.ARG_INVALID, evidence, "x"), earlier, TOOLS)
    assert found.candidates >= 1 and found.steps_back >= 0 and 0 <= found.score < 1


def test_a_record_is_measured_with_its_own_observations(executed_record: Callable[[], dict[str, Any]]) -> None:
    raw = executed_record()
    found = record_complexity(rot_from_dict(raw, "."))
    # "ledger.csv" was listed one step before, and nothing links the evidence to it.
    assert (found.candidates, found.steps_back) == (1, 3)
    assert found.length == raw["execution"]["complexity"]["length"]
