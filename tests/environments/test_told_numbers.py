"""Numbers of answers as people of many countries write them, and what only looks like one."""

from __future__ import annotations

import string
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.environments.answers import AnswerChecker, CheckKind, check_answer
from regrpo_jax.environments.told_numbers import numbers_in, sole_number
from regrpo_jax.environments.units import may_touch, same_unit, scale_of

MARKS = [
    (",", "."),
    (".", ","),
    (" ", "."),
    (" ", ","),
    ("\u00a0", ","),
    ("\u2009", "."),
    ("\u202f", ","),
    ("'", "."),
    ("’", "."),
]
decimals = st.builds(
    lambda whole, rest, places: (whole, f"{rest:0{places}}"[:places]),
    st.integers(1, 10**9), st.integers(0, 9999), st.sampled_from([0, 1, 2, 4]),
)  # fmt: skip
BEFORE = ["", "It is ", "= ", "about ", "\n", "**", "(", "$", "€", "USD "]
BEHIND = ["", ".", "!", " km", "km", " apples", "%", " €", "**", ")", " in total"]


def right(value: Any, answer: object, kind: str = "number", **more: Any) -> bool:
    return check_answer(AnswerChecker(CheckKind(kind), value, **more), answer)


def written(parts: tuple[str, str], marks: tuple[str, str]) -> str:
    whole, rest = parts
    return f"{int(whole):,}".replace(",", marks[0]) + (marks[1] + rest if rest else "")


@settings(deadline=None)
@given(
    decimals,
    st.sampled_from(MARKS),
    st.sampled_from(["", "-", "−", "–"]),
    st.sampled_from(BEFORE),
    st.sampled_from(BEHIND),
)
def test_every_country_may_write_its_numbers(
    parts: tuple[int, str], marks: tuple[str, str], sign: str, before: str, behind: str
) -> None:
    value = Fraction(f"{parts[0]}.{parts[1] or 0}") * (-1 if sign else 1)
    text = before + sign + written((str(parts[0]), parts[1]), marks) + behind
    if marks[0] == "." and not parts[1] and 999 < parts[0] < 10**6:
        value /= 1000  # 1.234 is one and a bit where nothing says otherwise
    told = numbers_in(text)
    assert [number and number.value for number in told] == [value], text
    checker = AnswerChecker(CheckKind.NUMBER, float(value), 1e-6 * abs(float(value)) + 1e-9)
    assert check_answer(checker, text)
    assert not check_answer(AnswerChecker(CheckKind.NUMBER, float(value) * 10 + 1), text)


@settings(deadline=None)
@given(st.integers(1, 999), st.text(string.ascii_letters, min_size=1, max_size=6), st.sampled_from(["", " "]))
def test_words_behind_a_number_are_scale_unit_or_a_code(value: int, word: str, gap: str) -> None:
    if word.casefold() in ("and", "or", "of", "is", "are") or (word[0] in "eE" and not word[1:]):
        return
    scale = scale_of(word, money=False)
    expected = value if gap or may_touch(word) else None
    if scale is not None:
        expected = value * scale
    told = numbers_in(f"{value}{gap}{word}")
    assert ([number.value for number in told if number] or [None]) == [expected]


@settings(deadline=None)
@given(
    st.dictionaries(st.integers(1, 10**7), st.sampled_from(MARKS[:1] + MARKS[2:3]), min_size=1, max_size=5),
    st.sampled_from(["; ", ";", "\n", " and ", ", "]),
    st.sampled_from(["", "[]", "()"]),
)
def test_sets_of_numbers_are_read_in_every_writing(
    numbers: dict[int, tuple[str, str]], mark: str, brackets: str
) -> None:
    text = mark.join(written((str(number), ""), marks) for number, marks in numbers.items())
    text = brackets[:1] + text + brackets[1:]
    assert right(tuple(numbers), text, "set"), text
    assert right(tuple(numbers), [str(number) for number in numbers], "set")
    assert not right((*numbers, max(numbers) + 1), text, "set")
    assert not right((max(numbers) + 1, *list(numbers)[1:]), text, "set")


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("3 million", 3_000_000), ("3k", 3_000), ("3 thousand", 3_000), ("3\u00a0million", 3_000_000),
        ("3-million", 3_000_000),
        ("$3m", 3_000_000), ("3m USD", 3_000_000), ("3 m", 3), ("3 Mio. €", 3_000_000), ("3 bn", 3 * 10**9),
        ("3 Mrd. Euro", 3 * 10**9),
        ("2 dozen", 24), ("3 hundred thousand", 300_000), ("3万", 30_000), ("5 tenths", 0.5), ("3K", 3000),
        ("3M", 3_000_000),
        ("½", 0.5), ("1/2", 0.5), ("3½", 3.5), ("3 1/2", 3.5), ("1.2 × 10³", 1200), ("1.2*10**3", 1200),
        ("10^6", 10**6), ("1e3", 1000),
        ("minus 42", -42), ("−42", -42), ("Answer: - 42", -42), ("Answer - 42", 42), ("Answer – 42", 42),
        ("-$5", -5), ("$-5", -5),
        ("12,34,567", 1_234_567), ("1.234.567", 1_234_567), ("1.234,56", 1234.56), ("1,5", 1.5), ("0,123", 0.123),
        ("12,345", 12345),
        ("４２", 42), ("٤٢", 42), ("42円", 42), ("\\boxed{42}", 42), ("$42$", 42), ("<answer>42</answer>", 42),
        ("-> 42", 42),
        ("4th", 4), (".5", 0.5), ("x2 is 42", 42), ("5 of them", 5), (Decimal("42"), 42), (np.int64(42), 42),
        (np.float32(42), 42),
        (np.array([42]), 42),
    ],
)  # fmt: skip
def test_the_number_that_is_meant(answer: object, value: float) -> None:
    assert right(value, answer)
    assert not right(value + 1, answer)


@pytest.mark.parametrize(
    ("answer", "near"),
    [
        ("42abc", 42), ("42x", 42), ("42_", 42), ("x42", 42), ("42²", 42), ("10³", 103), ("3½", 15.5),
        ("1.2.3", 1.2), ("1,2,3", 1),
        ("2024-01-05", 2024), ("01/05/2024", 2024), ("12:30", 12), ("40-44", 40), ("40–44", 44), ("3 and a half", 3),
        ("42 ± 1", 42),
        ("> 42", 42), ("≥42", 42), ("42+", 42), ("42 or more", 42), ("more than 42", 42), ("at least 42 apples", 42),
        ("not 42", 42),
        ("NaN", 42), ("inf", 42), (np.bool_(True), 1), (True, 1), ("1,23,4", 1234), ("1 0000", 10000), ("5'10", 5),
        ("12,00,0", 12),
        ("1/0", 1), ("4 2", 42), (Decimal("NaN"), 42), (np.nan, 42),
    ],
)  # fmt: skip
def test_what_tells_no_certain_number(answer: object, near: float) -> None:
    assert not right(near, answer)


@pytest.mark.parametrize(
    ("unit", "answer", "same"),
    [
        ("m", "5 metres", True), ("$", "5 USD", True), ("EUR", "$5", False), ("°C", "5 degrees Celsius", True), ("K",
        "5K", True),
        ("m2", "5 m²", True), ("m²", "5 m", False), ("km", "5 million km", False), ("xyz", "5xyz", True), ("%",
        "5 percent", True),
        ("%", "5", True), ("kg", "5 g", False), ("h", "5 hours", True), ("min", "5 m", False),
    ],
)  # fmt: skip
def test_units_have_several_names(unit: str, answer: str, same: bool) -> None:
    assert right(5, answer, unit=unit) is same


@pytest.mark.parametrize(
    ("values", "answer", "same"),
    [
        ((1200, 3), "1,200; 3", True), ((1200, 3), "1,200, 3", True), ((1, 200, 3), "1,200; 3", False),
        ((1, 200), "1,200", True),
        ((1200,), "1,200", True), ((1200, 3), "1 200; 3", True), ((1.5, 2.5), "1,5; 2,5", True),
        ((1, 5, 2), "1,5; 2", False),
        ((3, 4), "3 million, 4", False), ((3_000_000, 4), "3 million, 4", True), ((1, 2), "['1', '2']", True),
        ((1, 2), [True, 2], False),
        (("red", 3), "3, red", True), ((1, 2), "2.0, 1, 1", True), ((1, 2), "NaN, 2", False),
        (("007", 3), "7, 3", False),
        (("1200", "3"), "1,200; 3", False), ((1, 2), np.array([2, 1]), True),
    ],
)  # fmt: skip
def test_sets_hold_numbers_as_numbers_and_texts_as_texts(values: Any, answer: object, same: bool) -> None:
    assert right(values, answer, "set") is same


def test_each_number_of_a_set_needs_one_of_its_own() -> None:
    assert right((1, 2), "1.05, 2", "set", tolerance=0.1)
    assert not right((1, 1.1), "1.05", "set", tolerance=0.1)
    assert right((1, 1.1), "1.05, 1.06", "set", tolerance=0.1)


def test_contained_and_chosen_numbers_are_whole_numbers() -> None:
    assert right(1200, "it has 1,200 rows and 3 sheets", "contains") and right("3", "room 3.", "contains")
    assert right("42", "total: 42.0, rows: 7", "contains")
    for value, answer in ((3, "3.5 cars"), ("3", "3.5 km"), ("203", "1,203"), (3, "3 million"), (3, "13")):
        assert not right(value, answer, "contains")
    assert right((1200, 3), "1,200", "one_of") and not right((1200, 3), "1,203", "one_of")
    assert not right(("007", "x"), "7", "one_of")


@settings(deadline=None)
@given(st.text(max_size=40) | st.text("0123456789.,' -+/%$€kmMe×^²½()", max_size=25))
def test_any_text_can_be_read(text: str) -> None:
    for number in numbers_in(text):
        assert number is None or isinstance(number.value, Fraction)
    alone = sole_number(text)
    assert alone is None or numbers_in(text) == [alone]


def test_units_are_named_alike_both_ways() -> None:
    assert same_unit("US$", "dollars") and same_unit("µm", "μm") and not same_unit("m", "min")
