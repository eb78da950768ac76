"""Runs the code of actions as the Python that it is: one module, `__main__`, that lives as long as the episode.

The value of a last expression is shown as its text. What goes wrong is told with the statement it came from.
"""

from __future__ import annotations

import ast
import builtins
import linecache
import os
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from regrpo_jax.sandbox.capture import Output, text_of
from regrpo_jax.sandbox.tool_stubs import FinalAnswer

_FILE = "<action"
_SHOWN = "<shown>"  # no identifier, so no code can mean it
_NO_FILE = "<unknown>"
_MOST_LISTED = 40
_REFUSED = (NameError, SyntaxError, ModuleNotFoundError)


class Program:
    """The code of an episode's actions, one after the other."""

    def __init__(self, tools: Mapping[str, Callable[..., Any]]) -> None:
        module = types.ModuleType("__main__")
        module.__dict__.update({"__builtins__": builtins, **tools})
        sys.modules["__main__"] = module
        sys.argv = ["-c"]
        self.variables = module.__dict__
        self._actions: dict[str, tuple[str, ast.Module]] = {}

    def run(self, code: str, output: Output) -> BaseException | None:
        """Run one action, its prints into `output`; the exception that ended it, if one did."""
        with captured(output):
            try:
                value = self._run(code)
                if value is not None:
                    output.line(text_of(value))
            except FinalAnswer:
                pass
            except BaseException as error:
                return error
        return None

    def _run(self, code: str) -> Any:
        tree = _parsed(code)
        if not tree.body:
            raise SyntaxError("there is no code in this action")
        name = f"{_FILE} {len(self._actions) + 1}>"
        self._actions[name] = code, tree
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        self.variables.pop(_SHOWN, None)
        exec(_compiled(tree, name), self.variables)
        return self.variables.pop(_SHOWN, None)

    def place(self, error: BaseException) -> str:
        """The first line of the innermost statement of an action that the error came from; "" where none is known."""
        found = ""
        trace = None if isinstance(error, SyntaxError) else error.__traceback__
        while trace is not None:
            frame = trace.tb_frame.f_code
            if frame.co_filename in self._actions:
                found = _statement(*self._actions[frame.co_filename], trace)
            trace = trace.tb_next
        return found


def is_refused(error: BaseException) -> bool:
    """Whether the code is at fault for what it says, as against for what it does: its grammar, an unknown name."""
    return isinstance(error, _REFUSED) and not isinstance(error, UnboundLocalError)


def error_words(error: BaseException) -> str:
    """Type and message of an exception; what could not be found is told with what there is."""
    words = f"{type(error).__name__}: {text_of(error)}"
    if type(error) is FileNotFoundError:
        here = sorted(os.listdir("."))[:_MOST_LISTED]
        words += f". Files here: {', '.join(here)}"
    return words


def _parsed(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            raise SyntaxError(f"the code cannot be parsed: {text_of(error)}") from error


def _compiled(tree: ast.Module, name: str) -> types.CodeType:
    """The action's code, with the value of a last expression kept under a name of ours."""
    body = list(tree.body)
    if isinstance(last := body[-1], ast.Expr):
        target = ast.Name(_SHOWN, ast.Store())
        body[-1] = ast.copy_location(ast.Assign([ast.copy_location(target, last)], last.value), last)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return compile(ast.Module(body, []), name, "exec", dont_inherit=True)
        except SyntaxError as error:
            error.filename = _NO_FILE
            raise
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            raise SyntaxError(f"the code cannot be compiled: {text_of(error)}") from error


def _statement(code: str, tree: ast.Module, trace: types.TracebackType) -> str:
    positions = list(trace.tb_frame.f_code.co_positions())[trace.tb_lasti // 2]
    line, column = positions[0] or trace.tb_lineno, positions[2] or 0
    best: ast.stmt | None = None
    for node in ast.walk(tree):
        if isinstance(node, ast.stmt) and _holds(node, line, column) and (best is None or _starts_later(node, best)):
            best = node
    text = "" if best is None else ast.get_source_segment(code, best) or ""
    if not text and line <= len(lines := code.splitlines()):
        text = lines[line - 1]
    return text.strip().split("\n", 1)[0][:160]


def _holds(node: ast.stmt, line: int, column: int) -> bool:
    end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
    return (node.lineno, node.col_offset) <= (line, column) <= end


def _starts_later(node: ast.stmt, other: ast.stmt) -> bool:
    return (node.lineno, node.col_offset) > (other.lineno, other.col_offset)


@contextmanager
def captured(output: Output) -> Iterator[None]:
    """Let what is printed go into `output`."""
    kept = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = output
    try:
        yield
    finally:
        sys.stdout, sys.stderr = kept
