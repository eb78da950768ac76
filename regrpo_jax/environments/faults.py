"""What goes wrong on purpose: a plan of faults, as data, that a task carries with it.

A fault is deterministic and repairable: the observation that it causes holds what a repair needs (the names of
the files, the tools there are, the changed signature, the candidates, the unit), because reading it is the skill
to be learnt. File faults change the workspace before an episode opens (`workspace.py`); tool faults wrap tools
inside the worker (`tool_faults.py`).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ErrorType


class FaultKind(StrEnum):
    """What can go wrong. The first three concern a file, the others a tool."""

    RENAMED_FILE = "renamed_file"
    MISSING_FILE = "missing_file"
    EMPTY_FILE = "empty_file"
    WRONG_REGION = "wrong_region"
    TOOL_UNAVAILABLE = "tool_unavailable"
    SIGNATURE_CHANGED = "signature_changed"
    AMBIGUOUS_QUERY = "ambiguous_query"
    STALE_VALUE = "stale_value"
    TIMEOUT = "timeout"
    SLOW_ANSWER = "slow_answer"
    TRUNCATED_OUTPUT = "truncated_output"
    GARBLED_OUTPUT = "garbled_output"
    WRONG_UNIT = "wrong_unit"


FILE_FAULTS = frozenset({FaultKind.RENAMED_FILE, FaultKind.MISSING_FILE, FaultKind.EMPTY_FILE})
# The tool answers, and its answer says what is wrong with it: the status stays "ok".
SOFT_FAULTS = frozenset(
    {
        FaultKind.STALE_VALUE,
        FaultKind.SLOW_ANSWER,
        FaultKind.TRUNCATED_OUTPUT,
        FaultKind.GARBLED_OUTPUT,
        FaultKind.WRONG_UNIT,
    }
)
# What a reflection on the fault would call it; a task may name another.
USUAL_ERROR_TYPE: Mapping[FaultKind, ErrorType] = {
    FaultKind.RENAMED_FILE: ErrorType.ARG_INVALID,
    FaultKind.MISSING_FILE: ErrorType.ARG_INVALID,
    FaultKind.EMPTY_FILE: ErrorType.INFO_INSUFFICIENT,
    FaultKind.WRONG_REGION: ErrorType.GROUNDING_DRIFT,
    FaultKind.TOOL_UNAVAILABLE: ErrorType.TOOL_MISMATCH,
    FaultKind.SIGNATURE_CHANGED: ErrorType.ARG_INVALID,
    FaultKind.AMBIGUOUS_QUERY: ErrorType.INFO_INSUFFICIENT,
    FaultKind.STALE_VALUE: ErrorType.INFO_INSUFFICIENT,
    FaultKind.TIMEOUT: ErrorType.TOOL_MISMATCH,
    FaultKind.SLOW_ANSWER: ErrorType.TOOL_MISMATCH,
    FaultKind.TRUNCATED_OUTPUT: ErrorType.INFO_INSUFFICIENT,
    FaultKind.GARBLED_OUTPUT: ErrorType.INFO_INSUFFICIENT,
    FaultKind.WRONG_UNIT: ErrorType.INFO_INSUFFICIENT,
}
# The arguments that two kinds are about, the usual one first.
NEEDED: Mapping[FaultKind, tuple[str, ...]] = {
    FaultKind.WRONG_REGION: ("region", "bbox", "prompt"),
    FaultKind.AMBIGUOUS_QUERY: ("query", "question", "object", "text"),
}
# What `parameters` may hold for each kind, and what it means. Each has a default, so that {} is always a whole fault.
# `raises`: true to make an answer with a note an error, whose status the gate sees.
PARAMETERS: Mapping[FaultKind, Mapping[str, str]] = {
    FaultKind.RENAMED_FILE: {"name": "the new name"},
    FaultKind.MISSING_FILE: {"copy": 'where a copy is kept (default "archive/<name>"), None for nowhere'},
    FaultKind.EMPTY_FILE: {"copy": 'where the content is kept (default "<name>_backup"), None for nowhere'},
    FaultKind.WRONG_REGION: {
        "argument": "the one that names a region (default region, bbox or prompt)",
        "actual": "the only region where anything is found; default: the image is upside down",
    },
    FaultKind.TOOL_UNAVAILABLE: {"reason": "words", "instead": "the tool to use"},
    FaultKind.SIGNATURE_CHANGED: {"renamed": "old argument -> new one; positional calls are refused in any case"},
    FaultKind.AMBIGUOUS_QUERY: {
        "argument": "the one that is ambiguous (default query, question, object or text)",
        "candidates": "what may be asked instead: a list, or what is asked -> what the tool is given",
    },
    FaultKind.STALE_VALUE: {"value": "the old answer", "since": "a date", "raises": "bool"},
    FaultKind.TIMEOUT: {
        "seconds": "told, not waited for",
        "advice": "words",
        "hangs": "true to hang until the sandbox kills the action",
    },
    FaultKind.SLOW_ANSWER: {"seconds": "really waited", "raises": "bool"},
    FaultKind.TRUNCATED_OUTPUT: {"keep": "characters (default half of them)", "raises": "bool"},
    FaultKind.GARBLED_OUTPUT: {"raises": "bool"},
    FaultKind.WRONG_UNIT: {
        "unit": "the unit of the answer",
        "wanted": "the unit of the tool, as the instruction takes it to be",
        "factor": "how many of `unit` are 1 of `wanted`",
        "raises": "bool",
    },
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    target: the tool or the file. parameters: plain data, by kind (see `PARAMETERS`). calls: which
    calls of the tool in an episode, counted from 1; () is every call. arguments: only calls that pass these values,
    by name (None: only calls that leave the argument out). seed: decides what parameters do not. UserError for
    parameters that the kind does not have.
    """

    kind: FaultKind
    target: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    calls: tuple[int, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "kind", FaultKind(self.kind))
        unknown = sorted(set(self.parameters) - set(PARAMETERS[self.kind]))
        if unknown:
            known = ", ".join(sorted(PARAMETERS[self.kind]))
            raise UserError(f"fault {self.kind} of {self.target!r} has no parameter {unknown[0]!r}; it has {known}")
        if any(type(number) is not int or number < 1 for number in self.calls):
            raise UserError(f"fault {self.kind} of {self.target!r}: calls are counted from 1, got {self.calls}")

    @property
    def usual_error_type(self) -> ErrorType:
        return USUAL_ERROR_TYPE[self.kind]

    def to_json(self) -> dict[str, Any]:
        """Plain data, as JSON can hold it."""
        return {
            "kind": str(self.kind),
            "target": self.target,
            "parameters": dict(self.parameters),
            "calls": list(self.calls),
            "arguments": dict(self.arguments),
            "seed": self.seed,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Fault:
        """The inverse of `to_json`. UserError when a field is missing or wrong."""
        try:
            return cls(
                kind=FaultKind(data["kind"]),
                target=data["target"],
                parameters=dict(data.get("parameters", {})),
                calls=tuple(data.get("calls", ())),
                arguments=dict(data.get("arguments", {})),
                seed=int(data.get("seed", 0)),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"this is no fault: {type(error).__name__}: {error}") from error


FaultPlan = tuple[Fault, ...]


def sample_faults(
    files: Sequence[str],
    tools: Sequence[str] | Mapping[str, Sequence[str]],
    seed: int,
    rate: float,
    kinds: Sequence[FaultKind] = tuple(FaultKind),
    protected: Sequence[str] = (),
) -> FaultPlan:
    """Let each file and each tool have a fault with probability `rate` (0 to 1), of a kind drawn from `kinds`.

    tools: names, or names with those of their arguments, so that only tools with a region or a query have faults of
    such. The same arguments give the same plan, and a target's draw does not depend on the other targets. `protected`
    targets and final_answer have none. Tools fail in ways that a repaired call gets around: with default parameters
    a tool that is unavailable or times out is so for its first call alone.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"the rate of faults is {rate}; it must be between 0 and 1")
    plan = []
    for of_files, targets in ((True, files), (False, tools)):
        for target in targets:
            possible = [kind for kind in FaultKind if kind in kinds and (kind in FILE_FAULTS) == of_files]
            if not of_files and isinstance(tools, Mapping):
                arguments = set(tools[target])
                possible = [kind for kind in possible if kind not in NEEDED or arguments & set(NEEDED[kind])]
            draw = random.Random(f"{seed}/{'file' if of_files else 'tool'}/{target}")
            if target in protected or target == "final_answer" or not possible or draw.random() >= rate:
                continue
            kind = draw.choice(possible)
            once = kind in (FaultKind.TOOL_UNAVAILABLE, FaultKind.TIMEOUT)
            plan.append(Fault(kind, target, calls=(1,) if once else (), seed=draw.getrandbits(32)))
    return tuple(plan)
