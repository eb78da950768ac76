"""Whether an answer is right, decided by data: no model judges, and no object makes the check fail.

Answers come as whatever `final_answer(...)` was given. The text of an answer is compared without regard to case,
width, quotes and white space; numbers are compared as exact decimals, so that a tolerance means what it says.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any

from regrpo_jax.errors import UserError

MOST_CHARACTERS = 2000  # of an answer; a longer one is no answer
_MOST_DIGITS = 400
_NUMBER = re.compile(
    r"(?<![\w.])(?P<sign>[-+]?)(?P<money>[$€£¥]?)\s?"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?P<exponent>[eE][-+]?\d{1,3})?"
    r"\s?(?P<unit>%|[^\W\d_]+(?:[²³]|\d(?!\d))?(?:/[^\W\d_]+)?|°[CF]?)?(?![\d])"
)
_SEPARATORS = re.compile(r"\s*(?:[,;\n]|\band\b)\s*")
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
    unit: when given, a number with another unit is wrong; one without a unit is taken to be in it.
    UserError when value and kind do not fit.
    """

    kind: CheckKind
    value: Value
    tolerance: float = 0.0
    unit: str = ""

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
        tolerance = _fraction(self.tolerance)
        if tolerance is None or tolerance < 0:
            raise UserError(f"the tolerance of an answer is {self.tolerance!r}; it must be a number of at least 0")

    @property
    def values(self) -> tuple[str | float | int, ...]:
        return self.value if isinstance(self.value, tuple) else (self.value,)

    def to_json(self) -> dict[str, Any]:
        value = list(self.value) if isinstance(self.value, tuple) else self.value
        return {"kind": str(self.kind), "value": value, "tolerance": self.tolerance, "unit": self.unit}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> AnswerChecker:
        value = data["value"]
        return cls(
            CheckKind(data["kind"]),
            tuple(value) if isinstance(value, list) else value,
            data.get("tolerance", 0.0),
            data.get("unit", ""),
        )


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
        wanted = {_folded(value) for value in checker.values}
        return any({_folded(item) for item in items} == wanted for items in _readings(answer, checker.values))
    text = _folded(answer)
    if not text or checker.kind == CheckKind.FUNCTION:
        return False
    if checker.kind == CheckKind.CONTAINS:
        return all(_holds(text, _folded(value)) for value in checker.values)
    return text in {_folded(value) for value in checker.values}


def _single(answer: object) -> object:
    """The only element of a list of one; else the answer."""
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


def _holds(text: str, words: str) -> bool:
    """Whether `words` are in `text` as whole words."""
    left = r"(?<!\w)" if words[0].isalnum() else ""
    right = r"(?!\w)" if words[-1].isalnum() else ""
    return re.search(left + re.escape(words) + right, text) is not None


def _readings(answer: object, wanted: tuple[object, ...]) -> list[list[object]]:
    """The things in an answer: its elements, or the parts of its text (lines first: a name may hold a comma)."""
    if isinstance(answer, list | tuple | set | frozenset):
        return [list(answer)[: len(wanted) + 64]]
    whole = _text(answer)
    if len(whole) > MOST_CHARACTERS:
        return []
    text = whole.strip().removeprefix("[").removesuffix("]").removeprefix("{").removesuffix("}")
    readings: list[list[object]] = [
        [part for part in parts if part.strip()]
        for parts in (text.split("\n"), text.split(";"), text.split(","), _SEPARATORS.split(text))
    ]
    return [[whole], *readings]


def _fraction(value: object) -> Fraction | None:
    """A number as an exact decimal (0.1 is a tenth); None for what is no finite number of a sensible size."""
    if isinstance(value, bool) or not isinstance(value, int | float | str | Fraction):
        return None
    if isinstance(value, int) and value.bit_length() > 4 * _MOST_DIGITS:
        return None
    try:
        return Fraction(repr(float(value))) if isinstance(value, float) else Fraction(value)
    except (ValueError, OverflowError, ZeroDivisionError):
        return None


def numbers_in(text: str) -> list[tuple[Fraction, str]]:
    """The numbers of a text with their units ("" for none): "1,250 km" is (1250, "km")."""
    found = []
    for match in _NUMBER.finditer(unicodedata.normalize("NFC", text).replace("−", "-")):
        digits = match["digits"].replace(",", "")
        if len(digits) <= _MOST_DIGITS:
            value = Fraction(f"{match['sign']}{digits}{match['exponent'] or ''}")
            found.append((value, match["unit"] or match["money"] or ""))
    return found


def _number_right(checker: AnswerChecker, answer: object) -> bool:
    target, tolerance = _fraction(checker.value), _fraction(checker.tolerance)
    assert target is not None and tolerance is not None
    for value, unit in _candidates(answer, checker.unit):
        if checker.unit and unit and _unit(unit) != _unit(checker.unit):
            continue
        if abs(value - target) <= tolerance:
            return True
    return False


def _candidates(answer: object, unit: str) -> list[tuple[Fraction, str]]:
    """What number the answer may mean: none, one, or for a percentage both 12 and 0.12."""
    if not isinstance(answer, str):
        value = _fraction(answer)
        return [] if value is None else [(value, "")]
    if len(answer) > MOST_CHARACTERS:
        return []
    found = numbers_in(answer)
    if len(found) != 1:  # a text with several numbers does not commit to one
        return []
    value, told = found[0]
    if told == "%":
        return [(value, "%")] if unit else [(value, ""), (value / 100, "")]
    return [(value, told)]


def _unit(name: str) -> str:
    folded = _folded(name)
    return folded.removesuffix("s") if len(folded) > 2 else folded
