"""The tools of both sides, the company's and those of the user's device, as the package itself describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.suites.tau2.package import DEVICE_TOOLS, TOOLS, imported

ASSISTANT, USER = "assistant", "user"  # whose tools: as the package's tasks call the two sides
_CLASSES = {ASSISTANT: (TOOLS, "TelecomTools"), USER: (DEVICE_TOOLS, "TelecomUserTools")}
_KINDS = ("string", "integer", "number", "boolean", "array", "object")


@dataclass(frozen=True)
class Function:
    """A tool. owner: see above. inputs: as smolagents' tools have them, "default" beside "nullable" where one is told.

    arguments: names in the order of the method.
    """

    name: str
    owner: str
    description: str
    inputs: Mapping[str, Mapping[str, Any]]

    @property
    def arguments(self) -> tuple[str, ...]:
        """See above."""
        return tuple(self.inputs)


def toolkit(package: Path, owner: str) -> type:
    """The class of a side. UserError where it is not there."""
    module, name = _CLASSES[owner]
    found = getattr(imported(package, module), name, None)
    if found is None:
        raise UserError(f"{package}: {module} has no class {name}")
    return found


def functions_of(package: Path) -> dict[str, Function]:
    """All tools by name. UserError for two of one name, which the package refuses in solo mode as well."""
    found: dict[str, Function] = {}
    for owner in _CLASSES:
        for name, tool in toolkit(package, owner)(None).get_tools().items():
            if name in found:
                raise UserError(
                    f"{package}: both sides have a tool {name}, so that nothing can be played without a user"
                )
            found[name] = _function(name, owner, tool.openai_schema["function"])
    return found


def _function(name: str, owner: str, told: Mapping[str, Any]) -> Function:
    parameters = told["parameters"]
    needed = parameters.get("required", [])
    inputs = {key: _input(declared, key in needed) for key, declared in parameters.get("properties", {}).items()}
    return Function(name, owner, str(told["description"]), inputs)


def _input(declared: Mapping[str, Any], needed: bool) -> dict[str, Any]:
    kind = declared.get("type")
    found = {"type": kind if kind in _KINDS else "any", "description": str(declared.get("description") or "")}
    return found if needed else found | {"nullable": True, "default": declared.get("default")}
