"""The tools of both sides, and `final_answer`, which ends the episode as the package's `done` does.

They share the world of their process, which is made when it is first needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolagents.tools import Tool

from regrpo_jax.suites.tau2.functions import Function, functions_of
from regrpo_jax.suites.tau2.package import (
    ACTIONS,
    DATABASE,
    DEVICE_DATABASE,
    ENVIRONMENT,
    STATES,
    imported,
    package_folder,
    readable_places,
)
from regrpo_jax.suites.tau2.world import Tau2World
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.final_answer import FinalAnswer
from regrpo_jax.toolbox.toolset import ToolsetSettings

LOADER = f"{__name__}:load"


@dataclass(frozen=True)
class Tau2Tools(ToolsetSettings):
    """path: the folder that holds the package. bare: without descriptions."""

    path: str = ""
    bare: bool = False

    @property
    def readable_paths(self) -> tuple[str, ...]:
        """Of the package, without its tasks and databases."""
        return readable_places(package_folder(Path(self.path)))


class _Episode:
    """The world of this process."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._world: Tau2World | None = None

    @property
    def world(self) -> Tau2World:
        if self._world is None:
            self._world = Tau2World(self._package, json.loads(behind.read(behind.WORLD_FILE) or b"{}"))
        return self._world


class Tau2Function(Tool):
    """A tool of a side; what fits it is for the package to say."""

    name = "function"
    description = "A function."
    inputs: dict[str, Any] = {}
    output_type = "any"
    skip_forward_signature_validation = True
    may_return_nothing = True

    def __init__(self, function: Function, episode: _Episode, *, bare: bool) -> None:
        self.name, self.description = function.name, "" if bare else function.description
        self.inputs = {name: dict(declared) for name, declared in function.inputs.items()}
        self._function, self._episode = function, episode
        super().__init__()

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        return self.forward(*arguments, **keywords)

    def forward(self, /, *arguments: Any, **keywords: Any) -> Any:
        return self._episode.world.call(self.name, self._function.arguments, arguments, keywords)


class Finish(FinalAnswer):
    """Ends the episode; the package's evaluators say whether the ticket is solved, whatever is said."""

    description = "Ends the work on the ticket."
    inputs: dict[str, Any] = {"answer": {"type": "any", "description": "what was done", "nullable": True}}

    def __init__(self, episode: _Episode) -> None:
        self._episode = episode
        super().__init__()

    def forward(self, answer: Any = None) -> Any:
        return self._episode.world.answer()


def load(settings: Tau2Tools) -> dict[str, Tool]:
    """The tools by name. UserError where the package, or a library that it needs, cannot be had."""
    package = package_folder(Path(settings.path))
    for module in (ENVIRONMENT, DATABASE, DEVICE_DATABASE, STATES, ACTIONS):
        imported(package, module)  # before episodes are forked off
    episode = _Episode(package)
    functions = functions_of(package)
    tools: dict[str, Tool] = {name: Tau2Function(one, episode, bare=settings.bare) for name, one in functions.items()}
    return tools | {Finish.name: Finish(episode)}
