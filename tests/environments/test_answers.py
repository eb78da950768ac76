"""Answers are checked as their checker says, whatever object the answer is."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.environments.answers import AnswerChecker, CheckKind, check_answer, numbers_in
from regrpo_jax.errors import UserError

words = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30).filter(str.strip)
finite = st.integers(-(10**12), 10**12) | st.floats(-1e12, 1e12, allow_nan=False)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.complex_numbers()
objects = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner))
checkers = (
    st.builds(AnswerChecker, st.just(CheckKind.EXACT), words | finite)
    | st.builds(AnswerChecker, st.just(CheckKind.NUMBER), finite, st.floats(0, 10), st.sampled_from(["", "m"]))
    | st.builds(AnswerChecker, st.sampled_from([CheckKind.ONE_OF, CheckKind.SET]), st.lists(words, min_size=1))
    | st.builds(AnswerChecker, st.just(CheckKind.CONTAINS), words)
)


class Broken:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__

    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None  # type: ignore[assignment]


def nested() -> list[Any]:
    made: list[Any] = []
    made.append(made)
    return made


@settings(deadline=None)
@given(checkers, objects)
def test_a_check_never_raises(checker: AnswerChecker, answer: object) -> None:
    assert check_answer(checker, answer) in (True, False)


@pytest.mark.parametrize("kind", CheckKind)
@pytest.mark.parametrize(
    "answer",
    [None, Broken(), [Broken()], nested(), 10**5000, "9" * 10**6, "1e999999999", math.nan, math.inf, b"\xff", {}, [],
     "", " ", object(), type, {"a": Broken()}, "\ud800", float("1e308"), "1,2,3", [[1], [2]], Fraction(1, 3)],
    ids=lambda answer: type(answer).__name__,
)  # fmt: skip
def test_odd_answers_are_wrong_and_harmless(kind: CheckKind, answer: object) -> None:
    several = kind in (CheckKind.ONE_OF, CheckKind.SET)
    value = 42 if kind == CheckKind.NUMBER else ("north", "south") if several else "north"
    assert check_answer(AnswerChecker(kind, value), answer) is False


@settings(deadline=None)
@given(checkers)
def test_the_right_answer_is_right(checker: AnswerChecker) -> None:
    if checker.kind == CheckKind.ONE_OF:
        assert all(check_answer(checker, value) for value in checker.values)
    elif checker.kind == CheckKind.SET:
        assert check_answer(checker, list(checker.values)) and check_answer(checker, set(checker.values))
        assert check_answer(checker, checker.values[::-1])
    else:
        assert check_answer(checker, checker.value)
        assert check_answer(checker, [checker.value])


@given(checkers)
def test_a_checker_survives_json(checker: AnswerChecker) -> None:
    assert AnswerChecker.from_json(checker.to_json()) == checker


@given(words)
def test_case_space_and_quotes_do_not_matter(text: str) -> None:
    checker = AnswerChecker(CheckKind.EXACT, text)
    assert check_answer(checker, f'  "{text}"\n')
    assert check_answer(checker, text.casefold())


@given(finite, finite, st.floats(0, 1e6))
def test_the_tolerance_is_exactly_as_told(value: float, answer: float, tolerance: float) -> None:
    def exact(number: float) -> Fraction:
        return Fraction(repr(number))

    checker = AnswerChecker(CheckKind.NUMBER, value, tolerance)
    assert check_answer(checker, answer) == (abs(exact(value) - exact(answer)) <= exact(tolerance))


@given(st.integers(-(10**9), 10**9))
def test_numbers_are_read_out_of_texts(value: int) -> None:
    checker = AnswerChecker(CheckKind.NUMBER, value)
    for text in (f"{value}", f"{value:,}", f"{value}.0", f"about {value:,} km", f"It is {value}.", f"{value} %"):
        assert check_answer(checker, text), text
    assert not check_answer(checker, f"{value} or {value}")
    assert not check_answer(checker, f"{value + 1}")


@pytest.mark.parametrize(
    ("kind", "value", "answer", "right"),
    [
        ("number", 1234.5, "1,234.50", True),
        ("number", 1234.5, "$1,234.5", True),
        ("number", 0.12, "12%", True),
        ("number", 12, "12 %", True),
        ("number", 0.12, "12", False),
        ("number", 3, True, False),
        ("number", 1, True, False),
        ("number", 42, "42.0", True),
        ("number", 42, "−42", False),
        ("number", -42, "−42 °C", True),
        ("number", 42, "between 40 and 44", False),
        ("number", 1200, "1.2e3", True),
        ("number", 42, "forty-two", False),
        ("number", 4, "4th", True),
        ("number", 42, {"answer": 42}, False),
        ("exact", "EXIT 7", "exit  7.", True),
        ("exact", "EXIT 7", "EXIT 71", False),
        ("exact", "42", 42, True),
        ("exact", "42", 42.0, True),
        ("exact", "true", True, True),
        ("exact", "ﬁn", "fin", True),
        ("exact", "Straße", "STRASSE", True),
        ("one_of", ["Leo", "Leon"], "leon", True),
        ("one_of", ["Leo", "Leon"], "Leo or Leon", False),
        ("set", ["red", "blue"], "blue and red", True),
        ("set", ["red", "blue"], "Blue; Red", True),
        ("set", ["red", "blue"], "['blue', 'red']", True),
        ("set", ["red", "blue"], ["red", "blue", "green"], False),
        ("set", ["red", "blue"], ["red"], False),
        ("set", ["Rome, Italy", "Oslo"], "Oslo; Rome, Italy", True),
        ("set", [1, 2], "1, 2", True),
        ("set", [1, 2], {2.0, 1}, True),
        ("contains", "red car", "There is a Red  Car here", True),
        ("contains", "red car", "a red cart", False),
        ("contains", ["red", "blue"], "blue, then red", True),
        ("contains", ["red", "blue"], "blue", False),
        ("contains", "red", "red " * 2000, False),
    ],
)
def test_examples(kind: str, value: Any, answer: object, right: bool) -> None:
    assert check_answer(AnswerChecker(CheckKind(kind), value), answer) is right


@pytest.mark.parametrize(
    ("answer", "right"), [("5 m", True), ("5", True), (5, True), ("5 cm", False), ("5%", False), ("500 cm", False)]
)
def test_a_told_unit_must_be_the_checkers(answer: object, right: bool) -> None:
    assert check_answer(AnswerChecker(CheckKind.NUMBER, 5, unit="m"), answer) is right


def test_units_are_read() -> None:
    assert numbers_in("3 apples, 1,250.5 km/h and €7") == [
        (Fraction(3), "apples"),
        (Fraction("1250.5"), "km/h"),
        (Fraction(7), "€"),
    ]


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("number", "many", "finite number"),
        ("number", math.nan, "finite number"),
        ("exact", ["a"], "one value"),
        ("set", "a", "several values"),
        ("exact", " ", "empty text"),
        ("one_of", ["a", ""], "empty text"),
        ("set", ["a", math.nan], "finite number"),
        ("exact", math.inf, "finite number"),
        ("one_of", ["a", True], "finite number"),
    ],
)
def test_a_checker_that_cannot_be_met_is_told(kind: str, value: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        AnswerChecker(CheckKind(kind), value)
    with pytest.raises(UserError, match="tolerance"):
        AnswerChecker(CheckKind.NUMBER, 1, -1.0)
