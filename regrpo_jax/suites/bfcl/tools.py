"""The functions of BFCL's classes as tools, and `final_answer`, which ends a request of the user.

All classes' functions are loaded; an episode has those of its task. They share the world of their process, which is
made when it is first needed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolagents.tools import Tool

from regrpo_jax.errors import UserError
from regrpo_jax.suites.bfcl.functions import Function, functions_of
from regrpo_jax.suites.bfcl.package import BACKEND, CHECKER, imported, package_folder, readable_places
from regrpo_jax.suites.bfcl.world import BfclWorld
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.final_answer import FinalAnswer
from regrpo_jax.toolbox.toolset import ToolsetSettings

LOADER = f"{__name__}:load"


@dataclass(frozen=True)
class BfclTools(ToolsetSettings):
    """path: the folder that holds the package. classes: whose functions are loaded. bare: without descriptions."""

    path: str = ""
    classes: tuple[str, ...] = ()
    bare: bool = False

    @property
    def readable_paths(self) -> tuple[str, ...]:
        """Of the package, without its tasks."""
        return readable_places(package_folder(Path(self.path)))


class _Episode:
    """The world of this process."""

    def __init__(self, package: Path) -> None:
        self._package = package
        self._world: BfclWorld | None = None

    @property
    def world(self) -> BfclWorld:
        if self._world is None:
            self._world = BfclWorld(self._package, json.loads(behind.read(behind.WORLD_FILE) or b"{}"))
        return self._world


class BfclFunction(Tool):
    """A function of a class; what fits it is for the function itself to say, as in the authors' runner."""

    name = "function"
    description = "A function."
    inputs: dict[str, Any] = {}
    output_type = "any"
    skip_forward_signature_validation = True
    may_return_nothing = True

    def __init__(self, function: Function, episode: _Episode, *, bare: bool) -> None:
        self.name, self.description = function.name, "" if bare else function.description
        self.inputs = {name: dict(declared) for name, declared in function.inputs.items()}
        self._episode = episode
        super().__init__()

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        return self.forward(*arguments, **keywords)

    def forward(self, /, *arguments: Any, **keywords: Any) -> Any:
        return self._episode.world.call(self.name, arguments, keywords)


class Finish(FinalAnswer):
    """Ends a request, and after the last one the episode; the checker says whether all was done, whatever is said."""

    description = "Ends the present request; the user's next one follows, if there is one."
    inputs: dict[str, Any] = {"answer": {"type": "any", "description": "what the user is told", "nullable": True}}

    def __init__(self, episode: _Episode) -> None:
        self._episode = episode
        super().__init__()

    def forward(self, answer: Any = None) -> Any:
        return self._episode.world.answer()


def load(settings: BfclTools) -> dict[str, Tool]:
    """The tools by name. UserError where the package or one of its classes cannot be had."""
    package = package_folder(Path(settings.path))
    backend = imported(package, BACKEND)
    for name in settings.classes:
        if name not in backend.CLASS_FILE_PATH_MAPPING:
            raise UserError(f"{package}: has no class {name}")
        imported(package, backend.CLASS_FILE_PATH_MAPPING[name])  # before episodes are forked off
    imported(package, CHECKER)
    episode = _Episode(package)
    functions = functions_of(package, settings.classes)
    tools: dict[str, Tool] = {name: BfclFunction(one, episode, bare=settings.bare) for name, one in functions.items()}
    return tools | {Finish.name: Finish(episode)}
