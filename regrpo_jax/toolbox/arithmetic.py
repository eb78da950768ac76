"""What `calculator` and `solver` compute with: operations whose results are bounded before they are computed."""

from __future__ import annotations

import ast
import itertools
import math
import operator
import re
import types
from collections.abc import Callable
from typing import Any

from regrpo_jax.toolbox.failures import ToolError

MOST_BITS = 20_000  # of a whole number, some 6,000 digits
MOST_CHARACTERS = 2_000  # of an expression
_LARGEST_COUNT = 2_000  # argument of factorial, comb, perm


class TooLarge(ValueError):
    """The result would be too large to compute."""


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"only numbers can be computed with, not {type(value).__name__}")
    return value


def _bits(value: Any) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _refuse(operation: str) -> None:
    raise TooLarge(f"the result of {operation} would be too large")


def power(base: Any, exponent: Any) -> int | float:
    base, exponent = _number(base), _number(exponent)
    whole = isinstance(base, int) and isinstance(exponent, int)
    if whole and abs(base) > 1 and abs(exponent) * _bits(base) > MOST_BITS:
        _refuse("**")
    value = base**exponent
    if isinstance(value, complex):
        raise ValueError("a fractional power of a negative number is not real")
    return value


def _binary(function: Callable[[Any, Any], Any], sign: str) -> Callable[[Any, Any], Any]:
    def bounded(left: Any, right: Any) -> Any:
        left, right = _number(left), _number(right)
        if _bits(left) + _bits(right) > 2 * MOST_BITS:
            _refuse(sign)
        return function(left, right)

    return bounded


def _shift(left: Any, right: Any) -> int:
    if not isinstance(left, int) or not isinstance(right, int):
        raise TypeError("<< needs whole numbers")
    if _bits(left) + right > MOST_BITS:
        _refuse("<<")
    return left << right


def _counted(function: Callable[..., int]) -> Callable[..., int]:
    def bounded(*arguments: Any) -> int:
        if any(abs(_number(argument)) > _LARGEST_COUNT for argument in arguments):
            _refuse(function.__name__)
        return function(*arguments)

    return bounded


OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: _binary(operator.add, "+"),
    ast.Sub: _binary(operator.sub, "-"),
    ast.Mult: _binary(operator.mul, "*"),
    ast.Div: _binary(operator.truediv, "/"),
    ast.FloorDiv: _binary(operator.floordiv, "//"),
    ast.Mod: _binary(operator.mod, "%"),
    ast.Pow: power,
    ast.LShift: _shift,
    ast.RShift: _binary(operator.rshift, ">>"),
    ast.USub: lambda value: -_number(value),
    ast.UAdd: lambda value: _number(value),
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Not: operator.not_,
}
_PLAIN = (
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh degrees dist erf erfc exp exp2 expm1 fabs "
    "floor fmod fsum hypot isclose isqrt log log10 log1p log2 prod radians sin sinh sqrt tan tanh trunc"
)
_BOUNDED = {name: _counted(getattr(math, name)) for name in ("factorial", "comb", "perm", "gcd", "lcm")}
_BOUNDED["gcd"] = math.gcd
_MATH = {name: getattr(math, name) for name in _PLAIN.split()} | _BOUNDED | {"pow": power}
CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau, "inf": math.inf}
FUNCTIONS: dict[str, Callable[..., Any]] = _MATH | {
    "abs": abs, "round": round, "min": min, "max": max, "sum": sum, "int": int, "float": float, "len": len,
}  # fmt: skip
_SIGNS = str.maketrans("×·∗⋅∙✕÷∕⁄−–－＋", "******///---+")
_PAIRED = ("max", "min", "pow", "comb", "perm", "gcd", "lcm", "atan2", "fmod", "copysign", "hypot")  # not of one number
_GROUPED = re.compile(r"(?<![\w.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_SHARE = re.compile(r"%\s*[-+]|(?<=\S)%\s")


def calculate(expression: str) -> int | float | bool:
    """The value of a Python expression over numbers; ToolError with the reason when it has none."""
    import simpleeval

    text = expression.translate(_SIGNS).strip()
    names = CONSTANTS | {"math": types.SimpleNamespace(**_MATH, **CONSTANTS)}
    evaluator = simpleeval.EvalWithCompoundTypes(operators=OPERATORS, functions=dict(FUNCTIONS), names=names)
    try:
        value = evaluator.eval(text, previously_parsed=_parsed(text))
    except ToolError:
        raise
    except ZeroDivisionError as error:
        raise ToolError(f'"{text[:200]}": division by zero.') from error
    except (simpleeval.NameNotDefined, simpleeval.FunctionNotDefined) as error:
        known = ", ".join(sorted(FUNCTIONS))
        unknown = getattr(error, "func_name", None) or getattr(error, "name", "")
        raise ToolError(f'"{unknown}" is not known here: write numbers, pi, e, tau and {known}.') from error
    except (RecursionError, MemoryError) as error:
        raise ToolError("The expression is nested too deeply.") from error
    except Exception as error:  # simpleeval's own, and what math raises
        raise ToolError(f'"{text[:200]}": {str(error)[:300]}') from error
    if not isinstance(value, int | float):
        raise ToolError(f'"{text[:200]}" is {type(value).__name__}, not a number.')
    if isinstance(value, float) and not math.isfinite(value):
        raise ToolError(f'"{text[:200]}" is {value}, not a finite number.')
    if isinstance(value, int) and _bits(value) > MOST_BITS:
        raise ToolError(f"The result has {_bits(value):,} bits; at most {MOST_BITS:,} are told.")
    return value


def _parsed(text: str) -> ast.expr:
    """The expression's tree. ToolError for what is none, and for what Python reads otherwise than people write it."""
    if not text:
        raise ToolError("The expression is empty.")
    if len(text) > MOST_CHARACTERS:
        raise ToolError(f"The expression has {len(text):,} characters; at most {MOST_CHARACTERS:,} are computed.")
    if "^" in text:
        raise ToolError(f'"{text[:100]}": ^ is no power; write **.')
    if _SHARE.search(text):
        raise ToolError(f'"{text[:100]}": % is the remainder, with blanks on both sides; write 10 / 100 for a share.')
    try:
        tree = ast.parse(text, mode="eval").body
    except SyntaxError as error:
        if grouped := _GROUPED.search(text):
            _refuse_commas(grouped[0])
        hint = " % is the remainder; write 10 / 100 for a share." if "%" in text else ""
        raise ToolError(f'"{text[:200]}" is no expression: {error.msg}.{hint}') from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and not isinstance(node.func, ast.Name | ast.Attribute):
            raise ToolError(f'"{ast.unparse(node)[:100]}": write * between factors.')
        function = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
        for field in ("args", "elts"):
            _check_commas(getattr(node, field, []), text.encode(), function)
    return tree


def _check_commas(parts: list[ast.expr], text: bytes, function: str) -> None:
    """Refuse commas that may stand inside a number: 1,200 or, beside commas with a blank, 1,5."""
    touching = spaced = grouped = 0
    for one, other in itertools.pairwise(parts):
        around = text[: one.end_col_offset][-4:], text[other.col_offset :][:4]
        if text[one.end_col_offset : other.col_offset] != b"," or not around[0][-1:].isdigit():
            spaced += 1
        elif around[1][:1].isdigit():
            touching += 1
            grouped += bool(re.search(rb"(?<![\d.])[1-9]\d{0,2}\Z", around[0]) and re.match(rb"\d{3}(?!\d)", around[1]))
    if (touching and spaced) or (grouped and not (len(parts) == 2 and function in _PAIRED)):
        _refuse_commas(text[parts[0].col_offset : parts[-1].end_col_offset].decode(errors="replace"))


def _refuse_commas(text: str) -> None:
    raise ToolError(
        f'"{text[:100]}": a comma may stand inside a number here; write numbers without commas in them (1200, 1.5), '
        "and a blank after every comma that separates."
    )
