"""Tools that compute: `calculator`, `solver` and `plot`.

`solver` and `plot` take code with a function `solution`, as GTA's do. smolagents' interpreter runs it, with
few modules to import; it is no security boundary, the sandbox around it is.
"""

from __future__ import annotations

import re
from typing import Any

from regrpo_jax.toolbox.arithmetic import calculate
from regrpo_jax.toolbox.equations import solve_text
from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.files import next_name
from regrpo_jax.toolbox.signatures import CheckedTool

MOST_CODE = 20_000  # characters
_HARMLESS = ("math", "cmath", "fractions", "decimal", "statistics", "itertools", "functools", "collections", "re")
_LARGEST_FIGURE = 4_000  # pixels of a side
_CODE = {"type": "string", "description": "Python code with a function solution()"}


def _without_fence(code: str) -> str:
    match = re.match(r"\s*```[^\n]*\n(.*?)```\s*\Z", code, re.DOTALL)
    return match.group(1) if match else code


def run_solution(code: str, imports: tuple[str, ...], tool: str) -> Any:
    """What the code's `solution()` returns, run by smolagents' interpreter; ToolError with what went wrong."""
    from smolagents.local_python_executor import InterpreterError, LocalPythonExecutor

    code = _without_fence(code)
    if len(code) > MOST_CODE:
        raise ToolError(f"The code has {len(code):,} characters; at most {MOST_CODE:,} are run.")
    executor = LocalPythonExecutor([], timeout_seconds=None)
    # Not smolagents' own list: its order, which messages show, differs from run to run, and it has the clock.
    executor.authorized_imports = sorted(
        {*_HARMLESS, *(name for module in imports for name in (module, f"{module}.*"))}
    )
    executor.send_tools({})
    try:
        executor(code)
        if "solution" not in executor.custom_tools and not callable(executor.state.get("solution")):
            raise ToolError(f'{tool}: the code defines no function "solution"; write def solution(): ... return result')
        return executor("solution()").output
    except InterpreterError as error:
        raise ToolError(f"{tool}: {str(error)[:1000]}") from error


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
        answer = run_solution(command, ("sympy", "math", "fractions", "numpy"), self.name)
        if answer is None or str(answer) in ("", "[]", "{}"):
            raise EmptyResult(f"No results found: solution() returned {answer!r}.")
        return str(answer)


class Plot(CheckedTool):
    name = "plot"
    description = (
        "Runs Python code with a function solution() that draws with matplotlib and returns the figure; returns the "
        "name of the new image."
    )
    inputs = {"command": _CODE}
    output_type = "string"

    def warm_up(self) -> None:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot  # noqa: F401  (reads all fonts once)

    def forward(self, command: str) -> str:
        self.warm_up()
        from matplotlib import pyplot
        from matplotlib.figure import Figure

        pyplot.close("all")
        try:
            figure = run_solution(command, ("matplotlib", "numpy", "math"), self.name)
            if not isinstance(figure, Figure):
                figure = getattr(figure, "figure", None)
            if not isinstance(figure, Figure):
                raise ToolError("plot: solution() must return a matplotlib figure.")
            width, height = figure.get_size_inches() * figure.dpi
            if not (1 <= width <= _LARGEST_FIGURE and 1 <= height <= _LARGEST_FIGURE):
                raise ToolError(f"plot: the figure has {width:.0f} x {height:.0f} pixels; at most {_LARGEST_FIGURE}.")
            name = next_name(self.name)
            figure.savefig(name, metadata={"Software": None})
            return name
        finally:
            pyplot.close("all")
