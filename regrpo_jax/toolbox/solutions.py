"""Code with a function `solution`, which `solver` and `plot` take from the policy: plain Python, never run among tools.

What a policy wrote is not trusted, and a process of tools holds what a policy must not see. So inside the sandbox the
code goes back to the process of the action, which called; the tool gets a text. Outside a sandbox (a tool that is
called directly) it runs in a process of its own, which is no security boundary.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.files import next_name

MOST_CODE = 20_000  # characters
_SECONDS = 60.0  # of a process of its own
_FILE = "<solution>"
_WORDS = 1000
_LARGEST_FIGURE = 4_000  # pixels of a side
Found = Mapping[str, str]
Runner = Callable[[str, str], Found]
_runners: list[Runner] = []


def run_with(runner: Runner) -> None:
    """Let `runner(code, finish)` answer `run_solution` in this process from now on."""
    _runners[:] = [runner]


def run_solution(code: str, finish: str, tool: str) -> str:
    """What the code's `solution()` returns, as a text, or as the name of a new image when `finish` is "figure".

    EmptyResult when it returns nothing, ToolError with what went wrong.
    """
    found = (_runners[0] if _runners else _in_a_process)(code, finish)
    if "value" in found:
        return found["value"]
    if "empty" in found:
        raise EmptyResult(found["empty"])
    raise ToolError(found["refused"] if "refused" in found else f"{tool}: {found.get('failed', 'no answer')}")


def solve(code: str, finish: str) -> Found:
    """Run the code here, and say what came of it: its value, or why there is none."""
    variables: dict[str, Any] = {"__name__": "__main__"}
    try:
        exec(compile(code, _FILE, "exec", dont_inherit=True), variables)
        solution = variables.get("solution")
        if not callable(solution):
            return {"failed": 'the code defines no function "solution"; write def solution(): ... return result'}
        return {"value": _figure(solution()) if finish == "figure" else _text(solution())}
    except EmptyResult as error:
        return {"empty": str(error)}
    except ToolError as error:
        return {"refused": str(error)}
    except SyntaxError as error:
        return {"failed": f"SyntaxError: {error.msg} (line {error.lineno})"[:_WORDS]}
    except Exception as error:
        lines = [entry.lineno for entry in traceback.extract_tb(error.__traceback__) if entry.filename == _FILE]
        where = f" (line {lines[-1]})" if lines else ""
        return {"failed": f"{type(error).__name__}: {error}"[:_WORDS] + where}


def _text(answer: Any) -> str:
    """What `solver` tells of what a solution returned. EmptyResult when that is nothing."""
    if answer is None or str(answer) in ("", "[]", "{}"):
        raise EmptyResult(f"No results found: solution() returned {answer!r}.")
    return str(answer)


def _figure(figure: Any) -> str:
    """The name of the new image with a solution's figure. ToolError when it returned none, or too large a one."""
    from matplotlib import pyplot
    from matplotlib.figure import Figure

    try:
        if not isinstance(figure, Figure):
            figure = getattr(figure, "figure", None)
        if not isinstance(figure, Figure):
            raise ToolError("plot: solution() must return a matplotlib figure.")
        width, height = figure.get_size_inches() * figure.dpi
        if not (1 <= width <= _LARGEST_FIGURE and 1 <= height <= _LARGEST_FIGURE):
            raise ToolError(f"plot: the figure has {width:.0f} x {height:.0f} pixels; at most {_LARGEST_FIGURE}.")
        name = next_name("plot")
        figure.savefig(name, metadata={"Software": None})
        return name
    finally:
        pyplot.close("all")


def _in_a_process(code: str, finish: str) -> Found:
    command = [sys.executable, "-m", __name__, finish]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "MPLBACKEND": "Agg"}
    try:
        done = subprocess.run(
            command, input=code, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=True
        )
        return json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired:
        return {"failed": f"the code was not done after {_SECONDS:g} seconds"}
    except (subprocess.CalledProcessError, IndexError, ValueError) as error:
        return {"failed": f"the code ended its process: {type(error).__name__}"}


if __name__ == "__main__":
    print("\n" + json.dumps(solve(sys.stdin.read(), sys.argv[1])))
