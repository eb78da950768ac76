"""Values that may cross the border of the sandbox: what JSON can hold, and nothing that has behaviour."""

from __future__ import annotations

import json
from typing import Any

from regrpo_jax.sandbox.capture import text_of, without_addresses

_DEEPEST, _MOST_ITEMS, _MOST_CHARACTERS = 16, 10_000, 32_768
_BITS = 8192  # of an int; Python refuses to print much longer ones


def plain(value: Any, depth: int = _DEEPEST) -> Any:
    """`value` as None, bool, int, float, str, list or dict with str keys; anything else becomes its text.

    Tuples become lists, sets sorted lists, numpy scalars and arrays what `tolist()` gives.
    """
    if value is None or type(value) in (bool, float):
        return value
    if type(value) is int:
        return value if value.bit_length() <= _BITS else f"<int of {value.bit_length()} bits>"
    if isinstance(value, str):
        return str.__str__(value).encode("utf-8", "replace").decode("utf-8")[:_MOST_CHARACTERS]
    if depth and isinstance(value, dict):
        items = list(value.items())[:_MOST_ITEMS]
        return {text_of(key)[:1000].encode("utf-8", "replace").decode(): plain(item, depth - 1) for key, item in items}
    if depth and isinstance(value, list | tuple):
        return [plain(item, depth - 1) for item in value[:_MOST_ITEMS]]
    if depth and isinstance(value, set | frozenset):
        return [plain(item, depth - 1) for item in sorted(value, key=repr)[:_MOST_ITEMS]]
    if depth and callable(getattr(type(value), "tolist", None)):
        return plain(value.tolist(), depth - 1)
    return plain(without_addresses(text_of(value)), 0)


def plain_or_text(value: Any, most_bytes: int) -> Any:
    """`plain(value)`, or its text cut short when its JSON takes more than `most_bytes`."""
    try:
        found = plain(value)
        if len(json.dumps(found)) <= most_bytes:
            return found
    except (ValueError, TypeError, RecursionError, MemoryError):
        pass
    return plain(without_addresses(text_of(value)))[: most_bytes // 12]
