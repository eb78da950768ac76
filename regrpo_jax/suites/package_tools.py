"""Tools over the world of a package of others: one for each function that it offers, and the `final_answer` that ends.

They share the world of their process, which is made of the file behind the tools when it is first needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Generic, Protocol, TypeVar

from smolagents.tools import Tool

from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.final_answer import FinalAnswer


class PackageWorld(Protocol):
    """What an episode does is done to it."""

    def answer(self) -> Any:
        """What the episode came to, as its check reads it."""


World = TypeVar("World", bound=PackageWorld)


class EpisodeWorld(Generic[World]):
    """The world of this process. make: from what `behind.WORLD_FILE` holds."""

    def __init__(self, make: Callable[[dict[str, Any]], World]) -> None:
        self._make = make
        self._world: World | None = None

    @property
    def world(self) -> World:
        """Made at first use, in the process of an episode."""
        if self._world is None:
            self._world = self._make(json.loads(behind.read(behind.WORLD_FILE) or b"{}"))
        return self._world


class PackageFunction(Tool):
    """A function as a tool; what fits it is for the package to say, as in its authors' runner.

    call: (positional arguments, keywords) -> what the function returns.
    """

    name = "function"
    description = "A function."
    inputs: dict[str, Any] = {}
    output_type = "any"
    skip_forward_signature_validation = True
    may_return_nothing = True

    def __init__(
        self,
        name: str,
        description: str,
        inputs: Mapping[str, Mapping[str, Any]],
        call: Callable[[tuple[Any, ...], dict[str, Any]], Any],
    ) -> None:
        self.name, self.description, self._call = name, description, call
        self.inputs = {one: dict(declared) for one, declared in inputs.items()}
        super().__init__()

    def __call__(self, /, *arguments: Any, **keywords: Any) -> Any:
        return self.forward(*arguments, **keywords)

    def forward(self, /, *arguments: Any, **keywords: Any) -> Any:
        return self._call(arguments, keywords)


class PackageAnswer(FinalAnswer):
    """Ends the episode, or a request of it; the package says whether all was done, whatever is said."""

    def __init__(self, episode: EpisodeWorld[Any], description: str, said: str) -> None:
        self.description = description
        declared: dict[str, Any] = {"type": "any", "description": said, "nullable": True}
        self.inputs = {"answer": declared}
        self._episode = episode
        super().__init__()

    def forward(self, answer: Any = None) -> Any:
        return self._episode.world.answer()
