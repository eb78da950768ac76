"""What a turn of the policy says, read strictly: its reflection block, thought and code, and what is wrong with it.

Records are written by rules and teachers; a policy writes what it likes. So nothing here raises: a turn that cannot be
read has problems, and where its parts begin and end is known all the same, because that decides what a token is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from regrpo_jax.records.fences import CodeBlock, chosen, code_blocks, executable
from regrpo_jax.records.reflection import count_blocks, reflection_ranges, split_reflection
from regrpo_jax.records.types import ErrorType

NO_ERROR = "None"  # what a reflection names when nothing had gone wrong; only policies and demonstrations write it
ERROR_TYPES = frozenset({*map(str, ErrorType), NO_ERROR})

_BLOCK = re.compile(
    r"Reflection:\n- ErrorType: (?P<error_type>[^\n]*)\n- Evidence: (?P<evidence>.*?)\n- FixPlan: (?P<fix_plan>.*)",
    re.DOTALL,
)
_THOUGHT_LABEL = "Thought:"


@dataclass(frozen=True)
class ParsedTurn:
    """A turn, cut up; all places are characters of its text.

    reflection_end: where the block that opens the turn ends, 0 without one. reflections: the ranges of all that is
    charged as reflection, that one first. error_type, evidence, fix_plan: of the first block, as written, "" where they
    cannot be read. malformed: there is a block and a field of it is missing, empty, out of order or unknown, or there
    is a second one, or it does not open the turn.
    action_start: where "Code:" (or the fence) begins, the end of the text when there is no code. code_start, code_end:
    the code inside the fence. problems: names of what is wrong, in order.
    """

    text: str
    reflection_end: int
    reflections: tuple[tuple[int, int], ...]
    error_type: str
    evidence: str
    fix_plan: str
    malformed: bool
    thought: str
    code: str
    action_start: int
    code_start: int
    code_end: int
    problems: tuple[str, ...]

    @property
    def reflects(self) -> bool:
        """Whether the turn holds a block, well-formed or not."""
        return bool(self.reflections)


def parse_turn(text: str) -> ParsedTurn:
    """Cut an assistant turn up. Its code is what `records.actions.extract_code` runs."""
    block, action = split_reflection(text)
    charged = reflection_ranges(text)
    blocks = sum(max(1, count_blocks(text[start:end])) for start, end in charged)
    error_type, evidence, fix_plan = _fields(block)
    well_formed = error_type in ERROR_TYPES and evidence and fix_plan and blocks == 1
    fences = code_blocks(action)
    code = chosen(fences)
    start = len(action) if code is None else code.start
    code_start, code_end = (len(action), len(action)) if code is None else (code.code_start, code.code_end)
    return ParsedTurn(
        text=text,
        reflection_end=len(block),
        reflections=charged,
        error_type=error_type,
        evidence=evidence,
        fix_plan=fix_plan,
        malformed=bool(charged) and not well_formed,
        thought=action[:start].strip().removeprefix(_THOUGHT_LABEL).strip(),
        code=executable(action[code_start:code_end]),
        action_start=len(block) + start,
        code_start=len(block) + code_start,
        code_end=len(block) + code_end,
        problems=_problems(action, fences, malformed=bool(charged) and not well_formed, second=blocks > 1),
    )


def _fields(block: str) -> tuple[str, str, str]:
    match = _BLOCK.fullmatch(block)
    if match is None:
        return "", "", ""
    return match["error_type"].strip(), match["evidence"].strip(), match["fix_plan"].strip()


def _problems(action: str, fences: tuple[CodeBlock, ...], *, malformed: bool, second: bool) -> tuple[str, ...]:
    code, closed = chosen(fences), [fence for fence in fences if fence.closed]
    found = {
        "malformed_reflection": malformed,
        "second_reflection": second,
        "no_thought": not action.lstrip().startswith(_THOUGHT_LABEL),
        "no_code": code is None or code.code_start == code.code_end,
        "no_code_label": code is not None and not code.labelled,
        "several_codes": len(closed) > 1,
        "words_after_code": bool(closed) and bool(action[closed[-1].end :].strip()),
    }
    return tuple(name for name, wrong in found.items() if wrong)
