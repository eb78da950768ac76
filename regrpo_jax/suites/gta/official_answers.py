"""GTA's rule for an answer (`iscorrect` and `simscore` of `opencompass/datasets/gta_bench.py`, open-compass/GTA).

Each group of the whitelist needs one alias between word boundaries, ignoring case, and none of the blacklist may be
there. A word boundary is one between a letter or digit and something else, so that an alias that starts or ends with
another character is found only beside a letter: `-2` is not found in "-2", nor `$3120` in "$3120".
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from regrpo_jax.suites.gta.record_types import Answer
from regrpo_jax.suites.gta.similarity import Similarity


def is_correct(text: str, answer: Answer) -> bool:
    """Whether an objective answer is right."""
    if not all(_found(group, text) for group in answer.whitelist):
        return False
    return not answer.blacklist or not _found((alias for group in answer.blacklist for alias in group), text)


def answer_score(text: str, answer: Answer, similarity: Similarity) -> float:
    """1 or 0 for an objective answer, how like the best reference a subjective one is, 0 where an image is asked."""
    if answer.objective:
        return float(is_correct(text, answer))
    return max((similarity(text, reference) for reference in answer.references), default=0.0)


def _found(aliases: Iterable[str], text: str) -> bool:
    return re.search(rf"\b(?:{'|'.join(map(re.escape, aliases))})\b", text, re.IGNORECASE) is not None
