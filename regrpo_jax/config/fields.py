"""What a field may be, beside its default: `rank = at_least(1, 8)`. A plain value may be any of its type."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict, config_dict

from regrpo_jax.config.servers import FORM, FORM_WITHOUT_MODEL, is_address, server_of, servers_of
from regrpo_jax.errors import UserError


@dataclass(frozen=True)
class Field:
    """holds: whether a value is one that means something; None is not asked about. remedy: what to do if not.

    choices: where there are only so many values, or parts of one. told: what is shown of a wrong value.
    """

    default: Any
    holds: Callable[[Any], bool]
    remedy: str
    choices: tuple[str, ...] = ()
    told: Callable[[Any], Any] = lambda value: value


def one_of(default: str, *others: str) -> Field:
    """A choice."""
    choices = (default, *others)
    return Field(default, lambda value: value in choices, f"choose {' or '.join(map(repr, choices))}", choices)


def some_of(default: Sequence[str], known: Sequence[str]) -> Field:
    """One or more choices."""
    remedy = f"choose some of {', '.join(known)}"
    return Field(tuple(default), lambda values: bool(values) and set(values) <= set(known), remedy, tuple(known))


def any_of(*known: str) -> Field:
    """Any number of choices, none to begin with."""
    return Field((), lambda values: set(values) <= set(known), f"choose some of {', '.join(known)}, or ()", known)


def shares(default: Sequence[str], known: Mapping[str, float | None], *, empty: bool = False) -> Field:
    """Names with a share each, see `shares_of`. known: name -> the share of one that stands alone, None if it has none.

    empty: there may be none.
    """

    def holds(values: Any) -> bool:
        try:
            return bool(shares_of(values, known)) or empty
        except UserError:
            return False

    alone = [name for name, usual in known.items() if usual is not None]
    remedy = f"list some of {', '.join(known)}, each as {next(iter(known))}=0.2 with a share above 0 and at most 1"
    remedy += f"; {', '.join(alone)} may stand alone" if alone else ""
    return Field(tuple(default), holds, remedy, tuple(known))


def shares_of(texts: Sequence[str], known: Mapping[str, float | None]) -> dict[str, float]:
    """Name -> share of texts such as "ArgInvalid=0.5", or "ArgInvalid" for its share in `known`. UserError."""
    found: dict[str, float] = {}
    for text in texts:
        name, written, number = text.partition("=")
        try:
            share = float(number) if written else known[name] or 0.0
        except (ValueError, KeyError):
            share = 0.0
        if name not in known or name in found or not 0 < share <= 1:
            raise UserError(f"{text!r} is no share; write one of {', '.join(known)}, once, such as {name}=0.2")
        found[name] = share
    return found


def server(*, model: bool = True, or_path: bool = False) -> Field:
    """A server, see `servers.server_of`; "" for none. model: whether a model there is named. or_path: or a path."""
    form = (FORM if model else FORM_WITHOUT_MODEL) + (", a path" if or_path else "")

    def holds(text: Any) -> bool:
        try:
            return not text or (or_path and not is_address(text)) or bool(server_of(text, model=model))
        except UserError:
            return False

    remedy = f"write {form}, or '' for none"
    return Field("", holds, remedy, told=lambda text: text.partition(" ")[0])  # what follows may be a key


def servers(**known: bool) -> Field:
    """Servers by what they do, see `servers.servers_of`; none to begin with. known: whether a model is named."""

    def holds(texts: Any) -> bool:
        try:
            return servers_of(texts, known) is not None
        except (UserError, AttributeError):
            return False

    forms = (f"{name}=ADDRESS{' MODEL' if model else ''}" for name, model in known.items())
    remedy = f"list some of {', '.join(forms)}, each once; a KEY_VARIABLE may follow"
    return Field((), holds, remedy, told=lambda texts: tuple(str(text).partition(" ")[0] for text in texts))


def together(default: tuple[float, ...], holds: Callable[..., bool], remedy: str) -> Field:
    """As many numbers as the default, which go together."""

    def all_hold(values: Any) -> bool:
        numbers = len(values) == len(default) and all(isinstance(value, int | float) for value in values)
        return numbers and all(math.isfinite(value) for value in values) and holds(*values)

    return Field(default, all_hold, f"give {len(default)} numbers; {remedy}")


def places(default: str, *others: str) -> Field:
    """Some of these or none, each once: words, and words with something of one's own behind a colon."""
    alone = {known for known in (default, *others) if ":" not in known}
    kinds = {known.partition(":")[0] for known in others if ":" in known}

    def holds(values: Any) -> bool:
        parts = [value.partition(":") for value in values if isinstance(value, str)]
        fit = [word in alone if not colon else word in kinds and bool(rest) for word, colon, rest in parts]
        return len(fit) == len(values) and all(fit) and len({word for word, _, _ in parts}) == len(values)

    return Field((default,), holds, f"list some of {', '.join(map(repr, (default, *others)))}, each kind once")


def cluster() -> Field:
    """The address of a Ray cluster; "" for none."""

    def holds(text: Any) -> bool:
        host, _, port = str(text).rpartition(":")
        return text in ("", "auto") or (bool(host) and "/" not in host and port.isdecimal())

    return Field(
        "",
        holds,
        "name 'HOST:PORT' or 'auto'; 'ray://' is Ray's client for programs outside of a cluster, start the run in it",
    )


def amounts() -> Field:
    """Names with an amount each, see `amounts_of`; none to begin with."""

    def holds(texts: Any) -> bool:
        try:
            return amounts_of(texts) is not None
        except UserError:
            return False

    return Field((), holds, "list NAME=NUMBER with a number above 0, each name once, or ()")


def amounts_of(texts: Sequence[str]) -> dict[str, float]:
    """Name -> amount of texts such as "tools=1". UserError for one that says something else."""
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = str(text).partition("=")
        try:
            amount = float(number)
        except ValueError:
            amount = 0.0
        if not name or name in found or not 0 < amount < math.inf:
            raise UserError(f"{text!r} is no amount; write NAME=NUMBER with a number above 0, each name once")
        found[name] = amount
    return found


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


def updates() -> Field:
    """Any numbers of updates, none to begin with; the command line gives them as texts, for want of an example."""
    return Field(
        (),
        lambda values: all(str(value).isdecimal() and int(value) > 0 for value in values),
        "list numbers of updates, the first is 1, or ()",
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
