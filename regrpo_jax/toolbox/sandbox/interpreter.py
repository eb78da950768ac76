"""Runs one code action and says what came of it: with smolagents' interpreter, or as plain Python.

The interpreter (variables kept over the steps of an episode) gives good messages and refuses what an action
has no business with; it is NOT the security boundary, which is the process and its namespaces. Plain Python
(`native`) is for user tools and actions that need all of the language; code that wants to can then forge what
its own episode reports.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import linecache
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from smolagents import local_python_executor
from smolagents.local_python_executor import InterpreterError, LocalPythonExecutor

from regrpo_jax.records.types import Status
from regrpo_jax.toolbox.failures import ToolFailure
from regrpo_jax.toolbox.sandbox.capture import Output, text_of
from regrpo_jax.toolbox.sandbox.tool_calls import FINAL_ANSWER, Journal, recorded_tools

RECURSION_LIMIT = 4000  # the interpreter spends about ten frames on one of the action's
_FILE = "<action>"
# How smolagents words what the action's author may not do, as against what went wrong in doing it.
_REFUSALS = ("Forbidden ", "Import of ", "Import from ", "Invoking a builtin", "The variable ", "Cannot assign to name")


class FinalAnswer(BaseException):
    """Ends a plain action; no `except Exception` of the action stops it."""

    def __init__(self, value: Any) -> None:
        self.value = value


@dataclass
class Outcome:
    """What came of an action; `answer` is a tuple of the one final answer, or empty."""

    status: Status
    output: Output
    journal: Journal
    answer: tuple[Any, ...] = ()


class _Prints:
    """Takes the place of smolagents' growing string: prints go where those of tools go, and are bounded."""

    value = ""

    def __iadd__(self, text: object) -> _Prints:
        sys.stdout.write(str(text))
        return self

    def __str__(self) -> str:
        return ""


_copy_module = local_python_executor.get_safe_module
_copies: dict[str, ModuleType] = {}


def _module_copy(module: Any, imports: list[str], visited: set[int] | None = None) -> Any:
    """smolagents' copy of a module, made once: numpy's takes a tenth of a second."""
    if visited is not None or not isinstance(module, ModuleType):
        return _copy_module(module, imports, visited)
    if module.__name__ not in _copies:
        _copies[module.__name__] = _copy_module(module, imports)
    return _copies[module.__name__]


class _NoGuessing:
    """smolagents reads an undefined name as a similar variable. An unknown name is an error here."""

    @staticmethod
    def get_close_matches(word: str, possibilities: list[str]) -> list[str]:
        return [] if "_print_outputs" in possibilities else difflib.get_close_matches(word, possibilities)


def _open(path: Any, *arguments: Any, **keywords: Any) -> Any:
    try:
        return open(path, *arguments, **keywords)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. Files here: {', '.join(sorted(os.listdir('.'))[:40])}") from None


def installed(imports: tuple[str, ...]) -> list[str]:
    """Those of `imports` whose package is there."""
    return [name for name in imports if name == "*" or importlib.util.find_spec(name.split(".")[0]) is not None]


def interpreter(imports: tuple[str, ...]) -> LocalPythonExecutor:
    """A fresh interpreter, its modules imported; made once in the warm process, used by the forked ones."""
    local_python_executor.get_safe_module = _module_copy
    local_python_executor.PrintContainer = _Prints
    local_python_executor.difflib = _NoGuessing
    functions = {
        function.__name__: function
        for function in (repr, bytes, bytearray, frozenset, slice, format, bin, hex, oct, hash, object)
    }
    executor = LocalPythonExecutor([], additional_functions=functions | {"open": _open}, timeout_seconds=None)
    executor.authorized_imports = installed(imports)
    for name in executor.authorized_imports:
        if not name.endswith("*"):
            _module_copy(importlib.import_module(name), executor.authorized_imports)
    return executor


def _refused(error: BaseException) -> bool:
    if isinstance(error, InterpreterError):
        words = text_of(error)
        return words.startswith(_REFUSALS) or "is not supported" in words
    return isinstance(error, NameError | SyntaxError) and not isinstance(error, UnboundLocalError)


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0][:160]


class Actions:
    """The actions of one episode: the tools, and the variables that live from one to the next."""

    def __init__(self, tools: Mapping[str, Callable[..., Any]], characters: int, executor: LocalPythonExecutor | None):
        self.characters = characters
        self.executor = executor
        self.journal = Journal()
        self.known = recorded_tools({FINAL_ANSWER: lambda answer=None: answer, **tools}, lambda: self.journal)
        self.variables: dict[str, Any] = {"__name__": "__main__", **self.known}
        if executor is not None:
            executor.send_tools(self.known)
        else:
            answer = self.known[FINAL_ANSWER]

            def final_answer(*arguments: Any, **keywords: Any) -> None:
                raise FinalAnswer(answer(*arguments, **keywords))

            self.variables[FINAL_ANSWER] = final_answer

    def run(self, code: str) -> Outcome:
        """Run one action; every exception of its code becomes a status and words."""
        self.journal = Journal()
        outcome = Outcome(Status.OK, Output(self.characters), self.journal)
        with _captured(outcome.output):
            try:
                tree = _parsed(code)
                if not tree.body:
                    raise SyntaxError("there is no code in this action")
                value, outcome.answer = self._interpreted(code) if self.executor else self._native(tree, code)
                if value is not None and not outcome.answer:
                    outcome.output.line(text_of(value))
                if self.journal.all_empty:
                    outcome.status = Status.EMPTY
            except BaseException as error:
                outcome.status = self._told(error, code, outcome.output)
        return outcome

    def _interpreted(self, code: str) -> tuple[Any, tuple[Any, ...]]:
        assert self.executor is not None
        try:
            done = self.executor(code)
        except InterpreterError as error:
            raise (error.__context__ or error) from error
        return (None, (done.output,)) if done.is_final_answer else (done.output, ())

    def _native(self, tree: ast.Module, code: str) -> tuple[Any, tuple[Any, ...]]:
        linecache.cache[_FILE] = (len(code), None, code.splitlines(keepends=True), _FILE)
        last = tree.body[-1]
        try:
            if isinstance(last, ast.Expr):
                exec(compile(ast.Module(tree.body[:-1], []), _FILE, "exec"), self.variables)
                return eval(compile(ast.Expression(last.value), _FILE, "eval"), self.variables), ()
            exec(compile(tree, _FILE, "exec"), self.variables)
            return None, ()
        except FinalAnswer as answer:
            return None, (answer.value,)

    def _told(self, error: BaseException, code: str, output: Output) -> Status:
        """Write the error into the output and say which status it is."""
        failure = self.journal.failure
        if failure is not None and failure[0] is error:
            words = failure[1]
        else:
            words = f"{type(error).__name__}: {text_of(error)}"
        where = _place(error, code)
        output.line(f"Error{f' at `{where}`' if where else ''}: {words}")
        if isinstance(error, ToolFailure):
            return error.status
        return Status.INVALID_ACTION if _refused(error) else Status.TOOL_ERROR


def _parsed(code: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            raise SyntaxError(f"the code cannot be parsed: {text_of(error)}") from error


def _place(error: BaseException, code: str) -> str:
    """The first line of the statement that failed, where it is known."""
    told = text_of(error.__cause__) if isinstance(error.__cause__, InterpreterError) else ""
    start, end = "Code execution failed at line '", "' due to: "
    if told.startswith(start) and end in told:
        return _first_line(told[len(start) :].partition(end)[0])
    if isinstance(error, SyntaxError):
        return ""
    lines = code.splitlines()
    trace, found = error.__traceback__, ""
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == _FILE and 0 < trace.tb_lineno <= len(lines):
            found = _first_line(lines[trace.tb_lineno - 1])
        trace = trace.tb_next
    return found


@contextmanager
def _captured(output: Output) -> Iterator[None]:
    kept = sys.stdout, sys.stderr
    sys.stdout = sys.stderr = output
    try:
        yield
    finally:
        sys.stdout, sys.stderr = kept
