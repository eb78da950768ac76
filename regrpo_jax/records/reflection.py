"""The reflection block as text: written, read back, cut off a turn, and checked against its source.

The block opens an assistant turn and the action follows it, so where it ends decides which tokens pay the
reflection cost `C(tau)` and which are action tokens. That boundary is defined once, here.

Reading a block is strict, charging for one is not: however a policy decorates the heading, and wherever outside its
code it begins a block, the tokens are those of a reflection.
"""

from __future__ import annotations

import re

from regrpo_jax.records.fences import find_code
from regrpo_jax.records.types import ErrorType, Reflection

_DECORATION = r"(?:(?![\r\n])[\W_])*"  # blanks, #, *, -, > and the like
_WORDS = rf"(?:self[ -])?reflections?(?={_DECORATION}(?:[:：]|\r?$))"
_FIRST_FIELD = rf"error[_-]?type{_DECORATION}[:：]"
_HEADING = rf"^{_DECORATION}(?:\d+[.)]{_DECORATION})?(?i:(?P<words>{_WORDS})|{_FIRST_FIELD})"
_BLOCK_OPENS = re.compile(_HEADING, re.MULTILINE)
_LEADING = re.compile(rf"(?:{_DECORATION}\r?\n)*{_HEADING}", re.MULTILINE)
# A field may run over several lines (teachers quote tracebacks), but never into the action. The plan, the
# last field, also ends before a blank line.
_ACTION_OPENS = r"[ \t>*_#]*(?:Thought|Code)[ \t*_]*:|[ \t]*(?:```|~~~)"
_NEXT_BLOCK = rf"{_DECORATION}(?i:{_WORDS})"
_FIELDS = re.compile(
    r"Reflection:\n- ErrorType: (?P<error_type>[^\n]*)\n"
    rf"- Evidence: (?P<evidence>(?:(?!\n(?:{_ACTION_OPENS}|{_NEXT_BLOCK})).)*?)\n- FixPlan: (?P<fix_plan>.*?)"
    rf"(?:\n(?=[ \t]*\n|[ \t]*\Z|{_ACTION_OPENS}|{_NEXT_BLOCK})|\Z)",
    re.DOTALL | re.MULTILINE,
)
_ACTION_LINE = re.compile(rf"^(?:{_ACTION_OPENS})", re.MULTILINE)
_TOKEN = re.compile(r"[a-z0-9_./:-]+")
_WORD = re.compile(r"[A-Za-z0-9_]+|[^\sA-Za-z0-9_]")
_TELLING_TOKEN_LENGTH = 4
_SHARED_TOKENS_NEEDED = 2
_SPAN_WORDS, _SPAN_CHARACTERS = 2, 8


def render_reflection(reflection: Reflection) -> str:
    """Write a reflection as the block that opens an assistant turn; its last character is a newline."""
    return (
        "Reflection:\n"
        f"- ErrorType: {reflection.error_type.value}\n"
        f"- Evidence: {reflection.evidence}\n"
        f"- FixPlan: {reflection.fix_plan}\n"
    )


def parse_reflection(text: str) -> Reflection | None:
    """Read the block at the start of `text` (a whole turn or the block alone).

    None when the block is absent, a field is missing, empty or out of order, the error type is not one of the six, or
    a second block follows at once.
    """
    match = _FIELDS.match(text)
    if match is None or match["error_type"] not in set(ErrorType) or count_blocks(split_reflection(text)[0]) > 1:
        return None
    evidence, fix_plan = match["evidence"].strip(), match["fix_plan"].strip()
    if not evidence or not fix_plan:
        return None
    return Reflection(ErrorType(match["error_type"]), evidence, fix_plan)


def split_reflection(turn_text: str) -> tuple[str, str]:
    """Cut a turn into (reflection block with its trailing newline, the rest); joined they are the turn.

    ("", turn_text) when the turn does not open with the heading of a block. A malformed block is cut as well, up to the
    line that opens the action or to the end, and so are blocks that follow each other: a policy must not escape the
    reflection cost by misspelling a heading or a field.
    """
    end = 0
    while heading := _LEADING.match(turn_text, end):
        end = _block_end(turn_text, end, heading.end())
    return turn_text[:end], turn_text[end:]


def _block_end(text: str, start: int, heading_end: int) -> int:
    match = _FIELDS.match(text, start)
    if match is not None:
        return match.end()
    action = _ACTION_LINE.search(text, heading_end)
    return len(text) if action is None else action.start()


def reflection_ranges(turn_text: str) -> tuple[tuple[int, int], ...]:
    """All that is charged as reflection, in order: the opening of the turn, and blocks begun later outside its code."""
    opening, rest = split_reflection(turn_text)
    block, start = find_code(rest), len(opening)
    found = [(0, start)] if opening else []
    outside = [(0, len(rest))] if block is None else [(0, block.start), (block.end, len(rest))]
    for begin, end in outside:
        while heading := _BLOCK_OPENS.search(rest, begin, end):
            action = _ACTION_LINE.search(rest, heading.end(), end)
            begin = end if action is None else action.start()
            found.append((start + heading.start(), start + begin))
    return tuple(found)


def count_blocks(block: str) -> int:
    """How many blocks a reflection's text holds: by their headings, or by their first fields where they have none."""
    headings = [match["words"] is not None for match in _BLOCK_OPENS.finditer(block)]
    return max(headings.count(True), headings.count(False))


def _tokens(text: str) -> set[str]:
    return {token for token in _TOKEN.findall(text.lower()) if len(token) >= 2}


def evidence_grounded(evidence: str, observation: str) -> bool:
    """Whether the evidence shares wording with the observation, by the rule of the authors' release.

    True when a token of the observation with at least 4 characters occurs in the evidence, or at least 2
    tokens of at least 2 characters are shared. Case does not matter. Source: regrpo/common/schema.py of
    showlab/ReGRPO.
    """
    if not evidence or not observation:
        return False
    observed, lowered = _tokens(observation), evidence.lower()
    if any(len(token) >= _TELLING_TOKEN_LENGTH and token in lowered for token in observed):
        return True
    return len(observed & _tokens(evidence)) >= _SHARED_TOKENS_NEEDED


def cites_observation(evidence: str, observation: str) -> bool:
    """`evidence_grounded`, or the evidence quotes the whole observation.

    The second clause is ours: the release's tokens are Latin letters and digits, so that evidence quoting
    "[]" or a text in another script could never be grounded by its rule.
    """
    whole = observation.strip()
    return evidence_grounded(evidence, observation) or bool(whole and whole in evidence)


def telling_span(evidence: str, observation: str) -> str:
    """The quoted span where it is long enough to tell something, else "".

    At least two words and eight characters, or the whole observation, which may be as short as "[]".
    """
    whole = observation.strip()
    if whole and whole in evidence:
        return whole
    span = quoted_span(evidence, observation)
    words = [match for match in _WORD.finditer(span) if match.group()[0].isalnum()]
    return span if len(words) >= _SPAN_WORDS and len(span) >= _SPAN_CHARACTERS else ""


def quoted_span(evidence: str, observation: str) -> str:
    """The longest run of words of the observation that the evidence repeats; "" when they share none.

    Words are runs of ASCII letters and digits; every other character but white space is a word of its own,
    which makes the measure one of characters for scripts without spaces. Case and white space between words
    do not matter; the longest run is the one with most characters. For gates stricter than
    `evidence_grounded`. Cost: len(evidence) x len(observation) words.
    """
    quoted = [match.group().lower() for match in _WORD.finditer(evidence)]
    positions: dict[str, list[int]] = {}
    for index, word in enumerate(quoted):
        positions.setdefault(word, []).append(index)
    best_length, best_span = 0, (0, 0)
    runs: dict[int, tuple[int, int]] = {}  # position in the evidence -> (characters, start in the observation)
    for match in _WORD.finditer(observation):
        word = match.group().lower()
        previous, runs = runs, {}
        for index in positions.get(word, ()):
            length, start = previous.get(index - 1, (0, match.start()))
            runs[index] = (length + len(word), start)
            if length + len(word) > best_length:
                best_length, best_span = length + len(word), (start, match.end())
    return observation[best_span[0] : best_span[1]]
