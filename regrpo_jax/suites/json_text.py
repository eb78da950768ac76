"""JSON that tells of keys which an object has twice: Python's reader keeps the last one and says nothing."""

from __future__ import annotations

import json
from typing import Any


def parsed(text: str) -> tuple[Any, tuple[str, ...]]:
    """The value, and the keys that are there twice in an object; of two the last one counts. ValueError: no JSON."""
    twice: list[str] = []

    def paired(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                twice.append(f'"{key}"')
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=paired), tuple(twice)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
