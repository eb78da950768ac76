"""Names of a server's tools and arguments as names of Python, and back: a policy can only call what it can write."""

from __future__ import annotations

import keyword
import re
import unicodedata
from collections.abc import Iterable

# `print` is how a policy sees anything; it and these are no names for a tool or an argument.
_TAKEN = frozenset(("print", "self", "cls"))


def python_name(name: str) -> str:
    """The name as Python reads it, what it cannot read replaced by "_"; itself where Python reads it as it is."""
    text = "".join(
        character if f"a{character}".isidentifier() else "_" for character in unicodedata.normalize("NFKC", name)
    )
    if not text.isidentifier():
        text = f"_{text}"
    return f"{text}_" if keyword.iskeyword(text) or text in _TAKEN else text


def python_names(names: Iterable[str]) -> dict[str, str]:
    """Each name (they differ) with its own in Python; those that need no change have first claim, then the order.

    A change of the order of the others changes nothing: the second of two that come to the same is numbered by the
    alphabet.
    """
    names = list(names)
    kept = {name for name in names if python_name(name) == name}
    found = {name: name for name in kept}
    taken = set(kept)
    for name in sorted(set(names) - kept):
        wanted = python_name(name)
        number, free = 1, wanted
        while free in taken:
            number += 1
            free = f"{re.sub('_+$', '', wanted)}_{number}"
        found[name] = free
        taken.add(free)
    return {name: found[name] for name in names}
