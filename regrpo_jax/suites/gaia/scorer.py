"""GAIA's rule for an answer, as the public leaderboard has it (`scorer.py` of the space gaia-benchmark/leaderboard).

The right answer decides how it is compared: as a number where Python's `float` reads it, as a list where it has a comma
or a semicolon, else as text. Numbers must be equal to the last bit once `$`, `%` and `,` are taken out; what is then no
number counts as infinite, so that a right answer of `inf` accepts every such text. Texts are compared without
white space, case and ASCII punctuation; those of a list with punctuation. An answer that is missing is the text "None".
"""

from __future__ import annotations

import math
import re
import string

from regrpo_jax.environments.own_check import CheckedWorkspace

CHECK = f"{__name__}:check"
UNSCORED = "?"  # the right answer of a test question, which only the leaderboard knows
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def question_scorer(answer: str | None, right: str) -> bool:
    """Whether an answer is right."""
    text = "None" if answer is None else answer
    if (number := _float(right)) is not None:
        return _number(text) == number
    if "," in right or ";" in right:
        parts, wanted = re.split("[,;]", text), re.split("[,;]", right)
        return len(parts) == len(wanted) and all(map(_same_part, parts, wanted))
    return _bare(text).translate(_NO_PUNCTUATION) == _bare(right).translate(_NO_PUNCTUATION)


def is_infinite(right: str) -> bool:
    """Whether a right answer is read as an infinite number, which every text without a number equals."""
    number = _float(right)
    return number is not None and math.isinf(number) and number > 0


def check(answer: object, workspace: CheckedWorkspace, expected: str) -> bool:
    """Whether an episode's answer is right; one without a known right answer never is."""
    return expected != UNSCORED and question_scorer(None if answer is None else str(answer), expected)


def _same_part(part: str, wanted: str) -> bool:
    if (number := _float(wanted)) is not None:
        return _number(part) == number
    return _bare(part) == _bare(wanted)


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _number(text: str) -> float:
    for mark in "$%,":
        text = text.replace(mark, "")
    number = _float(text)
    return math.inf if number is None else number


def _bare(text: str) -> str:
    return re.sub(r"\s", "", text).lower()
