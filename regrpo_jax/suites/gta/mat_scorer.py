"""MAT's rule for an answer to GTA (arXiv 2412.15606): one alias of each group anywhere in it, ignoring case.

No word boundaries and no blacklist, so that "12" is found in "1,125". Only objective records have a right answer; what
is quoted is over these, and beside it over all records of the dataset.
"""

from __future__ import annotations

from regrpo_jax.suites.gta.record_types import Answer


def is_correct(text: str, answer: Answer) -> bool:
    """Whether an objective answer is right; False for records of other kinds."""
    plain = text.lower()
    return answer.objective and all(any(alias.lower() in plain for alias in group) for group in answer.whitelist)
