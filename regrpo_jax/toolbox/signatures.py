"""What a tool's signature looks like to the one who calls it, and what a wrong call is told.

A wrong keyword or a number where a name belongs is among the commonest failures; the observation must show
the right signature, because that is what a repair needs.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from smolagents.tools import Tool

from regrpo_jax.toolbox.failures import ToolError

_PYTHON_NAMES = {
    "string": "str",
    "integer": "int",
    "number": "float",
    "boolean": "bool",
    "array": "list",
    "object": "dict",
    "null": "None",
    "any": "any",
    "image": "image",
    "audio": "audio",
}
_ACCEPTED: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
    "null": (type(None),),
}


def _types(declared: str | Sequence[str]) -> tuple[str, ...]:
    return (declared,) if isinstance(declared, str) else tuple(declared)


def _type_text(declared: str | Sequence[str]) -> str:
    return " | ".join(_PYTHON_NAMES.get(name, name) for name in _types(declared))


def _defaults(tool: Tool) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(tool.forward).parameters


def signature_of(tool: Tool) -> str:
    """`name(argument: type, optional: type = value) -> type`, as it is written in a prompt."""
    parameters = _defaults(tool)
    pieces = []
    for name, declared in tool.inputs.items():
        parameter = parameters.get(name)
        default = "" if parameter is None or parameter.default is parameter.empty else f" = {parameter.default!r}"
        if not default and declared.get("nullable"):
            default = f" = {declared.get('default')!r}"
        choices = " | ".join(map(repr, declared.get("enum") or ()))
        pieces.append(f"{name}: {choices or _type_text(declared['type'])}{default}")
    returned = "str" if tool.output_type == "image" else _type_text(tool.output_type)  # the name of the picture's file
    return f"{tool.name}({', '.join(pieces)}) -> {returned}"


def _accepts(declared: str | Sequence[str], value: object) -> bool:
    names = _types(declared)
    if any(name not in _ACCEPTED for name in names):
        return True
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, _ACCEPTED[name]) for name in names)


def check_call(tool: Tool, arguments: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Refuse a call that does not fit the tool's inputs, with a ToolError that ends in the right signature."""
    usage = f"Usage: {signature_of(tool)}"
    names = list(tool.inputs)
    if len(arguments) > len(names):
        raise ToolError(f"{tool.name} takes at most {len(names)} arguments, got {len(arguments)}. {usage}")
    given = dict(zip(names, arguments, strict=False))
    for name, value in keywords.items():
        if name not in tool.inputs:
            raise ToolError(f'{tool.name} has no argument "{name}". {usage}')
        if name in given:
            raise ToolError(f'{tool.name} was given "{name}" twice. {usage}')
        given[name] = value
    for name, declared in tool.inputs.items():
        optional = bool(declared.get("nullable"))
        if name not in given:
            if not optional:
                raise ToolError(f'{tool.name} needs the argument "{name}". {usage}')
        elif given[name] is None and optional:
            continue
        elif not _accepts(declared["type"], given[name]):
            found = type(given[name]).__name__
            raise ToolError(f'{tool.name}: "{name}" must be {_type_text(declared["type"])}, not {found}. {usage}')


class CheckedTool(Tool):
    """A tool whose calls are checked against its inputs before they run; all built-in tools are one.

    `remote` tools need the network, so they run on the host and not in the sandbox. `stateless` ones keep nothing from
    one call to the next, nor a cache of what files hold: where all are, one process serves many episodes. One that
    `may_return_nothing` has done its work where it returns None; of any other, that is an empty result.
    """

    name: str = ""
    remote: bool = False
    stateless: bool = False
    may_return_nothing: bool = False

    def __call__(self, /, *arguments: Any, sanitize_inputs_outputs: bool = False, **keywords: Any) -> Any:
        check_call(self, arguments, keywords)
        return self.forward(*arguments, **keywords)

    def warm_up(self) -> None:
        """Load what is slow to load; the sandbox calls it once, in the process that it forks episodes from."""
