"""The words of the rule-based teacher: how a span is introduced, and how a difference of two actions reads as a plan.

Only values are named, never the corrected code: a plan that holds the code would leave nothing to act out.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence

from regrpo_jax.records.differences import Change, ChangeKind
from regrpo_jax.records.types import ErrorType

_MOST_CHARACTERS = 100  # of a value that a plan quotes
_MOST_CHANGES = 3  # that a plan names

_SHORT: dict[ChangeKind, str] = {
    ChangeKind.TOOL: "call {new}",
    ChangeKind.ARGUMENT: "use {new}",
    ChangeKind.ADDED: "add {new}",
    ChangeKind.REMOVED: "drop {old}",
    ChangeKind.RENAMED: "name it {new}",
    ChangeKind.KEY: "use {new}",
    ChangeKind.ANSWER: "answer {new}",
    ChangeKind.CODE: "mend the code",
}
_PLANS: dict[ChangeKind, tuple[str, ...]] = {
    ChangeKind.TOOL: (
        "call {new} instead of {old}",
        "switch from {old} to {new}",
        "leave {old} and use the tool {new}",
    ),
    ChangeKind.ARGUMENT: (
        "replace {old} with {new} in the call of {tool}",
        "call {tool} with {new} instead of {old}",
        "change {old} to {new}",
    ),
    ChangeKind.ADDED: (
        "add {new} to the call of {tool}",
        "give {tool} {new} as well",
        "call {tool} with {new} too",
    ),
    ChangeKind.REMOVED: (
        "drop {old} from the call of {tool}",
        "call {tool} without {old}",
        "leave {old} out",
    ),
    ChangeKind.RENAMED: (
        "pass the argument {old} of {tool} as {new}",
        "give {tool} its value as {new}, not as {old}",
    ),
    ChangeKind.KEY: (
        "take {new} instead of {old}",
        "read {new}, not {old}",
        "replace the key {old} with {new}",
    ),
    ChangeKind.ANSWER: (
        "commit to {new} as the final answer",
        "end the task with the answer {new}",
        "give {new} as the answer",
    ),
    ChangeKind.CODE: (
        "write the code again so that it runs, with the same aim",
        "mend the code around the call and run it again",
        "correct the code before calling the tool again",
    ),
}
_CAUSES: dict[ErrorType, tuple[str, ...]] = {
    ErrorType.GROUNDING_DRIFT: (
        "the action looked at the wrong place",
        "what was looked for is not where the action pointed",
        "the region or thing that was asked for is not the right one",
    ),
    ErrorType.TOOL_MISMATCH: (
        "this tool is not the one for the task",
        "another tool has to do this",
        "the chosen tool cannot give what is needed",
    ),
    ErrorType.ARG_INVALID: (
        "an argument of the call was not valid",
        "the call was given a wrong value",
        "the tool could not work with what it was given",
    ),
    ErrorType.INFO_INSUFFICIENT: (
        "the call said too little",
        "more has to be told to the tool",
        "what was asked is not specific enough",
    ),
    ErrorType.NON_COMMIT: (
        "the result was not committed to",
        "the step left the decision open",
        "nothing has been answered yet",
    ),
    ErrorType.CODE_ERROR: (
        "the code itself did not work",
        "the failure lies in how the code was written",
        "the code has to be written in another way",
    ),
}
_FRAMES = (
    "The observation says '{span}', so {cause}.",
    "It returned '{span}': {cause}.",
    "'{span}' was returned, which means that {cause}.",
    "What came back is '{span}'; {cause}.",
)


# The value is right and its keyword is not: it goes by its position.
_SHORT_BY_POSITION = "drop {old}"
_PLANS_BY_POSITION = (
    "call {tool} with the same value and without the keyword {old}",
    "leave the keyword {old} out and give {tool} the value by its position",
)


def _quoted(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)


def _nameable(change: Change) -> bool:
    return max(len(change.old), len(change.new)) <= _MOST_CHARACTERS and "\n" not in change.old + change.new


def _told(changes: Sequence[Change]) -> list[Change]:
    """The changes that a plan can name; the code as a whole where it can name none."""
    named = [change for change in changes if _nameable(change)][:_MOST_CHANGES]
    return named or [Change(ChangeKind.CODE)]


def short_plan(changes: Sequence[Change]) -> str:
    """A few words with every name in quotes: `use "tiger"`, `call "pick"`, `add "Oslo"`."""
    return ", ".join(
        (_SHORT_BY_POSITION if _by_position(change) else _SHORT[change.kind]).format(
            old=_quoted(change.old), new=_quoted(change.new)
        )
        for change in _told(changes)
    )


def _by_position(change: Change) -> bool:
    return change.kind == ChangeKind.RENAMED and change.new.isdigit() and not change.old.isdigit()


def _clause(change: Change, rng: random.Random) -> str:
    return rng.choice(_PLANS_BY_POSITION if _by_position(change) else _PLANS[change.kind]).format(
        old=_quoted(change.old), new=_quoted(change.new), tool=change.tool or "the tool"
    )


def plan_sentence(changes: Sequence[Change], facts: Sequence[str], rng: random.Random) -> str:
    """What to change and to what, in a sentence; the facts that lead there, where given, come first."""
    clauses = [_clause(change, rng) for change in _told(changes)]
    plan = ", then ".join(clauses)
    lead = f"Since {' and '.join(facts)}, " if facts else ""
    return f"{lead}{plan}." if lead else f"{plan[0].upper()}{plan[1:]}."


def evidence_sentence(error_type: ErrorType, span: str, rng: random.Random) -> str:
    """The span, quoted as it stands in the observation, and what it says about the failure."""
    return rng.choice(_FRAMES).format(span=span, cause=rng.choice(_CAUSES[error_type]))
