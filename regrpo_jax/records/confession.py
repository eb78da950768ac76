"""Failed actions that give their failure away: no policy thinks "I will read the wrong file" and then does it."""

from __future__ import annotations

import re

from regrpo_jax.records.actions import split_action

_CONFESSION = re.compile(
    r"\b(?:wrong\w*|mistak\w*|incorrect\w*|erroneous\w*|misspel\w*|mistyp\w*|typos?|deliberate\w*|intentional\w*"
    r"|on purpose|oops)\b",
    re.IGNORECASE,
)
_COMMENT = re.compile(r"(?:^|\s)#(?P<words>[^\n]*)")


def confession(failed_action: str, task: str = "") -> str:
    """The first word of the thought, or of a comment in the code, that confesses the failure; "" when none does.

    A word of the task itself confesses nothing: "which answer is wrong?" may be asked.
    """
    thought, code = split_action(failed_action)
    said = [thought, *(match["words"] for match in _COMMENT.finditer(code))]
    asked = {match.group().lower() for match in _CONFESSION.finditer(task)}
    words = (match.group() for text in said for match in _CONFESSION.finditer(text))
    return next((word for word in words if word.lower() not in asked), "")
