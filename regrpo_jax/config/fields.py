"""What a field may be, beside its default: `rank = at_least(1, 8)`. A plain value may be any of its type."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict, config_dict


@dataclass(frozen=True)
class Field:
    """holds: whether a value is one that means something; None is not asked about. remedy: what to do if not.

    choices: where there are only so many values, or parts of one.
    """

    default: Any
    holds: Callable[[Any], bool]
    remedy: str
    choices: tuple[str, ...] = ()


def one_of(default: str, *others: str) -> Field:
    """A choice."""
    choices = (default, *others)
    return Field(default, lambda value: value in choices, f"choose {' or '.join(map(repr, choices))}", choices)


def some_of(default: Sequence[str], known: Sequence[str]) -> Field:
    """One or more choices."""
    remedy = f"choose some of {', '.join(known)}"
    return Field(tuple(default), lambda values: bool(values) and set(values) <= set(known), remedy, tuple(known))


def places(default: str, *others: str) -> Field:
    """Some of these or none, each once: words, and words with something of one's own behind a colon."""
    alone = {known for known in (default, *others) if ":" not in known}
    kinds = {known.partition(":")[0] for known in others if ":" in known}

    def holds(values: Any) -> bool:
        parts = [value.partition(":") for value in values if isinstance(value, str)]
        fit = [word in alone if not colon else word in kinds and bool(rest) for word, colon, rest in parts]
        return len(fit) == len(values) and all(fit) and len({word for word, _, _ in parts}) == len(values)

    return Field((default,), holds, f"list some of {', '.join(map(repr, (default, *others)))}, each kind once")


def at_least(lowest: float, default: float) -> Field:
    """A number that may be `lowest`."""
    return Field(default, lambda value: lowest <= value < math.inf, f"it must be at least {lowest}")


def above_zero(default: Any, *, optional: bool = False) -> Field:
    """A positive number. optional: `default` is the type of it, and None its value."""
    given = config_dict.placeholder(default) if optional else default
    return Field(given, lambda value: 0 < value < math.inf, "it must be above 0")


def optional(kind: type) -> Field:
    """Any value of a type, or None, which it is."""
    return Field(config_dict.placeholder(kind), lambda value: True, "")


def share(default: float, *, above: bool = False, below: bool = False) -> Field:
    """A number from 0 to 1. above: not 0. below: not 1."""
    wanted = "above 0 and at most 1" if above else "at least 0 and below 1" if below else "between 0 and 1"
    return Field(
        default,
        lambda value: 0 <= value <= 1 and not (above and value == 0) and not (below and value == 1),
        f"it must be {wanted}",
    )


def lengths(*default: int) -> Field:
    """One or more numbers of tokens."""
    return Field(
        default,
        lambda values: bool(values) and all(isinstance(value, int) and value > 0 for value in values),
        "list one or more lengths in tokens",
    )


def multiple_of(step: int, default: int) -> Field:
    """A positive multiple."""
    return Field(default, lambda value: value >= step and value % step == 0, f"it must be a multiple of {step}")


def declared_fields(declared: ConfigDict, prefix: str = "") -> dict[str, Field]:
    """What each field may be that says so, flat: {"objective.eta": ..}."""
    found: dict[str, Field] = {}
    for name, value in declared.items():
        if isinstance(value, ConfigDict):
            found |= declared_fields(value, f"{prefix}{name}.")
        elif isinstance(value, Field):
            found[f"{prefix}{name}"] = value
    return found


def defaults_of(declared: ConfigDict) -> ConfigDict:
    """The config whose fields are declared so."""
    config = ConfigDict()
    for name, value in declared.items():
        if isinstance(value, ConfigDict):
            config[name] = defaults_of(value)
        else:
            config[name] = value.default if isinstance(value, Field) else value
    return config
