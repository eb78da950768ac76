"""Calls as texts: how the world writes down what was called, and what is read out of files of others.

The authors' checker runs such texts with `eval`, so what comes from outside is let through only where it is a call of
a known function with plain data; anything else becomes a call that fails.
"""

from __future__ import annotations

import ast
import inspect
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from regrpo_jax.records.syntax import syntax_of_expression

UNKNOWN = "unknown_function()"
"""Stands in the place of a call that is not run; it fails, as the call of a function that is not there."""
_OPERATORS = (ast.Add, ast.Sub, ast.Mult, ast.Div)


def is_plain(value: Any) -> bool:
    """Whether the text of a value is Python that gives the same value again."""
    if type(value) is float:
        return math.isfinite(value)
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(is_plain(key) and is_plain(one) for key, one in value.items())
    return value is None or type(value) in (bool, int, str)


def written(name: str, method: Callable[..., Any], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> str:
    """The call with each argument by its name, as far as the method knows it. ValueError for what is not plain.

    By name, because the authors' reader of result files passes over arguments that are given by position.
    """
    given: Mapping[str, Any] = keywords
    if arguments:
        try:
            given = inspect.signature(method).bind(*arguments, **keywords).arguments
        except TypeError:  # too many, or twice: the call fails, and is written as it was made
            given = {}
    odd = [value for value in (*arguments, *keywords.values()) if not is_plain(value)]
    if odd:
        raise ValueError(f"a value of type {type(odd[0]).__name__} is no plain data")
    told = [] if given else [repr(value) for value in arguments]
    named = given if given else keywords
    return f"{name}({', '.join([*told, *(f'{key}={value!r}' for key, value in named.items())])})"


def decoded(step: Any) -> tuple[str, ...]:
    """The calls in a step of a result file; () where it has none, which ends the request.

    A text is a list of calls, as prompted models write; a list (or one) of {name: arguments} is what models with
    function calling give, arguments as an object or as its JSON. Arguments by position are passed over, as the
    authors' reader does.
    """
    if isinstance(step, str):
        return _of_text(step)
    told = [step] if isinstance(step, dict) else step
    if not isinstance(told, list) or not all(isinstance(one, dict) for one in told):
        return ()
    try:
        return tuple(_of_object(name, given) for one in told for name, given in one.items())
    except ValueError:
        return ()


def _of_text(text: str) -> tuple[str, ...]:
    bare = text.strip("`\n ")
    listed = bare if bare.startswith("[") else f"[{bare}"
    listed = listed if listed.endswith("]") else f"{listed}]"
    try:
        tree = syntax_of_expression(listed).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ()
    if not isinstance(tree, ast.List) or not all(isinstance(one, ast.Call) for one in tree.elts):
        return ()
    return tuple(_of_call(one) for one in tree.elts if isinstance(one, ast.Call))


def _of_call(call: ast.Call) -> str:
    named = [f"{word.arg}={ast.unparse(word.value)}" for word in call.keywords if word.arg]
    return f"{ast.unparse(call.func)}({', '.join(named)})"


def _of_object(name: str, given: Any) -> str:
    arguments = json.loads(given) if isinstance(given, str) else given
    if not isinstance(arguments, dict):
        raise ValueError("no arguments")
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


def runnable(call: str, known: Collection[str]) -> str:
    """The call, if nothing but known functions and plain data is in it, else `UNKNOWN`."""
    try:
        tree = syntax_of_expression(call).body
        return call if isinstance(tree, ast.Call) and _is_safe(tree, known) else UNKNOWN
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return UNKNOWN


def _is_safe(node: ast.expr, known: Collection[str]) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=keywords):
            values = [*arguments, *(word.value for word in keywords)]
            named = all(word.arg is not None for word in keywords)
            return name in known and named and all(_is_safe(value, known) for value in values)
        case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
            return all(_is_safe(element, known) for element in elements)
        case ast.Dict(keys=keys, values=values):
            return all(key is not None and _is_safe(key, known) for key in keys) and all(
                _is_safe(value, known) for value in values
            )
        case ast.UnaryOp(operand=operand):
            return _is_number(operand)
        case ast.BinOp(left=left, right=right, op=operator):
            return isinstance(operator, _OPERATORS) and _is_number(left) and _is_number(right)
    return isinstance(node, ast.Constant)


def _is_number(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return isinstance(value, int | float)
        case ast.UnaryOp(operand=operand):
            return _is_number(operand)
        case ast.BinOp(left=left, right=right, op=operator):
            return isinstance(operator, _OPERATORS) and _is_number(left) and _is_number(right)
    return False
