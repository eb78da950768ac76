"""The world of an episode: the instances of its classes, the calls that were made of them, and the request under way.

It lives in the process of the tools, where no action reaches it. A method that returns {"error": ...} has failed: the
policy gets its words as a failure, as it gets those of an exception. The checker runs the calls again by itself, so
what the policy is told changes no verdict.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from regrpo_jax.records.types import Status
from regrpo_jax.suites.bfcl.calls import is_plain, runnable, written
from regrpo_jax.suites.bfcl.package import BACKEND, imported
from regrpo_jax.suites.bfcl.verdict import Verdict, judged
from regrpo_jax.toolbox.failures import ToolError, ToolFailure

RAISED = "Error during execution: "  # what the authors' runner writes before the words of an exception


class BfclWorld:
    """told: see `world_data` of `tasks.py`. UserError for a class that the package does not have."""

    def __init__(self, package: Path, told: Mapping[str, Any]) -> None:
        self._package, self._told = package, told
        self._methods = _methods(package, told)
        self._turns: list[list[str]] = [[]]
        self._verdict: Verdict | None = None
        for calls in told["gold"][: told.get("done", 0)]:
            for call in calls:
                self.run(call)
            self._turns.append([])

    def call(self, name: str, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """What the function returns, None where that is empty. ToolFailure for what fails, in its own words."""
        if name not in self._methods or len(self._turns) <= self._told["refused"].get(name, 0):
            raise ToolFailure(Status.INVALID_ACTION, f"NameError: name {name!r} is not defined")
        method = self._methods[name]
        try:
            self._turns[-1].append(written(name, method, arguments, keywords))
        except ValueError as error:
            raise ToolError(f"{name}: {error}; give numbers, texts, lists and dicts") from None
        try:
            value = method(*arguments, **keywords)
        except Exception as error:
            raise ToolError(f"{RAISED}{error}") from None
        if words := failure_words(name, value):
            raise ToolError(words)
        return (None if value == {} else value) if is_plain(value) else str(value)

    def run(self, call: str) -> str:
        """Make a gold call, and what it returned or how it failed, as text. ValueError for what is no plain call."""
        if runnable(call, self._methods) != call:
            raise ValueError(f"{call!r} is no call of a function of {', '.join(self._told['classes'])} with plain data")
        self._turns[-1].append(call)
        try:
            return str(eval(call, {"__builtins__": {}}, self._methods))
        except Exception as error:
            return f"{RAISED}{error}"

    def answer(self) -> str:
        """End the request under way; JSON of all calls and, after the last request, of the checker's verdict."""
        if self._verdict is None and len(self._turns) == len(self._told["gold"]):
            steps = [[[call] for call in turn] for turn in self._turns]
            self._verdict = judged(self._package, self._told, steps)
        told = answer_text(self._turns, self._verdict)
        if self._verdict is None:
            self._turns.append([])
        return told


def answer_text(turns: Sequence[Sequence[str]], verdict: Verdict | None) -> str:
    """What the host gets to know of an episode: calls by request, and the verdict."""
    of_checker = {} if verdict is None else {"valid": verdict.valid, "kind": verdict.kind, "words": verdict.words}
    return json.dumps({"calls": [list(turn) for turn in turns], **of_checker})


def _methods(package: Path, told: Mapping[str, Any]) -> dict[str, Any]:
    """The public methods of fresh instances, by name, as the authors' runner makes and finds them."""
    backend = imported(package, BACKEND)
    found: dict[str, Any] = {}
    for name in told["classes"]:
        instance = getattr(imported(package, backend.CLASS_FILE_PATH_MAPPING[name]), name)()
        if name not in backend.STATELESS_CLASSES:
            config = copy.deepcopy(told["config"].get(name, {}))
            instance._load_scenario(config, long_context=told["long_context"])
        public = [method for method in dir(instance) if not method.startswith("_")]
        found |= {method: getattr(instance, method) for method in public if callable(getattr(instance, method))}
    return found


def failure_words(name: str, value: Any) -> str:
    """What a returned value says of a failure; "" where it tells of none.

    {"error": words}, alone or as the one thing in a list; or what should have become true (success, login_status, ..)
    and is False, where the function does not merely ask for it.
    """
    told = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(told, dict):
        return ""
    error = told.get("error")
    if error is not None and error is not False:
        return error if isinstance(error, str) and error.strip() else f"{name}: {told}"
    if told is not value or "get" in name.split("_"):
        return ""
    failed = any(one is False and (key == "success" or key.endswith("_status")) for key, one in told.items())
    return f"{name}: {told}" if failed else ""
