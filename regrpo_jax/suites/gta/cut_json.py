"""What can still be read of a JSON object that was cut off, as by a program that was ended while it wrote."""

from __future__ import annotations

import json
from typing import Any

_SPACE = " \t\r\n"


def whole_members(text: str) -> dict[str, Any]:
    """The members of the outermost object that are complete, in order; none where it is no object."""
    decoder = json.JSONDecoder()
    found: dict[str, Any] = {}
    place = _after_space(text, 0)
    if text[place : place + 1] != "{":
        return found
    try:
        while True:
            key, place = decoder.raw_decode(text, _after_space(text, place + 1))
            place = _after_space(text, place)
            if not isinstance(key, str) or text[place : place + 1] != ":":
                return found
            value, end = decoder.raw_decode(text, _after_space(text, place + 1))
            place = _after_space(text, end)
            if text[place : place + 1] not in (",", "}"):  # a number may have been cut
                return found
            found[key] = value
    except (ValueError, RecursionError):
        return found


def _after_space(text: str, place: int) -> int:
    while place < len(text) and text[place] in _SPACE:
        place += 1
    return place
