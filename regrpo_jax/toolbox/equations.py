"""Equations as text, turned into sympy's terms without evaluating any code."""

from __future__ import annotations

import ast
import re
from typing import Any

from regrpo_jax.toolbox.failures import EmptyResult, ToolError

MOST_CHARACTERS = 1_000
MOST_EQUATIONS = 8
_LARGEST_POWER = 24
_FUNCTIONS = frozenset(("sqrt", "sin", "cos", "tan", "asin", "acos", "atan", "exp", "log", "ln"))
_CONSTANTS = {"E": "E", "e": "E", "I": "I"}  # as sympy names them
_SIGNS = str.maketrans("×·∗⋅∙✕÷∕⁄−–－＋", "******///---+")
# A number that touches a name or a bracket is a factor; the digits of log10 or x2 are not.
_FACTOR = re.compile(r"(?<![\w.])((?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?=[^\W\d]|\()")


def _term(node: ast.expr, depth: int = 60) -> Any:
    import sympy

    if depth == 0:
        raise ToolError("The equation is nested too deeply.")
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and abs(value) < 1e100:
            return sympy.Rational(repr(value)) if isinstance(value, float) else sympy.Integer(value)
        case ast.Name(id="pi" | "π"):
            return sympy.pi
        case ast.Name(id=name) if len(name) <= 32:
            return sympy.Symbol(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_term(operand, depth - 1)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _term(operand, depth - 1)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return getattr(sympy, name)(_term(argument, depth - 1))
        case ast.BinOp(left=left, op=sign, right=right):
            return _combined(_term(left, depth - 1), sign, _term(right, depth - 1))
    raise ToolError(
        f"`{ast.unparse(node)[:100]}` cannot be part of an equation: write numbers, names, + - * / ** and "
        f"{', '.join(sorted(_FUNCTIONS))}."
    )


def _combined(left: Any, sign: ast.operator, right: Any) -> Any:
    match sign:
        case ast.Add():
            return left + right
        case ast.Sub():
            return left - right
        case ast.Mult():
            return left * right
        case ast.Div():
            if right == 0:
                raise ToolError("The equation divides by zero.")
            return left / right
        case ast.Pow():
            if right.is_number and abs(right) > _LARGEST_POWER:
                raise ToolError(f"The power {str(right)[:30]} is too large; at most {_LARGEST_POWER} can be solved.")
            return left**right
    raise ToolError("Only + - * / ** can be part of an equation.")


def _side(text: str) -> Any:
    written = _FACTOR.sub(r"\1*", text.strip().replace("^", "**"))
    try:
        return _term(ast.parse(written, mode="eval").body)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ToolError(f'"{text.strip()[:100]}" is no term of an equation.') from error


def _with_constants(terms: list[Any]) -> list[Any]:
    """e, E and I are numbers where the equations then determine the other names, and names where they determine all.

    A base of an unknown power, e**x, is the number in any case.
    """
    import sympy

    names = set().union(*(term.free_symbols for term in terms))
    numbers = {sympy.Symbol(name): getattr(sympy, known) for name, known in _CONSTANTS.items()}
    powers = set().union(*(term.atoms(sympy.Pow) for term in terms))
    based = any(power.base in numbers and power.exp.free_symbols for power in powers)
    if not based and (len(names) == len(terms) or len(names - set(numbers)) > len(terms)):
        return terms
    return [term.subs({name: numbers[name] for name in names & set(numbers)}) for term in terms]


def solve_text(text: str) -> str:
    """All solutions of equations separated by ";" or newlines (a term without "=" equals 0), as sympy writes them.

    ToolError for what is no equation, EmptyResult when there is no solution.
    """
    import sympy

    parts = [part for part in re.split(r"[;\n]", text.translate(_SIGNS)) if part.strip()]
    if not 0 < len(parts) <= MOST_EQUATIONS or len(text) > MOST_CHARACTERS:
        raise ToolError(f"Write one to {MOST_EQUATIONS} equations of together {MOST_CHARACTERS} characters.")
    terms = []
    for part in parts:
        sides = part.replace("==", "=").split("=")
        if len(sides) > 2:
            raise ToolError(f'"{part.strip()[:100]}" has more than one "=".')
        terms.append(_side(sides[0]) - (_side(sides[1]) if len(sides) == 2 else 0))
    terms = _with_constants(terms)
    unknowns = sorted(set().union(*(term.free_symbols for term in terms)), key=str)
    if not unknowns:
        if any(term != 0 for term in terms) and re.search(r"[A-Za-z]", text):
            raise EmptyResult(f'No results found for "{text.strip()[:200]}": it has no solution.')
        raise ToolError(f'"{text.strip()[:100]}" has no unknown to solve for; use calculator for numbers.')
    try:
        found = (
            sympy.solve(terms[0], unknowns[0])
            if len(terms) == len(unknowns) == 1
            else sympy.solve(terms, unknowns, dict=True)
        )
    except NotImplementedError as error:
        raise ToolError(f"No way is known to solve this: {str(error)[:200]}") from error
    if not found:
        raise EmptyResult(f'No results found for "{text.strip()[:200]}": it has no solution.')
    return str(sorted(found, key=sympy.default_sort_key) if len(terms) == len(unknowns) == 1 else found)
