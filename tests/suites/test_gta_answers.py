"""What GTA's, MAT's and SPORT's rules say of tricky answers, worked out from the rules by hand, one row a case."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.suites.gta import mat_scorer, official_answers, sport_scorer
from regrpo_jax.suites.gta.official_answers import answer_score
from regrpo_jax.suites.gta.record_types import Answer
from regrpo_jax.suites.gta.similarity import SameText

Y, N = True, False
# groups of the whitelist with "/" between aliases and "&" between groups, answer, GTA, MAT, SPORT
CASES: list[tuple[str, str, bool, bool, bool]] = [
    ("12", "12", Y, Y, Y),
    ("12", "The total is 12.", Y, Y, Y),
    ("12", "112", N, Y, Y),
    ("12", "1125", N, Y, Y),
    ("12", "12.5", Y, Y, Y),
    ("12", "0.12", Y, Y, Y),
    ("12", "-12", Y, Y, Y),
    ("12", "$12", Y, Y, Y),
    ("12", "12%", Y, Y, Y),
    ("12", "12cm", N, Y, Y),
    ("12", "12 cm", Y, Y, Y),
    ("12", "twelve", N, N, N),
    ("12", "", N, N, N),
    ("12", "None", N, N, N),
    ("12", "１２", N, N, N),
    ("12", "1 2", N, N, N),
    ("12", "12_000", N, Y, Y),
    ("12", "x12", N, Y, Y),
    ("-2", "-2", N, Y, Y),
    ("-2", "The answer is -2.", N, Y, Y),
    ("-2", "x-2", Y, Y, Y),
    ("-2", "−2", N, N, N),
    ("-2", "–2", N, N, N),
    ("-2", "3-2", Y, Y, Y),
    ("2", "−2", Y, Y, Y),
    ("$3120", "$3120", N, Y, Y),
    ("$3120", "US$3120", Y, Y, Y),
    ("$3120", "3120", N, N, N),
    ("24185", "24,185", N, N, Y),
    ("24185/24,185", "24,185", Y, Y, Y),
    ("24,185", "24185", N, N, Y),
    ("1000000", "1,000,000", N, N, Y),
    ("1000000", "1000,000", N, N, Y),
    ("1,000,000", "1000000", N, N, Y),
    ("1000,000", "1,000,000", N, N, Y),
    ("546", "5,46", N, N, N),
    ("1919.96", "1,919.96", N, N, N),
    ("1919.96", "1919.960", N, Y, Y),
    ("166.67", "166.67 dollars", Y, Y, Y),
    ("166.67", "166", N, N, N),
    ("3", "three", N, N, Y),
    ("3", "THREE apples", N, N, Y),
    ("three", "3", N, N, Y),
    ("10", "ten", N, N, Y),
    ("10", "often", N, N, Y),
    ("11", "eleven", N, N, N),
    ("1", "someone", N, N, Y),
    ("0", "zero", N, N, Y),
    ("0", "no", N, N, Y),
    ("0", "I do not know", N, N, Y),
    ("0", "10", N, Y, Y),
    ("0", "nothing", N, N, Y),
    ("0", "none", N, N, Y),
    ("zero", "no", N, N, Y),
    ("12%", "12%", N, Y, Y),
    ("12%", "12 %", N, N, Y),
    ("12%", "12", N, N, N),
    ("12%", "12%x", Y, Y, Y),
    ("5km", "5 km", N, N, Y),
    ("5 km", "5km", N, N, Y),
    ("5km", "5 KM", N, N, Y),
    ("5km", "5  km", N, N, N),
    ("2.5kg", "2.5 kg", N, N, N),
    ("9PM", "9 PM", N, N, Y),
    ("9 PM", "9PM", N, N, Y),
    ("9PM", "9p.m.", N, N, Y),
    ("9PM", "9 p.m.", N, N, Y),
    ("9 p.m.", "at 9 PM", N, N, Y),
    ("9PM", "9AM", N, N, N),
    ("9:30", "9:30", Y, Y, Y),
    ("9:30", "19:30", N, Y, Y),
    ("9:00", "9:00 pm", Y, Y, Y),
    ("yes", "Yes.", Y, Y, Y),
    ("yes", "yesterday", N, Y, Y),
    ("Yes", "YES", Y, Y, Y),
    ("Mercedes-Benz", "mercedes-benz", Y, Y, Y),
    ("Mercedes-Benz", "Mercedes Benz", N, N, N),
    ("48 million", "48 million people", Y, Y, Y),
    ("48 million", "48  million", N, N, N),
    ("48 million", "48\nmillion", N, N, N),
    ("2&3", "2 or 3", Y, Y, Y),
    ("2&3", "2", N, N, N),
    ("2&3", "23", N, Y, Y),
    ("2&3", "[2, 3]", Y, Y, Y),
    ("2&3", "3, then two", N, N, Y),
    ("-2&4", "-2 or 4", N, Y, Y),
    ("a.b", "axb", N, N, N),
    ("a.b", "A.B", Y, Y, Y),
    ("C++", "C++", N, Y, Y),
    ("é", "É", Y, Y, Y),
    ("inf", "inf", Y, Y, Y),
    ("inf", "information", N, Y, Y),
    ("nan", "banana", N, Y, Y),
]


def answered(words: str, blacklist: tuple[tuple[str, ...], ...] = ()) -> Answer:
    return Answer(tuple(tuple(group.split("/")) for group in words.split("&")), blacklist, objective=True)


@pytest.mark.parametrize("words, text, gta, mat, sport", CASES)
def test_a_tricky_answer(words: str, text: str, gta: bool, mat: bool, sport: bool) -> None:
    right = answered(words)
    found = [scorer.is_correct(text, right) for scorer in (official_answers, mat_scorer, sport_scorer)]
    assert found == [gta, mat, sport]


def test_the_table_is_long_enough() -> None:
    assert len(set(CASES)) >= 60


BLACKLISTED = [
    ("red", (("blue",),), "red", Y),
    ("red", (("blue",),), "red, not Blue", N),
    ("red", (("blue",),), "red, bluebird", Y),
    ("red", (("blue", "green"), ("pink",)), "red and pink", N),
    ("red", (("-1",),), "red -1", Y),  # no boundary before the minus
    ("red", ((),), "red", N),  # an empty list of the blacklist is found at any word
    ("red", (), "red blue", Y),
]


@pytest.mark.parametrize("words, blacklist, text, right", BLACKLISTED)
def test_only_gta_looks_at_the_blacklist(words: str, blacklist: tuple, text: str, right: bool) -> None:
    answer = answered(words, blacklist)
    assert official_answers.is_correct(text, answer) == right
    assert mat_scorer.is_correct(text, answer) and sport_scorer.is_correct(text, answer)


def test_empty_groups() -> None:
    nothing, one_without_alias = Answer(objective=True), Answer(((),), objective=True)
    assert official_answers.is_correct("", nothing) and mat_scorer.is_correct("", nothing)
    assert official_answers.is_correct("a", one_without_alias) and not official_answers.is_correct(
        "", one_without_alias
    )
    assert not mat_scorer.is_correct("a", one_without_alias)


def test_records_without_a_whitelist_have_no_right_answer_for_mat_and_sport() -> None:
    subjective = Answer(references=("a", "b"))
    assert not mat_scorer.is_correct("a", subjective) and not sport_scorer.is_correct("a", subjective)
    assert not mat_scorer.is_correct("", Answer()) and not sport_scorer.is_correct("no", Answer())


def test_subjective_answers_are_as_good_as_the_best_reference() -> None:
    subjective = Answer(references=("a", "b"))
    assert [answer_score(text, subjective, SameText()) for text in ("a", "b", "c", "")] == [1, 1, 0, 0]
    parts = {"a": 0.25, "b": 0.75}

    class Parts:
        label = "parts"

        def __call__(self, one: str, other: str) -> float:
            return parts[other]

    assert answer_score("c", subjective, Parts()) == 0.75
    assert answer_score("c", Answer(), Parts()) == 0


aliases = st.lists(st.text(alphabet="a1-. $%", min_size=1, max_size=4), min_size=1, max_size=3)


@given(st.lists(aliases, min_size=1, max_size=3), st.text(alphabet="a1-. $%\n", max_size=20))
def test_the_official_rule_is_one_search_a_group(groups: list[list[str]], text: str) -> None:
    def bounded(place: int) -> bool:
        """Whether exactly one side of the place is a letter, a digit or an underscore."""
        left, right = text[place - 1 : place] if place else "", text[place : place + 1]
        return bool(re.fullmatch(r"\w", left)) != bool(re.fullmatch(r"\w", right))

    def found(alias: str) -> bool:
        places = [place for place in range(len(text)) if text.startswith(alias, place)]
        return any(bounded(place) and bounded(place + len(alias)) for place in places)

    right = Answer(tuple(map(tuple, groups)), objective=True)
    assert official_answers.is_correct(text, right) == all(any(map(found, group)) for group in groups)


@given(st.lists(aliases, min_size=1, max_size=3), st.text(alphabet="a1-. $%\n", max_size=20))
def test_each_rule_accepts_what_the_stricter_one_does(groups: list[list[str]], text: str) -> None:
    right = Answer(tuple(map(tuple, groups)), objective=True)
    if official_answers.is_correct(text, right):
        assert mat_scorer.is_correct(text, right)
    if mat_scorer.is_correct(text, right):
        assert sport_scorer.is_correct(text, right)


@given(st.integers(min_value=1000, max_value=10**12))
def test_sport_knows_the_commas_of_any_number(number: int) -> None:
    right = Answer(((str(number),),), objective=True)
    assert sport_scorer.is_correct(f"{number:,}", right)
    assert sport_scorer.is_correct(f"{str(number)[:-3]},{str(number)[-3:]}", right)
    assert not mat_scorer.is_correct(f"{number:,}", right)
