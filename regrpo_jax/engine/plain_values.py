"""Computing with the values that code writes out itself, without running it: little is computed, and nothing large."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from regrpo_jax.engine.printed import UNKNOWN

MOST_ROUNDS = 64  # of a loop
_MOST_BITS, _MOST_ITEMS = 256, 100_000
_CALLS: dict[str, Callable[..., Any]] = {
    "str": str, "int": int, "float": float, "len": len, "repr": repr, "list": list, "tuple": tuple, "sorted": sorted,
    "round": round, "sum": sum, "min": min, "max": max,
}  # fmt: skip
_OPERATIONS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda left, right: left + right,
    ast.Sub: lambda left, right: left - right,
    ast.Mult: lambda left, right: left * right,
}
_METHODS = frozenset(
    ["strip", "lower", "upper", "title", "split", "startswith", "endswith", "removeprefix", "removesuffix"]
)


def tried(compute: Callable[[], Any]) -> Any:
    """What a computation gives; UNKNOWN where it raises, or gives what is large. The code of others may do anything."""
    try:
        value = compute()
    except Exception:
        return UNKNOWN
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        return UNKNOWN
    return UNKNOWN if isinstance(value, str | list | tuple | dict) and len(value) > _MOST_ITEMS else value


def plain_call(name: str, given: Sequence[Any]) -> Any:
    """What a built-in function makes of plain values; UNKNOWN for a function that is not followed."""
    if name == "range":
        small = all(isinstance(one, int) and abs(one) <= MOST_ROUNDS for one in given)
        return tried(lambda: list(range(*given))) if small else UNKNOWN
    return tried(lambda: _CALLS[name](*given))


def pairs(name: str, given: Sequence[Any]) -> Any:
    """`enumerate` and `zip` of lists, whatever is in them; UNKNOWN for other functions and other arguments."""
    if name == "enumerate" and given and isinstance(given[0], list | tuple):
        numbered = all(isinstance(one, int) for one in given[1:])
        return tried(lambda: list(enumerate(*given))) if numbered else UNKNOWN
    if name == "zip" and all(isinstance(one, list | tuple) for one in given):
        return tried(lambda: list(zip(*given, strict=False)))
    return UNKNOWN


def operated(operator: ast.operator, left: Any, right: Any) -> Any:
    """Arithmetic of numbers, and sums of what is alike."""
    numbers = all(isinstance(one, int | float) for one in (left, right))
    alike = isinstance(operator, ast.Add) and type(left) is type(right) and isinstance(left, str | list | tuple)
    if type(operator) not in _OPERATIONS or not (numbers or alike):
        return UNKNOWN
    return tried(lambda: _OPERATIONS[type(operator)](left, right))


def text_method(owner: str, name: str, given: Sequence[Any]) -> Any:
    """What a method of a text gives; UNKNOWN for one that is not followed."""
    return tried(lambda: getattr(owner, name)(*given)) if name in _METHODS else UNKNOWN


def names_called(node: ast.AST) -> Iterator[str]:
    """Of functions and methods that are called anywhere in it."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call):
            match inner.func:
                case ast.Name(id=name) | ast.Attribute(attr=name):
                    yield name
