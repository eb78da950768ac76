"""What the host reads out of the last answer of an episode, which the world gave (`world.answer_text`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

CHECK = f"{__name__}:is_valid"


def told_answer(answer: object) -> Mapping[str, Any]:
    """The world's own words; {} for anything else."""
    try:
        told = json.loads(answer) if isinstance(answer, str) else {}
    except ValueError:
        return {}
    return told if isinstance(told, dict) and isinstance(told.get("calls"), list) else {}


def is_valid(answer: object, workspace: object) -> bool:
    """Whether the authors' checker found all requests done."""
    return told_answer(answer).get("valid") is True
