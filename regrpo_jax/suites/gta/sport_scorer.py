"""SPORT's rule for an answer to GTA (arXiv 2504.21561): MAT's, with more ways to write an alias.

An alias is found in any of its forms, anywhere in the answer, ignoring case: numbers from 0 to 10 as words, whole
numbers with and without commas (with one before the last three digits alone, too: `1000,000`), `12%` as `12 %` and so
every number with letters behind it, `PM` as ` PM` or `p.m.`, and `0` as `no`, so that "I do not know" is right where 0
is. What is quoted is over objective records, and beside it over all records with an answer, subjective ones included.
"""

from __future__ import annotations

import re

from regrpo_jax.suites.gta.record_types import Answer

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WITH_UNIT = re.compile(r"^(\d+)([A-Za-z%]+)$")
_PARTED_UNIT = re.compile(r"^(\d+) ([A-Za-z%]+)$")
_COMMAS = re.compile(r"^\d{1,3}(?:,\d{3})+$|^\d+,\d{3}$")
_AFTERNOON = re.compile(r" ?(?:p\.m\.|pm\b)", re.IGNORECASE)


def is_correct(text: str, answer: Answer) -> bool:
    """Whether an objective answer is right; False for records of other kinds."""
    plain = text.lower()
    return answer.objective and all(
        any(form.lower() in plain for alias in group for form in forms(alias)) for group in answer.whitelist
    )


def forms(alias: str) -> tuple[str, ...]:
    """The ways to write an alias, itself first."""
    found = [alias, *_number_words(alias), *_with_commas(alias), *_with_unit(alias)]
    if _AFTERNOON.search(alias):
        found += [_AFTERNOON.sub(form, alias) for form in ("PM", " PM", "p.m.", " p.m.")]
    return tuple(dict.fromkeys(found))


def _number_words(alias: str) -> list[str]:
    if alias.lower() in WORDS:
        alias = str(WORDS.index(alias.lower()))
    if alias not in map(str, range(len(WORDS))):
        return []
    return [alias, WORDS[int(alias)], *(["no"] if alias == "0" else [])]


def _with_commas(alias: str) -> list[str]:
    digits = alias.replace(",", "") if _COMMAS.match(alias) else alias
    if not (digits.isascii() and digits.isdigit() and len(digits) > 3):
        return []
    parts = [digits[max(0, end - 3) : end] for end in range(len(digits), 0, -3)]
    return [digits, ",".join(reversed(parts)), f"{digits[:-3]},{digits[-3:]}"]


def _with_unit(alias: str) -> list[str]:
    if found := _WITH_UNIT.match(alias):
        return [f"{found[1]} {found[2]}"]
    found = _PARTED_UNIT.match(alias)
    return [f"{found[1]}{found[2]}"] if found else []
