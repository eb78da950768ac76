"""Tools that compute: `calculator`, `solver` and `plot`.

`solver` and `plot` take code with a function `solution`, as GTA's do. It is plain Python and runs where the policy's
code runs, see `solutions.py`.
"""

from __future__ import annotations

import re

from regrpo_jax.toolbox.arithmetic import calculate
from regrpo_jax.toolbox.equations import solve_text
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.signatures import CheckedTool
from regrpo_jax.toolbox.solutions import MOST_CODE, run_solution

_CODE = {"type": "string", "description": "Python code with a function solution()"}


def _without_fence(code: str) -> str:
    match = re.match(r"\s*```[^\n]*\n(.*?)```\s*\Z", code, re.DOTALL)
    return match.group(1) if match else code


def _checked_code(code: str) -> str:
    code = _without_fence(code)
    if len(code) > MOST_CODE:
        raise ToolError(f"The code has {len(code):,} characters; at most {MOST_CODE:,} are run.")
    return code


class Calculator(CheckedTool):
    name = "calculator"
    description = (
        "The value of a Python expression over numbers; functions of `math` need no import. Very large results are "
        "refused."
    )
    inputs = {"expression": {"type": "string", "description": 'such as "2 * (3 + 4) / sqrt(2)"'}}
    output_type = "number"

    def forward(self, expression: str) -> int | float:
        return calculate(expression)


class Solver(CheckedTool):
    name = "solver"
    description = (
        "Solves equations with sympy: either equations as text, separated by ';', or Python code with a function "
        "solution() that uses sympy and returns its answer as str."
    )
    inputs = {"command": {"type": "string", "description": 'such as "x**2 - 5*x + 6 = 0", or code'}}
    output_type = "string"

    def warm_up(self) -> None:
        import sympy  # noqa: F401  (half a second)

    def forward(self, command: str) -> str:
        if "def " not in command and "import " not in command:
            return solve_text(command)
        return run_solution(_checked_code(command), "text", self.name)


class Plot(CheckedTool):
    name = "plot"
    description = (
        "Runs Python code with a function solution() that draws with matplotlib and returns the figure; returns the "
        "name of the new image."
    )
    inputs = {"command": _CODE}
    output_type = "string"

    def forward(self, command: str) -> str:
        return run_solution(_checked_code(command), "figure", self.name)
