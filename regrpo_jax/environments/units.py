"""Words that follow a number: scales, which multiply it, and units, of which several names mean the same."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

_NAMES = {
    "%": "percent pct prozent percentage", "‰": "permille", "m": "metre meter", "km": "kilometre kilometer",
    "cm": "centimetre centimeter", "mm": "millimetre millimeter", "kg": "kilogram kilogramme kilo", "g": "gram gramme",
    "t": "ton tonne", "s": "sec second", "min": "minute", "h": "hr hour", "d": "day", "l": "litre liter",
    "ml": "millilitre milliliter", "mi": "mile", "ft": "foot feet", "in": "inch inche", "°c": "celsius",
    "°f": "fahrenheit", "°": "deg degree", "$": "usd us$ dollar", "€": "eur euro", "£": "gbp pound", "¥": "jpy yen",
    "₹": "inr rs rupee", "chf": "franc", "₽": "rub rouble ruble", "₩": "krw won", "cny": "yuan",
}  # fmt: skip
_SAME = {word: unit for unit, words in _NAMES.items() for word in words.split()}
_MONEY = frozenset(("$", "€", "£", "¥", "₹", "chf", "₽", "₩", "cny"))
# Those that touch their number; another word that does makes a code of it, as in 42abc.
_TOUCHING = (
    "m km cm mm nm kg g mg t lb lbs oz s ms ns min h d l ml cl mi ft in yd ha w kw mw gw kwh wh v mv kv a ma "
    "ah mah hz khz mhz ghz b kb mb gb tb kib mib gib bit px pt dpi pa hpa kpa bar n kn j kj cal kcal mol ppm db mph "
    "kmh kph rpm bpm fps rad deg st nd rd th usd eur gbp chf"
)
_POWERS = {
    "hundred": 2, "thousand": 3, "k": 3, "tsd": 3, "tausend": 3, "million": 6, "millionen": 6, "mn": 6, "mln": 6,
    "mio": 6, "mil": 6, "mill": 6, "billion": 9, "bn": 9, "bln": 9, "milliard": 9, "milliarde": 9, "milliarden": 9,
    "mrd": 9, "trillion": 12, "bil": 9, "tril": 12, "tn": 12, "trn": 12, "lakh": 5, "crore": 7, "万": 4, "億": 8,
    "亿": 8, "tenth": -1, "hundredth": -2, "thousandth": -3, "millionth": -6, "billionth": -9,
}  # fmt: skip
_CAPITALS = {"M": 6, "MM": 6, "B": 9}  # m is a metre, b a bit
_POWERS_OF_MONEY = {"m": 6, "mm": 6, "b": 9, "t": 12}  # $3m


def _named(unit: str) -> str:
    """One name for all names of a unit."""
    name = unicodedata.normalize("NFKC", unit).casefold().replace("^", "").replace(" ", "").removesuffix(".")
    name = re.sub(r"^degrees?(?=.)|(?<=°) ", "", name)
    bare = name.removesuffix("s") if len(name) > 2 else name
    return _SAME.get(name, _SAME.get(bare, bare))


def same_unit(one: str, other: str) -> bool:
    """Whether two names of a unit mean the same: "metres" and "m", "USD" and "$"."""
    return _named(one) == _named(other)


def is_money(unit: str) -> bool:
    return _named(unit) in _MONEY


def scale_of(word: str, money: bool) -> Fraction | None:
    """What the word multiplies a number by; None for a unit. money: whether an amount of money is told."""
    name = word.casefold()
    bare = name.removesuffix("s") if len(name) > 3 else name
    if bare == "dozen":
        return Fraction(12)
    power = _CAPITALS.get(word, _POWERS.get(bare, _POWERS_OF_MONEY.get(name) if money else None))
    return None if power is None else Fraction(10) ** power


def may_touch(word: str) -> bool:
    """Whether the word may follow digits without a blank: known units, signs, and scripts that set no blanks."""
    parts = word.casefold().replace("^", "").rstrip("23").split("/")
    return all(part in _TOUCHING.split() for part in parts) or not unicodedata.name(word[0], "").startswith("LATIN")
