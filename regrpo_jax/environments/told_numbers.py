"""The numbers of a text with their units, taken as a careful reader takes them.

Scale words count ("3 million", "3k"), units may follow ("42 km", "42km"), marks of thousands and decimals may be those
of other countries where only one reading is possible ("1 234,5"). Digits that are part of something else (42abc, 1.2.3)
are no number, and neither is one that the text only compares with ("more than 42", "42+").
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

from regrpo_jax.environments.units import is_money, may_touch, same_unit, scale_of
from regrpo_jax.toolbox.numerals import SEPARATORS, continental, english

_MOST_DIGITS = 400
_SIGNS = "$€£¥₹₽₩"
_CODES = "USD|EUR|GBP|JPY|CNY|INR|CHF|RUB|KRW"
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>(?:minus|negative)\s|[-+])?"
    rf"(?:(?P<money>(?:[A-Z]{{1,2}})?[{_SIGNS}]|(?:{_CODES})\b)\s?(?P<after>-)?)?"
    rf"(?:(?:(?P<whole>\d+)[ -])?(?P<top>\d+)\s?/\s?(?P<bottom>\d+)(?!\s?/|[.,]?\d)"
    rf"|10\s?(?:\^|\*\*)\s?(?P<power>[-+]?\d{{1,3}})(?![\d.])"
    rf"|(?P<digits>\.?\d+(?:[{SEPARATORS}]\d+)*)(?:(?P<exponent>[eE][-+]?\d{{1,3}})(?!\d))?"
    rf"(?:\s?[x×*·⋅]\s?10\s?(?:\^|\*\*)\s?(?P<times>[-+]?\d{{1,3}})(?!\d))?)",
    re.IGNORECASE,
)
_UNIT = re.compile(
    r"[\s-]?(?P<unit>(?!(?:and|or|of|is|are|in total)\b)"
    rf"(?:[%‰]|per ?cent(?!\w)|°\s?[CFK]?(?!\w)|degrees?\s[a-z]+(?!\w)|[{_SIGNS}]"
    r"|[^\W\d_]+(?:\^?-?\d(?!\d))?(?:/[^\W\d_]+(?:\^?\d(?!\d))?)?(?!\w)))",
    re.IGNORECASE,
)
_BEFORE = re.compile(
    r"(?:(?<![-=])>=?|<=?|[≤≥≠]|!=|\b(?:not|over|under|above|below|exceeds|exceeding|at least|at most|up to"
    r"|(?:more|less|fewer|greater|larger|smaller|higher|lower) than(?: or equal to)?))\s*\Z",
    re.IGNORECASE,
)
_BEHIND = re.compile(
    r"\.?\s*(?:\+(?!\s*[\w.])|or (?:more|less|fewer|above|over|higher|lower|greater)\b"
    r"|and (?:more|above|up|a half|a quarter|a third)\b)",
    re.IGNORECASE,
)
_VULGAR = re.compile("[¼-¾⅐-⅞↉]")
_RAISED = re.compile("[⁰¹²³⁴-⁹⁻]+")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_PLAIN = str.maketrans({"−": "-", "－": "-", "﹣": "-", "％": "%", "⁄": "/", "∕": "/", "．": ".", "，": ",", "＋": "+"})


class Number(NamedTuple):
    """A number that a text tells, with its unit ("" for none)."""

    value: Fraction
    unit: str


def numbers_in(text: str, unit: str = "") -> list[Number | None]:
    """The numbers of a text in their order; None stands for digits that tell no certain number.

    unit: the one that is expected, which is no scale then: with "K" 300 K are kelvins, not 300,000.
    """
    return [number for number, _, _ in _found(_flat(text), unit)]


def sole_number(text: str) -> Number | None:
    """The number that is the whole text, its unit included; None when the text is anything else."""
    flat = _flat(text).strip()
    found = list(_found(flat, ""))
    if len(found) != 1:
        return None
    number, start, end = found[0]
    return number if start == 0 and flat[end:] in ("", ".") else None


def _found(text: str, expected: str) -> Iterator[tuple[Number | None, int, int]]:
    place = 0
    while match := _NUMBER.search(text, place):
        value = _value(match)
        tail = _tail(text, match, expected)
        place = match.end()
        if tail is None:  # a code that begins with digits
            continue
        scale, unit, place = tail
        compared = (
            _BEFORE.search(text[: match.start()]) or _BEHIND.match(text, match.end()) or _BEHIND.match(text, place)
        )
        number = None if value is None or compared else Number(value * scale, unit or match["money"] or "")
        yield number, match.start(), place


def _flat(text: str) -> str:
    """The text in plain signs: ½ is 1/2, ³ is ^3, every minus is -, tags and TeX's backslashes are gone."""
    text = _VULGAR.sub(lambda found: " " + unicodedata.normalize("NFKC", found[0]), text)
    text = _RAISED.sub(lambda found: "^" + unicodedata.normalize("NFKC", found[0]), text)
    text = unicodedata.normalize("NFC", _TAG.sub(" ", text)).translate(_PLAIN)
    text = re.sub(rf"\\(?=[%{_SIGNS},])", "", text)
    text = re.sub(rf"(?<!\w)[‐‑‒–](?=[\d.{_SIGNS}])", "-", text)
    return re.sub(rf"((?:\A|[:=])\s*)[-–]\s+(?=[\d.{_SIGNS}])", r"\1-", text)


def _value(match: re.Match[str]) -> Fraction | None:
    """What the digits say; None when they say nothing, or are too many."""
    if match.end() - match.start() > _MOST_DIGITS:
        return None
    if match["power"] is not None:
        value = Fraction(10) ** int(match["power"])
    elif match["top"] is not None:
        top, bottom = int(match["top"]), int(match["bottom"])
        if bottom == 0 or (match["whole"] and top >= bottom):
            return None
        value = int(match["whole"] or 0) + Fraction(top, bottom)
    else:
        plain = english(match["digits"]) or continental(match["digits"])
        if plain is None:
            return None
        value = Fraction(f"{plain}{match['exponent'] or ''}") * Fraction(10) ** int(match["times"] or 0)
    negative = (match["sign"] or "+") != "+" or match["after"]
    return -value if negative else value


def _tail(text: str, match: re.Match[str], expected: str) -> tuple[Fraction, str, int] | None:
    """Scale and unit that follow, and where they end; None when letters make a code of the digits."""
    scale, place, money = Fraction(1), match.end(), match["money"] is not None
    while word := _UNIT.match(text, place):
        unit, touches = word["unit"], word.start("unit") == match.end()
        following = _UNIT.match(text, word.end())
        if expected and same_unit(unit, expected):
            return scale, unit, word.end()
        factor = scale_of(unit, money or (following is not None and is_money(following["unit"])))
        if factor is None:
            return None if touches and not may_touch(unit) else (scale, unit, word.end())
        scale, place = scale * factor, word.end()
        if text.startswith(".", place) and unit[0].isalpha():  # Mio.
            place += following is not None or _UNIT.match(text, place + 1) is not None
    return None if re.match(r"\w", text[match.end() : match.end() + 1]) and place == match.end() else (scale, "", place)
