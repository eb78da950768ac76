"""Values that may cross the border of the sandbox: what JSON can hold, and nothing that has behaviour."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from regrpo_jax.sandbox.capture import text_of, without_addresses

_BITS = 8192  # of an int; Python refuses to print much longer ones
_KEY = 1000  # characters of a key


class TooLarge(Exception):
    """A value that cannot be passed on as a whole; the words say what of it is too large, and what may be sent."""


@dataclass(frozen=True)
class _Limits:
    """deepest: lists in lists. items: of each list or dict. characters: of each text. cut: shorten what is beyond."""

    deepest: int = 16
    items: int = 10_000
    characters: int = 32_768
    cut: bool = True

    def size(self, length: int, most: int, what: str) -> int:
        """How much of it may stay. TooLarge where that is not all, and nothing may be cut."""
        if length > most and not self.cut:
            raise TooLarge(f"{length:,} {what}, at most {most:,} can be passed on")
        return min(length, most)


_CUT = _Limits()


def plain(value: Any, limits: _Limits = _CUT, depth: int = 0) -> Any:
    """`value` as None, bool, int, float, str, list or dict with str keys; anything else becomes its text.

    Tuples become lists, sets sorted lists, numpy scalars and arrays what `tolist()` gives.
    """
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is int:
        if limits.size(value.bit_length(), _BITS, "bits of an int") == value.bit_length():
            return value
        return f"<int of {value.bit_length()} bits>"
    if isinstance(value, str):
        return _text(str.__str__(value), limits, limits.characters)
    holds = isinstance(value, dict | list | tuple | set | frozenset)
    if holds and limits.size(depth + 1, limits.deepest, "levels of lists and dicts") > depth:
        kept = limits.size(len(value), limits.items, "items")
        if isinstance(value, dict):
            pairs = list(value.items())[:kept]
            return {_text(text_of(key), limits, _KEY): plain(item, limits, depth + 1) for key, item in pairs}
        ordered = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
        return [plain(item, limits, depth + 1) for item in ordered[:kept]]
    if depth < limits.deepest and callable(getattr(type(value), "tolist", None)):
        return plain(value.tolist(), limits, depth + 1)
    return _text(without_addresses(text_of(value)), limits, limits.characters)


def _text(text: str, limits: _Limits, most: int) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")[: limits.size(len(text), most, "characters of a text")]


def whole(value: Any, most_bytes: int) -> Any:
    """`plain(value)` with nothing of it left out. TooLarge when its JSON takes more than `most_bytes`."""
    try:
        found = plain(value, _Limits(items=most_bytes, characters=most_bytes, cut=False))
        size = len(json.dumps(found))
    except (ValueError, TypeError, RecursionError, MemoryError) as error:
        raise TooLarge(f"it cannot be written as JSON ({type(error).__name__})") from error
    if size > most_bytes:
        raise TooLarge(f"{size:,} bytes as JSON, at most {most_bytes:,} can be passed on")
    return found


def plain_or_text(value: Any, most_bytes: int) -> Any:
    """`plain(value)`, or its text cut short when its JSON takes more than `most_bytes`."""
    try:
        found = plain(value)
        if len(json.dumps(found)) <= most_bytes:
            return found
    except (ValueError, TypeError, RecursionError, MemoryError):
        pass
    return plain(without_addresses(text_of(value)))[: most_bytes // 12]
