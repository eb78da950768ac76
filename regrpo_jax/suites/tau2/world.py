"""The world of an episode: the package's environment without a user, in the state that the task begins with.

It lives in the process of the tools, where no action reaches it. Calls go through the package's own `get_response`,
which brings both databases in step after each one; what it tells as an error is a failure, and so is what a device says
in words of a call that it did not carry out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrpo_jax.suites.bfcl.calls import is_plain
from regrpo_jax.suites.tau2.package import DATA, DATABASE, DEVICE_DATABASE, ENVIRONMENT, MESSAGES, TASKS, imported
from regrpo_jax.suites.tau2.verdict import Verdict, judged
from regrpo_jax.toolbox.failures import ToolError

_DATABASES = {"db": (DATABASE, "TelecomDB", "db.toml"), "user_db": (DEVICE_DATABASE, "TelecomUserDB", "user_db.toml")}
_NOT_DONE = re.compile(r"Error\b|Failed to |Cannot |You do not have a payment request|App '.*' not found")
"""How the device begins to say that a call had no effect, or was of something that is not there."""


def databases(package: Path) -> dict[str, Any]:
    """What both sides' databases hold at first, as plain data."""
    found = {}
    for key, (module, name, file) in _DATABASES.items():
        found[key] = getattr(imported(package, module), name).load(package / DATA / file).model_dump(mode="json")
    return found


def constructor(package: Path, held: Mapping[str, Any]) -> Callable[..., Any]:
    """What the package's evaluators make environments with; each with databases of its own. held: see `databases`."""

    def make(solo_mode: bool = False) -> Any:
        own = {
            key: getattr(imported(package, module), name).model_validate(held[key])
            for key, (module, name, _) in _DATABASES.items()
        }
        return imported(package, ENVIRONMENT).get_environment(solo_mode=solo_mode, **own)

    return make


class Tau2World:
    """told: see `world_data` of `tasks.py`."""

    def __init__(self, package: Path, told: Mapping[str, Any]) -> None:
        self._package, self._told = package, told
        self._task = imported(package, TASKS).Task.model_validate(told["task"])
        self._messages = imported(package, MESSAGES)
        self._make = constructor(package, told)
        self._environment = self._make(solo_mode=True)
        begun = self._task.initial_state
        self._environment.set_state(
            initialization_data=begun and begun.initialization_data,
            initialization_actions=begun and begun.initialization_actions,
            message_history=(begun and begun.message_history) or [],
        )
        self.history: list[Any] = list((begun and begun.message_history) or [])
        self._calls: list[dict[str, Any]] = []
        self._verdict: Verdict | None = None

    def call(self, name: str, names: Sequence[str], arguments: Sequence[Any], keywords: Mapping[str, Any]) -> Any:
        """What the tool returns, None for nothing. ToolError for what fails, in the package's own words.

        names: of the tool's arguments in order; the package's calls have them by name alone.
        """
        if len(arguments) > len(names):
            raise ToolError(f"{name} takes {len(names)} arguments, and {len(arguments)} were given")
        if twice := [key for key in names[: len(arguments)] if key in keywords]:
            raise ToolError(f"{name} got {twice[0]!r} twice")
        given = dict(zip(names, arguments, strict=False)) | dict(keywords)
        if odd := [value for value in given.values() if not is_plain(value)]:
            raise ToolError(
                f"{name}: a value of type {type(odd[0]).__name__} is no plain data; give numbers, texts, lists"
            )
        response = self.respond(name, json.loads(json.dumps(given)))
        if response.error or _NOT_DONE.match(response.content or ""):
            raise ToolError(response.content)
        return _value(response.content)

    def respond(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Make a call, and the package's own message of what came of it."""
        call = self._messages.ToolCall(id=str(len(self._calls)), name=name, arguments=dict(arguments))
        response = self._environment.get_response(call)
        self._calls.append({"name": name, "arguments": dict(arguments)})
        self.history += [self._messages.AssistantMessage(role="assistant", tool_calls=[call]), response]
        return response

    def answer(self) -> str:
        """End the episode; JSON of all calls and of the verdict."""
        if self._verdict is None:
            self._verdict = judged(self._package, self._make, self._task, self.history)
        return answer_text(self._calls, self._verdict)


def answer_text(calls: Sequence[Mapping[str, Any]], verdict: Verdict) -> str:
    """What the host gets to know of an episode."""
    return json.dumps({"calls": list(calls), "valid": verdict.valid, "parts": verdict.parts, "words": verdict.words})


def _value(content: str) -> Any:
    """Plain data where the package wrote some as JSON, else its text."""
    try:
        found = json.loads(content)
    except ValueError:
        return content
    return found if found is None or isinstance(found, dict | list | str) else content
