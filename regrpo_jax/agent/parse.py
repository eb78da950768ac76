"""What a turn of the policy says, read strictly: its reflection block, thought and code, and what is wrong with it.

Records are written by rules and teachers; a policy writes what it likes. So nothing here raises: a turn that cannot be
read has problems, and where its parts begin and end is known all the same, because that decides what a token is.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from regrpo_jax.records.reflection import split_reflection
from regrpo_jax.records.types import ErrorType

NO_ERROR = "None"  # what a reflection names when nothing had gone wrong; only policies and demonstrations write it
ERROR_TYPES = frozenset({*map(str, ErrorType), NO_ERROR})

_BLOCK = re.compile(
    r"Reflection:\n- ErrorType: (?P<error_type>[^\n]*)\n- Evidence: (?P<evidence>.*?)\n- FixPlan: (?P<fix_plan>.*)",
    re.DOTALL,
)
_FENCE = re.compile(r"```(?P<language>[^\n`]*)\n(?P<code>.*?)```", re.DOTALL)
_PYTHON = frozenset({"", "py", "python"})
_CODE_LABEL = re.compile(r"\bCode\s*:\s*\Z")
_THOUGHT_LABEL = "Thought:"


@dataclass(frozen=True)
class ParsedTurn:
    """A turn, cut up; all places are characters of its text.

    reflection_end: where the block ends, 0 without one. error_type, evidence, fix_plan: as written, "" where they
    cannot be read. malformed: there is a block and a field of it is missing, empty, out of order or unknown.
    action_start: where "Code:" (or the fence) begins, the end of the text when there is no code. code_start, code_end:
    the code inside the fence. problems: names of what is wrong, in order.
    """

    text: str
    reflection_end: int
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
        """Whether the turn opens with a block, well-formed or not."""
        return self.reflection_end > 0


def parse_turn(text: str) -> ParsedTurn:
    """Cut an assistant turn up. Its code is what `records.actions.extract_code` runs."""
    block, action = split_reflection(text)
    error_type, evidence, fix_plan = _fields(block)
    malformed = bool(block) and not (error_type in ERROR_TYPES and evidence and fix_plan)
    fences = [fence for fence in _FENCE.finditer(action) if fence["language"].strip().lower() in _PYTHON]
    fence = fences[0] if fences else None
    before = action if fence is None else action[: fence.start()]
    label = None if fence is None else _CODE_LABEL.search(before)
    thought = before if label is None else before[: label.start()]
    code_start, code_end = (len(action), len(action)) if fence is None else _stripped(action, *fence.span("code"))
    code = action[code_start:code_end]
    return ParsedTurn(
        text=text,
        reflection_end=len(block),
        error_type=error_type,
        evidence=evidence,
        fix_plan=fix_plan,
        malformed=malformed,
        thought=thought.strip().removeprefix(_THOUGHT_LABEL).strip(),
        code=textwrap.dedent(code) if code[:1] in (" ", "\t") else code,
        action_start=len(block) + (len(action) if fence is None else len(thought)),
        code_start=len(block) + code_start,
        code_end=len(block) + code_end,
        problems=_problems(action, fences, malformed=malformed, labelled=label is not None),
    )


def _fields(block: str) -> tuple[str, str, str]:
    match = _BLOCK.fullmatch(block)
    if match is None:
        return "", "", ""
    return match["error_type"].strip(), match["evidence"].strip(), match["fix_plan"].strip()


def _stripped(text: str, start: int, end: int) -> tuple[int, int]:
    """The range without the blank lines around it, as `extract_code` drops them."""
    code = text[start:end]
    start += len(code) - len(code.lstrip("\r\n"))
    return start, max(start, start + len(text[start:end].rstrip()))


def _problems(action: str, fences: list[re.Match[str]], *, malformed: bool, labelled: bool) -> tuple[str, ...]:
    found = {
        "malformed_reflection": malformed,
        "second_reflection": re.search(r"^Reflection:", action, re.MULTILINE) is not None,
        "no_thought": not action.lstrip().startswith(_THOUGHT_LABEL),
        "no_code": not fences or not fences[0]["code"].strip(),
        "no_code_label": bool(fences) and not labelled,
        "several_codes": len(fences) > 1,
        "words_after_code": bool(fences) and bool(action[fences[-1].end() :].strip()),
    }
    return tuple(name for name, wrong in found.items() if wrong)
