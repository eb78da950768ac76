"""Faults in which a tool does answer, and the answer itself says what is wrong with it and what to ask instead.

Each of them is got around by one more keyword of the call (`refresh=True`, `offset=40`, ...), which the answer
names. The status of such an observation is "ok" (or "tool_error" when the fault's parameter `raises` is true): here
the policy has to read, for nothing else tells it.
"""

from __future__ import annotations

import random
import re
from fractions import Fraction
from typing import Any

from regrpo_jax.environments.faults import Fault, FaultKind

_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_NOISE = "#%&@~?"


def option(fault: Fault) -> tuple[str, Any]:
    """The keyword that gets around the fault, and its value."""
    match fault.kind:
        case FaultKind.STALE_VALUE:
            return "refresh", True
        case FaultKind.SLOW_ANSWER:
            return "quick", True
        case FaultKind.TRUNCATED_OUTPUT:
            return "offset", None
        case FaultKind.GARBLED_OUTPUT:
            return "encoding", "utf-8"
        case FaultKind.WRONG_UNIT:
            return "unit", fault.parameters.get("wanted", "ones")
    raise ValueError(f"{fault.kind} is not among the faults that leave an answer")


def seconds(fault: Fault) -> float:
    """How long a slow answer takes."""
    return float(fault.parameters.get("seconds", 0.2))


def text(fault: Fault, tool: str, result: Any) -> str | None:
    """The answer as the fault leaves it, with its note; None when the result gives it nothing to spoil."""
    whole = str(result)
    draw = random.Random(f"{fault.seed}/{fault.target}")
    match fault.kind:
        case FaultKind.STALE_VALUE:
            value = str(fault.parameters.get("value", _outdated(whole, draw)))
            since = fault.parameters.get("since", f"{draw.randint(2015, 2022)}-{draw.randint(1, 12):02}")
            return f"{value}\n(stale: kept since {since} and changed meanwhile; call again with refresh=True)"
        case FaultKind.SLOW_ANSWER:
            return f"{whole}\n(slow: {tool} needed {seconds(fault):g} seconds; with quick=True it answers at once)"
        case FaultKind.TRUNCATED_OUTPUT:
            keep = int(fault.parameters.get("keep", max(1, len(whole) // 2)))
            if len(whole) <= keep:
                return None
            note = f"(truncated: {keep} of {len(whole)} characters; call again with offset={keep} for the rest)"
            return f"{whole[:keep]}\n{note}"
        case FaultKind.GARBLED_OUTPUT:
            note = '(garbled: read with the wrong encoding; call again with encoding="utf-8")'
            return f"{_garbled(whole, draw)}\n{note}"
        case FaultKind.WRONG_UNIT:
            return _in_another_unit(fault, whole)
    raise ValueError(f"{fault.kind} is not among the faults that leave an answer")


def _outdated(whole: str, draw: random.Random) -> str:
    """The text with other numbers of the same length; "unknown" when it has none."""

    def other(match: re.Match[str]) -> str:
        digits = [str((int(digit) + draw.randint(1, 8) - 1) % 9 + 1) for digit in match.group().replace(".", "0")]
        return "".join("." if kept == "." else new for kept, new in zip(match.group(), digits, strict=True))

    changed = _NUMBER.sub(other, whole)
    return changed if changed != whole else "unknown"


def _garbled(whole: str, draw: random.Random) -> str:
    """Every digit and most letters replaced by noise."""
    letters = [
        draw.choice(_NOISE) if letter.isdigit() or (letter.isalpha() and draw.random() < 0.6) else letter
        for letter in whole
    ]
    if letters == list(whole):
        letters[:1] = [draw.choice(_NOISE)]
    return "".join(letters)


def _in_another_unit(fault: Fault, whole: str) -> str | None:
    wanted, unit = fault.parameters.get("wanted", "ones"), fault.parameters.get("unit", "hundredths")
    factor = fault.parameters.get("factor", 100)

    def scaled(match: re.Match[str]) -> str:
        value = Fraction(match.group()) * Fraction(str(factor))
        return str(value.numerator) if value.denominator == 1 else repr(round(float(value), 4))

    changed = _NUMBER.sub(scaled, whole)
    if changed == whole:
        return None
    note = f'(in {unit}, not in {wanted}: 1 of {wanted} is {factor} of {unit}; call again with unit="{wanted}")'
    return f"{changed}\n{note}"
