"""What GAIA's leaderboard says of tricky answers, worked out from its rule by hand, one row a case."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.own_check import CheckedWorkspace, own_check
from regrpo_jax.suites.gaia.scorer import CHECK, is_infinite, question_scorer

Y, N = True, False
# right answer, answer, verdict
CASES: list[tuple[str, str | None, bool]] = [
    ("12", "12", Y),
    ("12", " 12 ", Y),
    ("12", "12.0", Y),
    ("12", "+12", Y),
    ("12", "012", Y),
    ("12", "1.2e1", Y),
    ("12", "$12", Y),
    ("12", "12%", Y),
    ("12", "1,2", Y),  # commas are taken out wherever they are
    ("12", "12.", Y),
    ("12", "12 cm", N),
    ("12", "12cm", N),
    ("12", "twelve", N),
    ("12", "The answer is 12", N),
    ("12", "12;", N),
    ("12", "1 2", N),
    ("12", "", N),
    ("12", "None", N),
    ("12", None, N),
    ("12", "-12", N),
    ("12", "€12", N),
    ("12", "１２", Y),  # float reads digits of other scripts
    ("12", "1_2", Y),  # and underscores
    ("-3", "-3", Y),
    ("-3", "−3", N),  # a minus that is none of ASCII's
    ("-3", "–3", N),
    ("-3", "- 3", N),
    ("0.5", ".5", Y),
    ("0.5", "50%", N),
    ("0.5", "1/2", N),
    ("0.1", "0.1000000000000000001", Y),
    ("0.3", "0.30000000000000004", N),
    ("1000", "1,000", Y),
    ("1000", "1.000", N),
    ("1000", "1 000", N),
    ("1e3", "1000", Y),
    ("1_000", "1000", Y),
    ("0", "-0", Y),
    ("0", "no", N),
    ("17", "17.0000", Y),
    ("inf", "inf", Y),
    ("inf", "anything", Y),
    ("inf", "", Y),
    ("inf", None, Y),
    ("inf", "12", N),
    ("Infinity", "no number", Y),
    ("-inf", "no number", N),
    ("1e999", "no number", Y),
    ("nan", "nan", N),
    ("nan", "no number", N),
    ("1,000", "1000", N),  # a comma in the right answer makes it a list
    ("1,000", "1,000", Y),
    ("1,000", "1;0", Y),  # 000 is the number 0
    ("1, 2, 3", "1,2,3", Y),
    ("1, 2, 3", "1;2;3", Y),
    ("1, 2, 3", "3, 2, 1", N),
    ("1, 2, 3", "1, 2", N),
    ("1, 2, 3", "1, 2, 3,", N),
    ("1, 2, 3", "[1, 2, 3]", N),
    ("1, 2, 3", "$1, 2%, 3.0", Y),
    ("1, 2, 3", "1, 2, three", N),
    ("a, b", "A,B", Y),
    ("a, b", "a , b", Y),
    ("a, b", "a, b.", N),  # in lists punctuation counts
    ("a, b", "a and b", N),
    ("a; b", "a, b", Y),
    ("inf, a", "x, a", Y),
    ("a,", "a,", Y),
    ("a,", "a", N),
    (",", "", N),
    (",", ";", Y),
    ("green, white", "Green White", N),
    ("St. Petersburg", "Saint Petersburg", N),
    ("St. Petersburg", "st petersburg", Y),
    ("St. Petersburg", "St.Petersburg!", Y),
    ("sea gull", "seagull", Y),
    ("sea gull", "sea\u00a0gull\n", Y),
    ("it's", "its", Y),
    ("it's", "it’s", N),  # not ASCII's apostrophe
    ("Yes", "yes.", Y),
    ("Yes", "Yes, it is", N),
    ("100 m", "100m", Y),
    ("100 m", "100", N),
    ("12:30", "1230", Y),
    ("café", "cafe", N),
    ("café", "CAFÉ", Y),
    ("None", None, Y),
    ("None", "none", Y),
    ("", "", Y),
    ("", ".", Y),
    ("", "a", N),
]


@pytest.mark.parametrize("right, answer, verdict", CASES)
def test_a_tricky_answer(right: str, answer: str | None, verdict: bool) -> None:
    assert question_scorer(answer, right) == verdict


def test_the_table_is_long_enough() -> None:
    assert len(set(CASES)) >= 60


@given(st.text(min_size=1, max_size=20))
def test_a_right_answer_is_right_unless_it_is_no_number_or_a_mark_is_in_it(right: str) -> None:
    parts = [part.strip() for part in right.replace(";", ",").split(",")]
    assert question_scorer(right, right) or any(part.lower().lstrip("+-") == "nan" for part in parts)


@given(st.floats(allow_nan=False, allow_infinity=False), st.sampled_from(["{}", "${}", "{}%", " {} ", "+{}"]))
def test_numbers_are_equal_to_the_last_bit(number: float, form: str) -> None:
    text = form.format(abs(number))
    assert question_scorer(text, repr(abs(number)))
    assert not question_scorer(text, repr(abs(number) * 1.5 + 1))


@given(st.text(alphabet="aB9.,;'- \n$%", max_size=12), st.text(alphabet="aB9.,;'- \n$%", max_size=12))
def test_texts_are_compared_by_their_letters_and_digits(answer: str, right: str) -> None:
    try:
        float(right)
    except ValueError:
        if not {",", ";"} & set(right):
            bare = [[c for c in text.lower() if c not in string.punctuation + " \n"] for text in (answer, right)]
            assert question_scorer(answer, right) == (bare[0] == bare[1])


def test_only_positive_infinity_takes_what_is_no_number() -> None:
    assert [is_infinite(text) for text in ("inf", "1e999", "-inf", "nan", "12", "infinite", "inf, 1")] == [
        True, True, False, False, False, False, False,
    ]  # fmt: skip


class NoFiles:
    def read_file(self, name: str) -> bytes:
        raise FileNotFoundError(name)

    def files(self) -> dict[str, str]:
        return {}


def test_an_episodes_check_is_the_same_rule() -> None:
    checker = AnswerChecker(CheckKind.FUNCTION, CHECK, expected="12")
    verdicts = [own_check(CHECK, answer, NoFiles(), checker.expected) for answer in ("12", 12, 12.0, "$12", None, "x")]
    assert verdicts == [True, True, True, True, False, False]
    assert not own_check(CHECK, "?", NoFiles(), "?")  # nobody here knows
    assert CheckedWorkspace(NoFiles()).names() == []
