"""Whether an answer is right, decided by data: no model judges, and no object makes the check fail.

Answers come as whatever `final_answer(...)` was given. The text of an answer is compared without regard to case,
width, quotes and white space; numbers are compared as exact decimals, so that a tolerance means what it says.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from fractions import Fraction
from typing import Any

from regrpo_jax.environments.told_numbers import numbers_in, sole_number
from regrpo_jax.environments.units import same_unit
from regrpo_jax.errors import UserError

MOST_CHARACTERS = 2000  # of an answer; a longer one is no answer
_MOST_DIGITS = 400
# A comma between digits is part of a number where other marks stand between the things.
_MARKS = re.compile(r";|\n|\band\b|,(?!\d)|(?<!\d),")
_ANY_MARK = re.compile(r"[,;\n]|\band\b")
_QUOTES = "\"'`“”‘’«»"
Value = str | float | int | tuple[str | float | int, ...]


class CheckKind(StrEnum):
    """How an answer is compared with the value."""

    EXACT = "exact"  # the same text
    NUMBER = "number"  # the one number in the answer, within the tolerance
    ONE_OF = "one_of"  # one of several texts
    SET = "set"  # the same things in any order
    CONTAINS = "contains"  # all of these words are in the text
    FUNCTION = "function"  # a person's own function, "package.module:name", says so; see `own_check.py`


@dataclass(frozen=True)
class AnswerChecker:
    """What the right answer is.

    value: a text or number; several for one_of, set, and (optionally) contains. tolerance: of a number, absolute.
    unit: when given, a number with another unit is wrong; one without a unit is taken to be in it. expected: of a
    function, what it is told of the right answer beside what it sees (JSON); "" for nothing.
    UserError when value and kind do not fit.
    """

    kind: CheckKind
    value: Value
    tolerance: float = 0.0
    unit: str = ""
    expected: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", CheckKind(self.kind))
        if isinstance(self.value, list):
            object.__setattr__(self, "value", tuple(self.value))
        several = self.kind in (CheckKind.ONE_OF, CheckKind.SET)
        if several != isinstance(self.value, tuple) and self.kind != CheckKind.CONTAINS:
            raise UserError(f"an answer checked by {self.kind} needs {'several values' if several else 'one value'}")
        if self.kind == CheckKind.NUMBER and _fraction(self.value) is None:
            raise UserError(f"an answer checked as a number needs a finite number, not {self.value!r}")
        if not all(_folded(value) for value in self.values):
            raise UserError("the right answer cannot be an empty text")
        if odd := [value for value in self.values if not isinstance(value, str) and _fraction(value) is None]:
            raise UserError(f"the right answer is {odd[0]!r}; it must be a text or a finite number")
        tolerance = _fraction(self.tolerance)
        if tolerance is None or tolerance < 0:
            raise UserError(f"the tolerance of an answer is {self.tolerance!r}; it must be a number of at least 0")

    @property
    def values(self) -> tuple[str | float | int, ...]:
        return self.value if isinstance(self.value, tuple) else (self.value,)

    def to_json(self) -> dict[str, Any]:
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        told = {"kind": str(self.kind), "value": value, "tolerance": self.tolerance, "unit": self.unit}
        return told | ({"expected": self.expected} if self.expected else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AnswerChecker:
        value = data["value"]
        return cls(
            CheckKind(data["kind"]),
            tuple(value) if isinstance(value, list) else value,
            data.get("tolerance", 0.0),
            data.get("unit", ""),
            data.get("expected", ""),
        )


def answer_text(answer: object) -> str:
    """An answer in words, as files of predictions hold it; the things of a list with commas between them."""
    if isinstance(answer, list | tuple):
        return ", ".join(map(answer_text, answer))
    return _text(answer) if isinstance(answer, float) else str(answer)


def check_answer(checker: AnswerChecker, answer: object) -> bool:
    """Whether `answer` is right. Never raises, whatever the answer is."""
    try:
        return _check(checker, _single(answer))
    except Exception:  # an object of the answer's own making may do anything when it is read
        return False


def _check(checker: AnswerChecker, answer: object) -> bool:
    if checker.kind == CheckKind.NUMBER:
        return _number_right(checker, answer)
    if checker.kind == CheckKind.SET:
        return any(_same_things(checker, items) for items in _readings(answer, checker.values))
    text = _folded(answer)
    if not text or checker.kind == CheckKind.FUNCTION:
        return False
    if checker.kind == CheckKind.CONTAINS:
        return all(_holds(checker, text, answer, value) for value in checker.values)
    if text in {_folded(value) for value in checker.values}:
        return True
    return checker.kind == CheckKind.ONE_OF and any(_is(checker, answer, value) for value in _numbers(checker))


def _single(answer: object) -> object:
    """The only element of a list of one, else the answer; numpy's numbers and arrays as Python's."""
    if type(answer).__module__ == "numpy":
        answer = answer.tolist()  # type: ignore[attr-defined]
    if isinstance(answer, list | tuple | set | frozenset) and len(answer) == 1:
        return next(iter(answer))
    return answer


def _text(value: object) -> str:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value) if isinstance(value, str | int | float | list | tuple | dict | set | frozenset) else ""


def _folded(value: object) -> str:
    """The text in the form that is compared; "" for None, for no text at all, and for one that is too long."""
    text = _text(value)
    if len(text) > MOST_CHARACTERS:
        return ""
    for _ in range(2):  # folding may undo the normal form, and the other way round
        text = unicodedata.normalize("NFKC", text).casefold()
    edges = _QUOTES + " "
    bare = " ".join(text.split()).strip(edges)
    shorter = bare.removesuffix(".").rstrip(edges)
    return shorter or bare or (_QUOTES[0] if text.strip() else "")


def _numbers(checker: AnswerChecker) -> list[Fraction]:
    """The values that are numbers, not texts."""
    return [
        number for value in checker.values if not isinstance(value, str) and (number := _fraction(value)) is not None
    ]


def _is(checker: AnswerChecker, item: object, number: Fraction) -> bool:
    """Whether one thing of an answer, a number or the text of one, is that number."""
    tolerance = _fraction(checker.tolerance) or 0
    return any(abs(value - number) <= tolerance for value in _values_of(item))


def _values_of(item: object) -> list[Fraction]:
    """What number the thing may be: none, one, or for a percentage both 12 and 0.12."""
    if not isinstance(item, str):
        value = _fraction(item)
        return [] if value is None else [value]
    told = sole_number(item.strip(_QUOTES + " "))
    return [] if told is None else _with_share(told.value, told.unit)


def _with_share(value: Fraction, unit: str) -> list[Fraction]:
    return [value, value / 100] if unit and same_unit(unit, "%") else [value]


def _same_things(checker: AnswerChecker, items: list[object]) -> bool:
    """Whether the items are the values in any order; a number is one however it is written, a text is not."""
    numbers = sorted(set(_numbers(checker)))
    texts = {_folded(value) for value in checker.values if isinstance(value, str)}
    found, told = set(), []
    for item in items:
        if (text := _folded(item)) in texts:
            found.add(text)
        elif right := [number for number in numbers if _is(checker, item, number)]:
            told.append(right)
        else:
            return False
    return found == texts and _all_told(numbers, told)


def _all_told(numbers: list[Fraction], told: list[list[Fraction]]) -> bool:
    """Whether each number can be given an item of its own; items that are told twice do no harm."""
    free = sorted(told, key=len)
    for number in numbers:
        item = next((item for item in free if number in item), None)
        if item is None:
            return False
        free.remove(item)
    return True


def _holds(checker: AnswerChecker, text: str, answer: object, value: object) -> bool:
    """Whether a number, or the words as whole words, are in the answer."""
    number = None if isinstance(value, str) else _fraction(value)
    if number is not None and isinstance(answer, str):
        tolerance = _fraction(checker.tolerance) or 0
        return any(
            told is not None and abs(told.value - number) <= tolerance for told in numbers_in(answer, checker.unit)
        )
    words = _folded(value)
    left = r"(?<!\w)(?<!\d[.,])" if words[0].isdigit() else r"(?<!\w)" if words[0].isalnum() else ""
    right = r"(?:\.0+)?(?![.,]?\d)(?!\w)" if words[-1].isdigit() else r"(?!\w)" if words[-1].isalnum() else ""
    return re.search(left + re.escape(words) + right, text) is not None


def _readings(answer: object, wanted: tuple[object, ...]) -> list[list[object]]:
    """The things in an answer: its elements, or the parts of its text (lines first: a name may hold a comma)."""
    if isinstance(answer, list | tuple | set | frozenset):
        return [list(answer)[: len(wanted) + 64]]
    whole = _text(answer)
    if len(whole) > MOST_CHARACTERS:
        return []
    text = whole.strip()
    if text[:1] + text[-1:] in ("[]", "{}", "()"):
        text = text[1:-1]
    parted = [text.split("\n"), text.split(";"), _MARKS.split(text)]
    if len(parted[-1]) == 1 or not re.search(r";|\n|\d,\d{3}(?!\d)", text):  # 1,200 alone may be two numbers
        parted.append(_ANY_MARK.split(text))
    return [[whole], *([part for part in parts if part.strip()] for parts in parted)]


def _fraction(value: object) -> Fraction | None:
    """A number as an exact decimal (0.1 is a tenth); None for what is no finite number of a sensible size."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal | Fraction):
        return None
    if isinstance(value, int) and value.bit_length() > 4 * _MOST_DIGITS:
        return None
    if isinstance(value, Decimal) and value and abs(value.adjusted()) > _MOST_DIGITS:
        return None
    try:
        return Fraction(repr(float(value))) if isinstance(value, float) else Fraction(value)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None


def _number_right(checker: AnswerChecker, answer: object) -> bool:
    target, tolerance = _fraction(checker.value), _fraction(checker.tolerance)
    assert target is not None and tolerance is not None
    return any(abs(value - target) <= tolerance for value in _candidates(answer, checker.unit))


def _candidates(answer: object, unit: str) -> list[Fraction]:
    """What number the answer may mean: none, one, or for a percentage both 12 and 0.12."""
    if not isinstance(answer, str):
        value = _fraction(answer)
        return [] if value is None else [value]
    if len(answer) > MOST_CHARACTERS:
        return []
    found = numbers_in(answer, unit)
    if len(found) != 1 or found[0] is None:  # a text with several numbers does not commit to one
        return []
    told = found[0]
    if not unit:
        return _with_share(told.value, told.unit)
    return [told.value] if not told.unit or same_unit(told.unit, unit) else []
