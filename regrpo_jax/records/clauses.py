"""An observation cut into the clauses that a reflection may quote, without the header the runtime puts before them.

A clause is a sentence, a line, or one member of a list of facts (`"Ann" at "bridge", "Leo" at "tiger"`). Every
clause is a span of the observation, so that quoting it is citing it.
"""

from __future__ import annotations

import re

# What frames the result and says nothing of it: the failing line, and what agent frameworks print around a value.
_HEADER = re.compile(r"\A\s*Error at `[^\n]*?`:\s*|\A\s*Error:\s*")
_WRAPPER = re.compile(
    r"^[ \t]*(?:Print outputs|Execution logs|Last output from code snippet(?: is)?|Error):[ \t]*$", re.MULTILINE
)
_QUOTED = r"\"[^\"\n]*\"|(?<!\w)'[^'\n]*'(?!\w)|`[^`\n]*`"
# A comma ends a clause only where another fact of a list begins: a quoted name or a number.
_BREAK = re.compile(rf"(?:{_QUOTED})|(?P<end>[.;!?](?=\s|\Z)|\n+|,(?=\s+[\"'\d]))")
_VALUE = re.compile(r"\"(?P<double>[^\"\n]*)\"|(?<!\w)'(?P<single>[^'\n]*)'(?!\w)|(?P<number>-?\d[\d,]*(?:\.\d+)?)")


def body_start(observation: str) -> int:
    """Where the observation begins to tell something: after "Error at `code`:" or "Error:", else 0."""
    header = _HEADER.match(observation)
    return header.end() if header else 0


def clauses(observation: str) -> tuple[str, ...]:
    """The clauses of an observation in order, stripped, each a substring of it; () when it has no text."""
    start = body_start(observation)
    body = _WRAPPER.sub(lambda match: "\n" * len(match.group()), observation[start:])
    ends = [match for match in _BREAK.finditer(body) if match["end"]]
    starts = [0, *(match.end() for match in ends)]
    pieces = (body[a:b].strip() for a, b in zip(starts, [*(m.start("end") for m in ends), len(body)], strict=True))
    return tuple(piece for piece in pieces if any(character.isalnum() for character in piece))


def values_in(text: str) -> tuple[str, ...]:
    """The names in quotes and the bare numbers of a text, in order, without their quotes."""
    return tuple(next(value for value in match.groups() if value is not None) for match in _VALUE.finditer(text))


def slots_of(text: str, value: str) -> frozenset[str]:
    """The words right before `value` where it stands in quotes: what the value is to its clause."""
    found = re.finditer(rf"(?P<slot>[\w-]+)[ \t]+[\"']{re.escape(value)}[\"']", text)
    return frozenset(match["slot"] for match in found)


def values_in_slot(text: str, slots: frozenset[str]) -> tuple[str, ...]:
    """The quoted names that stand behind one of these words, in order."""
    found = re.finditer(r"(?P<slot>[\w-]+)[ \t]+(?:\"(?P<double>[^\"\n]*)\"|'(?P<single>[^'\n]*)')", text)
    return tuple(match["double"] or match["single"] or "" for match in found if match["slot"] in slots)


def holds_value(clause: str, value: str) -> bool:
    """Whether the clause names the value: in quotes, as a number, or as a word of its own."""
    return value in values_in(clause) or bool(value.strip()) and _as_word(value).search(clause) is not None


def _as_word(value: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w.]){re.escape(value)}(?!\w|\.\w)")
