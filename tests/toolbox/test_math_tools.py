"""Arithmetic against Python's own, equations, figures, and expressions that mean harm."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.math_tools import Calculator, Plot, Solver
from tests.toolbox.python_snippets import SNIPPETS

pytestmark = pytest.mark.usefixtures("workspace")
calculator, solver, plot = Calculator(), Solver(), Plot()
PLOT = """```python
import matplotlib.pyplot as plt
import numpy as np
def solution():
    x = np.linspace(-4, 4, 50)
    figure = plt.figure(figsize=(4, 3))
    plt.plot(x, x**3 - 27, label='f')
    plt.legend()
    return figure
```"""
SYSTEM = """
from sympy import symbols, Eq, solve
def solution():
    x, y = symbols('x y')
    equation1 = Eq(x**2 + y**2, 20)
    equation2 = Eq(x**2 - 5*x*y + 6*y**2, 0)
    return str(solve((equation1, equation2), (x, y), dict=True))
"""

LEAVES = st.one_of(st.integers(-999, 999), st.floats(-1e6, 1e6, allow_nan=False)).map(lambda value: f"({value!r})")


def grown(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Expressions made of smaller ones."""
    signs = st.sampled_from(["+", "-", "*", "/", "//", "%"])
    return st.one_of(
        st.tuples(inner, signs, inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, st.integers(0, 3)).map(lambda parts: f"({parts[0]} ** {parts[1]})"),
        st.tuples(st.sampled_from(["abs", "round", "math.floor", "float"]), inner).map("{0[0]}({0[1]})".format),
        st.tuples(st.sampled_from(["max", "min"]), inner, inner).map("{0[0]}({0[1]}, {0[2]})".format),
    )


EXPRESSIONS = st.recursive(LEAVES, grown, max_leaves=8)


@given(EXPRESSIONS)
def test_arithmetic_is_pythons(expression: str) -> None:
    try:
        expected = eval(expression, {"math": math})
    except (ArithmeticError, ValueError):
        with pytest.raises(ToolError):
            calculator(expression)
        return
    if isinstance(expected, float) and not math.isfinite(expected):
        with pytest.raises(ToolError, match="not a finite number"):
            calculator(expression)
        return
    found = calculator(expression)
    assert (found, type(found)) == (expected, type(expected))


@given(st.text(alphabet="0123456789+-*/().%<>=, eabsqrtpimx[]'\"_~!:{}", max_size=60))
def test_no_expression_raises_anything_but_a_tool_error(expression: str) -> None:
    try:
        value = calculator(expression)
    except ToolError:
        return
    assert isinstance(value, int | float)


@given(
    st.sampled_from(["max", "min", "sum"]),
    st.lists(
        st.tuples(st.integers(0, 10**7) | st.integers(0, 999), st.booleans(), st.sampled_from([", ", ","])),
        min_size=2,
        max_size=4,
    ),
)
def test_a_comma_inside_a_number_is_never_taken_for_one_between_numbers(
    function: str, numbers: list[tuple[int, bool, str]]
) -> None:
    def called(parts: list[str]) -> str:
        inside = "".join(parts)
        return f"sum([{inside}])" if function == "sum" else f"{function}({inside})"

    values = [value for value, _, _ in numbers]
    meant = {"max": max, "min": min, "sum": sum}[function](values)
    marks = [mark for _, _, mark in numbers[1:]] + [""]
    with contextlib.suppress(ToolError):
        spaced = called([f"{value:,}" + (", " if mark else "") for value, mark in zip(values, marks, strict=True)])
        assert calculator(spaced) == meant
        touching = called([f"{value}{mark}" for value, mark in zip(values, marks, strict=True)])
        assert calculator(touching) == meant
    plain = called([f"{value}" + (", " if mark else "") for value, mark in zip(values, marks, strict=True)])
    assert calculator(plain) == meant


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("max(1,2) + pow(2,10) + round(3.14159,2)", 2 + 1024 + 3.14),
        ("max(100,200)", 200),
        ("10 % 3 + 10%4", 3),
        ("7 // 2 - -7 // 2", 7),
        ("9 ⋅ 3 ∕ 2 － 1", 12.5),
        ("479.99 * 4", 1919.96),
        ("1.49 + 1.49 + 2.79 + 3.50 + 0.65 + 0.89", 10.81),
        ("math.sqrt(2)", math.sqrt(2)),
        ("sqrt(16) + log10(1000)", 7.0),
        ("sum([1, 2, 3]) / len([1, 2, 3])", 2.0),
        ("12 × 7 − 4 ÷ 2", 82.0),
        ("factorial(20)", math.factorial(20)),
        ("gcd(12, 18) + lcm(2, 3, 4)", 18),
        ("2 ** 0.5", math.sqrt(2)),
        ("3 > 2", True),
        ("round(pi, 2)", 3.14),
    ],
)
def test_what_people_type(expression: str, value: float) -> None:
    assert calculator(expression) == pytest.approx(value)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("10**10**8", "too large"),
        ("9**9**9**9", "too large"),
        ("pow(10, 10**9)", "too large"),
        ("1 << 10**12", "too large"),
        ("factorial(10**9)", "too large"),
        ("comb(10**9, 5 * 10**8)", "too large"),
        ("'a' * 10**9", "only numbers"),
        ("[1] * 10**9", "only numbers"),
        ("__import__('os').system('id')", "not known here|no expression|not defined|__import__"),
        ("(1).__class__.__bases__", "__class__"),
        ("open('x')", '"open" is not known here: write numbers, pi, e, tau and abs'),
        ("[x for x in [1] for y in [2]]", "not a number"),
        ("lambda: 1", "ambda"),
        ("1/0", "division by zero"),
        ("1e308 * 10", "not a finite number"),
        ("(-2) ** 0.5", "not real"),
        ("2 ^ 3", r"\^ is no power; write \*\*"),
        ("max(1,200, 900)", "comma may stand inside a number"),
        ("max(1,200,900)", "comma may stand inside a number"),
        ("sum([1,200, 900])", "comma may stand inside a number"),
        ("log(8,192)", "comma may stand inside a number"),
        ("sqrt(1,024)", "comma may stand inside a number"),
        ("max(1,5, 2,5)", "comma may stand inside a number"),
        ("1,200 + 5", "comma may stand inside a number"),
        ("10% + 5", "% is the remainder"),
        ("10%-3", "% is the remainder"),
        ("200 * 10%", "% is the remainder"),
        ("2 + 3; 4 + 5", "no expression"),
        ("2 + 3\n+ 4", "no expression"),
        ("x = 5", "no expression"),
        ("2(3 + 4)", r"write \* between factors"),
        ("2 +", "no expression"),
        ("", "empty"),
        ("'7'", "not a number"),
        ("1" + " + 1" * 5_000, "at most 2,000 are computed"),
        ("(" * 900 + "1" + ")" * 900, "nested too deeply|no expression|too many nested"),
        ("-" * 1_900 + "1", "nested too deeply|no expression"),
    ],
)
def test_hostile_and_wrong_expressions_are_refused(expression: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        calculator(expression)


@pytest.mark.parametrize(
    ("equations", "answer"),
    [
        ("x**2 - 5*x + 6 = 0", "[2, 3]"),
        ("2x + 4 = 10", "[3]"),
        ("x^2 = 16", "[-4, 4]"),
        ("x + y = 3; x - y = 1", "[{x: 2, y: 1}]"),
        ("a*b = 6\na + b = 5", "[{a: 2, b: 3}, {a: 3, b: 2}]"),
        ("0.5*x = 1", "[2]"),
        ("sqrt(x) = 3", "[9]"),
        ("e^x = 5", "[log(5)]"),
        ("E**x = 5", "[log(5)]"),
        ("e^(2x) = 7; y = 2", "[{x: log(7)/2, y: 2}]"),
        ("x = 2*e", "[2*E]"),
        ("e + 2 = 5", "[3]"),
        ("d + e = 3; d - e = 1", "[{d: 2, e: 1}]"),
        ("c = 2; m = 3; E = m*c^2", "[{E: 12, c: 2, m: 3}]"),
        ("E = m*c", "[{E: c*m}]"),
        ("x^2 = -1", "[-I, I]"),
        ("x = 2*I", "[2*I]"),
        ("U = R*I; R = 2; U = 10", "[{I: 5, R: 2, U: 10}]"),
        ("2*pi*r = 10", "[5/pi]"),
        ("π*r = 3", "[3/pi]"),
        ("N + S = 5; S = 2", "[{N: 3, S: 2}]"),
        ("beta + gamma = 3; beta = Q; Q = 1", "[{Q: 1, beta: 1, gamma: 2}]"),
        ("2e3x = 4000", "[2]"),
        ("2exp(x) = 4", "[log(2)]"),
        ("x − 3 × 2 = 4", "[10]"),
        ("0.333333x = 1", "[1000000/333333]"),
    ],
)
def test_solver_solves_equations(equations: str, answer: str) -> None:
    assert solver(equations) == answer


def test_solver_runs_gtas_code() -> None:
    found = solver(SYSTEM)
    assert all(solution in found for solution in ("{x: -4, y: -2}", "{x: 4, y: 2}", "3*sqrt(2)"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("().__class__", "cannot be part of an equation"),
        ("__import__('os').system('id') = 0", "cannot be part of an equation"),
        ("x ** 1000000 = 2", "power 1000000 is too large"),
        ("x ** (10 ** 20) = 2", "too large"),
        ("x = 1 = 2", 'more than one "="'),
        ("1 + 1 = 2", "no unknown to solve for; use calculator"),
        ("x / 0 = 1", "divides by zero"),
        ("log10(x) = 2", "cannot be part of an equation"),
        ("x = 10% + 5", r"Only \+ - \* / \*\*"),
        ("x = 1,200 + 5", "cannot be part of an equation"),
        ("x(x - 1) = 0", "cannot be part of an equation"),
        ("= =", "no term|more than one"),
        ("", "Write one to 8 equations"),
        ("def solve():\n    return 1", 'no function "solution"'),
        ("def solution(:", r"solver: SyntaxError: .* \(line 1\)"),
        ("import no_such\ndef solution():\n    return 1", "solver: ModuleNotFoundError: No module named 'no_such'"),
        ("def solution():\n    return 1 / 0", r"solver: ZeroDivisionError: division by zero \(line 2\)"),
        ("import os\ndef solution():\n    os._exit(3)", "the code ended its process"),
    ],
)
def test_solver_refuses_what_is_no_equation_and_forbidden_code(command: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        solver(command)


SOLUTION = """
def main(print):
{body}
def solution():
    found = []
    main(lambda *values, **options: found.append(values))
    return found
"""


@pytest.mark.parametrize(
    "name", ["return_inside_try", "for_else", "starred_calls", "mutable_default", "lambda_default"]
)
def test_code_of_a_solution_means_what_python_means(name: str) -> None:
    code = SOLUTION.format(body="\n".join(f"    {line}" for line in SNIPPETS[name].splitlines()))
    variables: dict[str, Any] = {}
    exec(compile(code, "snippet", "exec", dont_inherit=True), variables)
    assert solver(code) == str(variables["solution"]())


def test_solver_answers_42_where_42_is_right() -> None:
    lines = (
        "def solution():",
        "  for n in range(100):",
        "    try:",
        "      if n * n == 1764: return n",
        "    finally: pass",
    )
    assert solver("\n".join(lines)) == "42"


def test_solver_without_solution_is_empty() -> None:
    for command in ("x = x + 1", "x - y = 0; x - y = 1", "def solution():\n    return []"):
        with pytest.raises(EmptyResult, match="No results found"):
            solver(command)


@given(st.text(alphabet="xy0123456789+-*/=() .;^", max_size=12))
def test_no_equation_raises_anything_but_a_tool_failure(text: str) -> None:
    with contextlib.suppress(ToolError, EmptyResult):
        assert isinstance(solver(text), str)


def test_plot_draws_gtas_code_the_same_twice() -> None:
    assert [plot(PLOT), plot(PLOT)] == ["plot_1.png", "plot_2.png"]
    assert Path("plot_1.png").read_bytes() == Path("plot_2.png").read_bytes()
    image = Image.open("plot_1.png").convert("RGB")
    assert image.size == (400, 300) and len(image.getcolors(100_000) or ()) > 10


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("def solution():\n    return 3", "must return a matplotlib figure"),
        ("ndef solution():\n    pass", "plot: SyntaxError"),
        ("import matplotlib.pyplot as plt\ndef solution():\n    return plt.figure(figsize=(900, 900))", "at most 4000"),
        ("import matplotlib.pyplot as plt\ndef solution():\n    plt.plot(missing)", "missing"),
        ("x" * 30_000, "at most 20,000 are run"),
    ],
)
def test_plot_says_what_is_wrong_and_writes_nothing(command: str, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        plot(command)
    assert list(Path().iterdir()) == []
