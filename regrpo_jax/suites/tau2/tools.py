"""The tools of both sides, and `final_answer`, which ends the episode as the package's `done` does."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolagents.tools import Tool

from regrpo_jax.suites.package_tools import EpisodeWorld, PackageAnswer, PackageFunction
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


def load(settings: Tau2Tools) -> dict[str, Tool]:
    """The tools by name. UserError where the package, or a library that it needs, cannot be had."""
    package = package_folder(Path(settings.path))
    for module in (ENVIRONMENT, DATABASE, DEVICE_DATABASE, STATES, ACTIONS):
        imported(package, module)  # before episodes are forked off
    episode = EpisodeWorld(functools.partial(Tau2World, package))

    def tool(one: Function) -> PackageFunction:
        def call(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            return episode.world.call(one.name, one.arguments, arguments, keywords)

        return PackageFunction(one.name, "" if settings.bare else one.description, one.inputs, call)

    tools: dict[str, Tool] = {name: tool(one) for name, one in functions_of(package).items()}
    return tools | {PackageAnswer.name: PackageAnswer(episode, "Ends the work on the ticket.", "what was done")}
