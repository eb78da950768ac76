"""What a step printed, as far as its code tells, held against what was observed: so results of calls are found.

    print(f"It says {visualizer(..)}")      observed: It says EXIT      so the call returned EXIT

A text that is printed is a row of pieces: words that the code knows, and results that it does not. Where the pieces
fit the observation in one way only, the results are what stands in their places. Where they fit in several, nothing is
said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from regrpo_jax.records.syntax import evaluated_literal

_LAST = re.compile(r"(?:\A|\n)Last output from code snippet(?: is)?:[ \t]*\n?", re.IGNORECASE)
_PRINTED = re.compile(r"\A\s*(?:Print outputs|Execution logs):[ \t]*\n?", re.IGNORECASE)
_MOST_PIECES = 200


@dataclass(frozen=True)
class Result:
    """What the call of that number returned; `shown` as `repr` writes it, where it stands in a list."""

    call: int
    shown: bool = False


@dataclass(frozen=True)
class Unknown:
    """A value that the code computes and nobody follows."""


@dataclass(frozen=True)
class Text:
    """A text that is made of others: words as they are, results, unknown ones."""

    pieces: tuple[str | Result | Unknown, ...]


UNKNOWN = Unknown()


def text_of(value: Any) -> Text:
    """What `str` makes of a value that may hold results."""
    if isinstance(value, Text):
        return value
    if isinstance(value, str | Result | Unknown):
        return Text((value,))
    return Text(tuple(_shown(value)))


def joined(texts: Sequence[Any], between: str = "") -> Text:
    """The texts of the values, one after another."""
    pieces: list[str | Result | Unknown] = []
    for number, value in enumerate(texts):
        pieces += [between] * bool(number and between) + list(text_of(value).pieces)
    return Text(tuple(pieces))


def holds_results(value: Any) -> bool:
    """Whether a value is not plain: a result or something unknown is in it."""
    if isinstance(value, Text | Result | Unknown):
        return True
    if isinstance(value, Mapping):
        return any(holds_results(item) for item in value.values())
    return isinstance(value, list | tuple) and any(holds_results(item) for item in value)


def _shown(value: Any) -> list[str | Result | Unknown]:
    """As `repr` writes it, results in it left open."""
    if not holds_results(value):
        return [repr(value)]
    if isinstance(value, Result):
        return [Result(value.call, shown=True)]
    if isinstance(value, list | tuple):
        ends = "[]" if isinstance(value, list) else "()"
        pieces: list[str | Result | Unknown] = [ends[0]]
        for number, item in enumerate(value):
            pieces += [", "] * bool(number) + _shown(item)
        return [*pieces, ",)" if isinstance(value, tuple) and len(value) == 1 else ends[1]]
    if isinstance(value, Mapping):
        pieces = ["{"]
        for number, (key, item) in enumerate(value.items()):
            pieces += [", "] * bool(number) + [f"{key!r}: ", *_shown(item)]
        return [*pieces, "}"]
    return [UNKNOWN]


def solved(printed: Sequence[Text], last: Text | None, observed: str) -> dict[int, str]:
    """Call -> its result as text, for those that the observation tells.

    Args:
      printed: what each `print` wrote, its line end included.
      last: what the last expression came to, which frameworks tell behind the printed lines; None for nothing.
      observed: the observation without its header.
    """
    found = _LAST.search(observed)
    head = _PRINTED.sub("", observed[: found.start()] if found else observed, count=1)
    rows = joined(printed)
    if found is None:
        if last is None:
            return _matched(rows, head)
        return _matched(joined([*printed, last]), head)
    end = observed[found.end() :]
    return _matched(rows, head) | ({} if last is None else _matched(last, end))


def _matched(text: Text, observed: str) -> dict[int, str]:
    """The results in a text, if it can be the observed one in a single way."""
    words, gaps = _rows(text)
    if not 0 < len(gaps) <= _MOST_PIECES:
        return {}
    observed = observed.strip()
    first, last = _places(words, observed), _places([word[::-1] for word in reversed(words)], observed[::-1])
    if first is None or last is None:
        return {}
    backwards = [(len(observed) - end, len(observed) - start) for start, end in reversed(last)]
    told: dict[int, str] = {}
    for gap, place, other, after in zip(gaps, first, backwards, words[1:], strict=True):
        if len(gap) != 1 or not isinstance(gap[0], Result):
            continue
        end = place[1] if place == other else _end_of_list(observed, place[0], other, after)
        if end is None:
            continue
        found = observed[place[0] : end]
        found = _unquoted(found) if gap[0].shown else found
        if told.setdefault(gap[0].call, found) != found:
            return {}  # printed twice, and not the same
    return told


def _end_of_list(observed: str, start: int, other: tuple[int, int], after: str) -> int | None:
    """Where a list that begins there ends, whatever follows it; None where none does, or it is not in its place."""
    if start != other[0] or observed[start : start + 1] not in ("[", "{"):
        return None
    closing = "]" if observed[start] == "[" else "}"
    end = observed.find(closing, start) + 1
    while 0 < end <= other[1]:
        if observed.startswith(after, end) and _is_literal(observed[start:end]):
            return end
        end = observed.find(closing, end) + 1
    return None


def _is_literal(words: str) -> bool:
    try:
        evaluated_literal(words)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return False
    return True


def _unquoted(words: str) -> str:
    """The text that `repr` shows; what is none stays as it is."""
    try:
        value = evaluated_literal(words)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return words
    return value if isinstance(value, str) else words


def _rows(text: Text) -> tuple[list[str], list[list[Result | Unknown]]]:
    """Known words and what stands between them: one word more than gaps, the first and the last maybe empty."""
    words, gaps, open_gap = [""], list[list[Result | Unknown]](), False
    for piece in text.pieces:
        if isinstance(piece, str):
            words[-1] += piece
            open_gap = open_gap and not words[-1]
        elif open_gap:
            gaps[-1].append(piece)
        else:
            gaps.append([piece])
            words.append("")
            open_gap = True
    return [words[0].lstrip(), *words[1:-1], words[-1].rstrip()] if gaps else words, gaps


def _places(words: Sequence[str], observed: str) -> list[tuple[int, int]] | None:
    """Start and end of each gap, where every word stands as early as it can; None when they do not fit."""
    if not observed.startswith(words[0]):
        return None
    at, found = len(words[0]), list[tuple[int, int]]()
    for word in words[1:-1]:
        start = observed.find(word, at)
        if start < 0:
            return None
        found.append((at, start))
        at = start + len(word)
    end = len(observed) - len(words[-1])
    return [*found, (at, end)] if end >= at and observed.endswith(words[-1]) else None
