"""Faults of tools, applied where the tools run: each faulty tool is wrapped when an episode's process starts.

`apply_faults` is the sandbox's hook. What a wrapper tells is written so that the repaired call can be read off it.
Which calls are faulty depends on the number of the call and its arguments alone, so the same actions meet the same
faults; the host passes in how many calls there were before a killed process was replaced.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from regrpo_jax.environments import soft_faults as softened
from regrpo_jax.environments.faults import FILE_FAULTS, NEEDED, SOFT_FAULTS, Fault, FaultKind
from regrpo_jax.records.types import Status
from regrpo_jax.toolbox.failures import EmptyResult, ToolError, ToolFailure, Unavailable

APPLY = f"{__name__}:apply_faults"
_OPPOSITE = {"top": "bottom", "bottom": "top", "left": "right", "right": "left", "upper": "lower", "lower": "upper"}
_STORED = "stored "
Tools = dict[str, Callable[..., Any]]


@dataclass(frozen=True)
class Call:
    """One call of a tool: its number in the episode (from 1), and its arguments as they were written."""

    number: int
    arguments: tuple[Any, ...]
    keywords: Mapping[str, Any]

    def replaced(self, arguments: tuple[Any, ...], keywords: Mapping[str, Any]) -> Call:
        return Call(self.number, arguments, dict(keywords))


Next = Callable[[Call], Any]


def settings_for(tools: tuple[str, ...], faults: tuple[Fault, ...]) -> dict[str, Any]:
    """What `apply_faults` is told: the tools of the episode (() for all), its faults, the calls made so far."""
    of_tools = [fault.to_json() for fault in faults if fault.kind not in FILE_FAULTS]
    return {"tools": list(tools), "faults": of_tools, "calls": {}}


def apply_faults(tools: Tools, settings: Mapping[str, Any], seed: int) -> Tools:
    """The tools that an episode has, the faulty ones wrapped. KeyError for a name that no tool has."""
    wanted = settings["tools"]
    unknown = sorted(set(wanted) - set(tools) - {"final_answer"})
    if unknown:
        raise KeyError(f"no tool is called {unknown[0]!r}; there are {', '.join(sorted(tools))}")
    chosen = {name: tool for name, tool in tools.items() if not wanted or name in wanted or name == "final_answer"}
    faults = [Fault.from_json(fault) for fault in settings["faults"]]
    for fault in faults:
        if fault.target not in chosen:
            raise KeyError(f"fault {fault.kind} concerns {fault.target!r}, which is not among the episode's tools")
    if not faults:
        return chosen
    gone = {fault.target for fault in faults if fault.kind == FaultKind.TOOL_UNAVAILABLE and not fault.calls}
    listing = "; ".join(f"{name} ({_purpose(tool)})" for name, tool in sorted(chosen.items()) if name not in gone)
    faulty = dict(chosen)
    for name in sorted({fault.target for fault in faults}):
        own = tuple(fault for fault in faults if fault.target == name)
        faulty[name] = FaultyTool(name, chosen[name], own, listing, settings["calls"].get(name, 0))
    return faulty


def _purpose(tool: Callable[..., Any]) -> str:
    """What a tool is for, in a few words of its description."""
    words = " ".join(str(getattr(tool, "description", "") or "runs on the host").split())
    return re.split(r"[.:;] |, (?:one|with|as) ", words, maxsplit=1)[0].rstrip(".:;")[:80]


class FaultyTool:
    """Takes the place of a tool; counts the calls and leads each through the tool's faults."""

    def __init__(
        self, name: str, tool: Callable[..., Any], faults: tuple[Fault, ...], listing: str, calls: int
    ) -> None:
        self.name, self.tool, self.faults, self.listing, self.calls = name, tool, faults, listing, calls
        self.description = getattr(tool, "description", "")
        self.inputs: dict[str, Any] = getattr(tool, "inputs", {})

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        self.calls += 1
        return self._through(0, Call(self.calls, arguments, keywords))

    def _through(self, place: int, call: Call) -> Any:
        if place == len(self.faults):
            return self.tool(*call.arguments, **call.keywords)
        fault = self.faults[place]

        def further(changed: Call) -> Any:
            return self._through(place + 1, changed)

        if fault.kind in SOFT_FAULTS:
            return self._soft(fault, call, further)
        return _HARD[fault.kind](self, fault, call, further)

    def _soft(self, fault: Fault, call: Call, further: Next) -> Any:
        option, wanted = softened.option(fault)
        given = call.keywords.get(option)
        keywords = {name: value for name, value in call.keywords.items() if name != option}
        bites = self.bites(fault, call) and (option not in call.keywords or given != wanted)
        if fault.kind == FaultKind.SLOW_ANSWER and bites:
            time.sleep(softened.seconds(fault))
        result = further(call.replaced(call.arguments, keywords))
        if fault.kind == FaultKind.TRUNCATED_OUTPUT and type(given) is int:
            return str(result)[max(0, given) :]
        if not bites or (isinstance(result, str) and os.path.exists(result)):  # a file's name stays a name
            return result
        text = softened.text(fault, self.name, result)
        if text is not None and fault.parameters.get("raises"):
            raise ToolError(text)
        return result if text is None else text

    def bound(self, call: Call) -> dict[str, Any]:
        """The call's arguments by name, as far as the names are known."""
        return {**dict(zip(self.inputs, call.arguments, strict=False)), **call.keywords}

    def bites(self, fault: Fault, call: Call) -> bool:
        """Whether this call is one of those that the fault concerns."""
        given = self.bound(call)
        return (not fault.calls or call.number in fault.calls) and all(
            given.get(name) == value for name, value in fault.arguments.items()
        )

    def argument(self, fault: Fault) -> str:
        """The argument that a fault is about: its parameter "argument", a usual one, or the first."""
        named = fault.parameters.get("argument")
        usual = (name for name in NEEDED[fault.kind] if name in self.inputs)
        return str(named) if named else next(usual, next(iter(self.inputs), ""))

    def with_argument(self, call: Call, name: str, value: Any) -> Call:
        place = list(self.inputs).index(name) if name in self.inputs else len(call.arguments)
        if place < len(call.arguments):
            changed = (*call.arguments[:place], value, *call.arguments[place + 1 :])
            return call.replaced(changed, call.keywords)
        return call.replaced(call.arguments, {**call.keywords, name: value})


def _unavailable(tool: FaultyTool, fault: Fault, call: Call, further: Next) -> Any:
    if not tool.bites(fault, call):
        return further(call)
    reason = fault.parameters.get("reason", "its service does not answer")
    again = " Call it again later." if fault.calls else ""
    instead = fault.parameters.get("instead")
    advice = f" Use {instead} instead." if instead else ""
    raise Unavailable(f"{tool.name} is unavailable: {reason}.{advice}{again} Available tools: {tool.listing}.")


def _timeout(tool: FaultyTool, fault: Fault, call: Call, further: Next) -> Any:
    if not tool.bites(fault, call):
        return further(call)
    while fault.parameters.get("hangs"):
        time.sleep(1)
    raise ToolFailure(Status.TIMEOUT, timeout_words(fault))


def timeout_words(fault: Fault) -> str:
    """What is told of a call that timed out; by the host when the call really hung and was killed."""
    seconds = fault.parameters.get("seconds", 5)
    if "advice" in fault.parameters:
        advice = str(fault.parameters["advice"])
    elif fault.arguments:
        given = ", ".join(f"{name}={value!r}" for name, value in fault.arguments.items())
        advice = f"It does so with {given}; call it with other arguments."
    else:
        advice = "Call it again." if fault.calls else "It is overloaded; use another tool."
    return f"{fault.target} gave no answer within {seconds:g} seconds. {advice}"


def _signature_changed(tool: FaultyTool, fault: Fault, call: Call, further: Next) -> Any:
    if not tool.bites(fault, call):
        return further(call)
    draw = random.Random(f"{fault.seed}/{fault.target}")
    prefix = draw.choice(("input", "source", "given"))
    told = fault.parameters.get("renamed")
    renamed = {name: f"{prefix}_{name}" for name in tool.inputs} if told is None else dict(told)
    names = {renamed.get(name, name): name for name in (*tool.inputs, *(set(renamed) - set(tool.inputs)))}
    required = {renamed.get(name, name) for name, declared in tool.inputs.items() if not declared.get("nullable")}
    before, after = _usages(tool, renamed)
    if not names:  # nothing to rename: the new version asks for its number
        names, required, after = {"version": "version"}, {"version"}, f"{tool.name}(*, version: int)"
    usage = f"Its signature has changed. Usage: {after}"
    if call.arguments:
        raise ToolError(f"{tool.name} takes named arguments only. {usage}")
    for name in call.keywords:
        if name not in names:
            raise ToolError(f'{tool.name} has no argument "{name}". {usage}')
    for name in sorted(required - set(call.keywords)):
        raise ToolError(f'{tool.name} needs the argument "{name}". {usage}')
    old = {
        names[name]: value for name, value in call.keywords.items() if name in renamed.values() or name in tool.inputs
    }
    try:
        return further(call.replaced((), old))
    except ToolFailure as failure:
        raise ToolFailure(failure.status, failure.message.replace(before, after)) from None


def _usages(tool: FaultyTool, renamed: Mapping[str, str]) -> tuple[str, str]:
    """The signature before and after the change."""
    from smolagents.tools import Tool

    from regrpo_jax.toolbox.signatures import signature_of

    if not isinstance(tool.tool, Tool):
        return tool.name, f"{tool.name}(*, {', '.join(renamed.values())})"
    before = signature_of(tool.tool)
    after = before.replace("(", "(*, ", 1)
    for old, new in renamed.items():
        after = re.sub(rf"(?<=[( ]){re.escape(old)}: ", f"{new}: ", after, count=1)
    return before, after


def _ambiguous(tool: FaultyTool, fault: Fault, call: Call, further: Next) -> Any:
    name = tool.argument(fault)
    query = tool.bound(call).get(name)
    told = fault.parameters.get("candidates")
    if told is None:
        for mark in (" (current)", " (archived)"):
            if isinstance(query, str) and query.endswith(mark):
                if mark == " (archived)":
                    raise EmptyResult(f'No results found for "{query}": the archive is empty.')
                return further(tool.with_argument(call, name, query.removesuffix(mark)))
        labels = [f"{query} (current)", f"{query} (archived)"]
    else:
        meant = dict(told) if isinstance(told, Mapping) else {label: label for label in told}
        if isinstance(query, str) and query in meant:
            return further(tool.with_argument(call, name, meant[query]))
        labels = sorted(meant)
    if query is None or not tool.bites(fault, call):
        return further(call)
    listed = ", ".join(f'"{label}"' for label in labels)
    raise ToolError(f'Ambiguous: "{query}" fits {len(labels)} entries: {listed}. Ask {tool.name} for one of them.')


def _wrong_region(tool: FaultyTool, fault: Fault, call: Call, further: Next) -> Any:
    name = tool.argument(fault)
    asked = tool.bound(call).get(name)
    actual = fault.parameters.get("actual")
    if actual is not None:
        if asked is None or _same_region(asked, actual) or not tool.bites(fault, call):
            return further(call)
        raise EmptyResult(f'No object found at "{asked}". What stands out in this image is at "{actual}".')
    if not isinstance(asked, str) or not any(word in _OPPOSITE for word in asked.lower().split()):
        return further(call)
    if asked.startswith(_STORED):
        return further(tool.with_argument(call, name, _opposite(asked.removeprefix(_STORED))))
    if not tool.bites(fault, call):
        return further(call)
    place = _STORED + _opposite(asked)
    raise EmptyResult(
        f'No object found at "{asked}": the image is stored upside down, so its "{asked}" is at "{place}". '
        f'Ask for "{place}".'
    )


def _same_region(first: Any, second: Any) -> bool:
    if isinstance(first, str) and isinstance(second, str):
        return sorted(re.findall(r"\w+", first.lower())) == sorted(re.findall(r"\w+", second.lower()))
    return first == second or (isinstance(first, list | tuple) and list(first) == list(second))


def _opposite(region: str) -> str:
    return " ".join(_OPPOSITE.get(word, word) for word in region.lower().split())


_HARD: Mapping[FaultKind, Callable[[FaultyTool, Fault, Call, Next], Any]] = {
    FaultKind.TOOL_UNAVAILABLE: _unavailable,
    FaultKind.TIMEOUT: _timeout,
    FaultKind.SIGNATURE_CHANGED: _signature_changed,
    FaultKind.AMBIGUOUS_QUERY: _ambiguous,
    FaultKind.WRONG_REGION: _wrong_region,
}
