"""The functions of BFCL's classes as tools, and `final_answer`, which ends a request of the user.

All classes' functions are loaded; an episode has those of its task. They share the world of their process, which is
made when it is first needed.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolagents.tools import Tool

from regrpo_jax.errors import UserError
from regrpo_jax.suites.bfcl.functions import Function, functions_of
from regrpo_jax.suites.bfcl.package import BACKEND, CHECKER, imported, package_folder, readable_places
from regrpo_jax.suites.bfcl.world import BfclWorld
from regrpo_jax.suites.package_tools import EpisodeWorld, PackageAnswer, PackageFunction
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


def load(settings: BfclTools) -> dict[str, Tool]:
    """The tools by name. UserError where the package or one of its classes cannot be had."""
    package = package_folder(Path(settings.path))
    backend = imported(package, BACKEND)
    for name in settings.classes:
        if name not in backend.CLASS_FILE_PATH_MAPPING:
            raise UserError(f"{package}: has no class {name}")
        imported(package, backend.CLASS_FILE_PATH_MAPPING[name])  # before episodes are forked off
    imported(package, CHECKER)
    episode = EpisodeWorld(functools.partial(BfclWorld, package))

    def tool(one: Function) -> PackageFunction:
        def call(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            return episode.world.call(one.name, arguments, keywords)

        return PackageFunction(one.name, "" if settings.bare else one.description, one.inputs, call)

    tools: dict[str, Tool] = {name: tool(one) for name, one in functions_of(package, settings.classes).items()}
    ends = "Ends the present request; the user's next one follows, if there is one."
    return tools | {PackageAnswer.name: PackageAnswer(episode, ends, "what the user is told")}
