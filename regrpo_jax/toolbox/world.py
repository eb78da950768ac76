"""A world of a person's own that has a state: its episodes are played with one tool, `act`.

    class Lamp:
        def reset(self, task): ...   what the task's data makes of it; returns what is seen at first
        def step(self, action): ...  returns what is seen then; raises for what fails, in words that a repair needs
        def success(self): ...       whether the task is done

Each episode's tools run in a process of their own, and with them its world: an action cannot reach into it. An episode
that is played again, which branches of a group and resting episodes are, does the same actions again; so a world must
be the same for the same task and actions.
"""

from __future__ import annotations

import json
from typing import Any, Protocol

from regrpo_jax.errors import UserError
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.final_answer import FinalAnswer
from regrpo_jax.toolbox.signatures import CheckedTool
from regrpo_jax.toolbox.user_tools import imported

DONE, NOT_DONE = "done", "not done"


class World(Protocol):
    """See above."""

    def reset(self, task: dict[str, Any]) -> str: ...
    def step(self, action: str) -> str: ...
    def success(self) -> bool: ...


def new_world(reference: str) -> World:
    """A world of the class "package.module:Name". UserError when it is none."""
    kind = imported(reference)
    lacks = [name for name in ("reset", "step", "success") if not callable(getattr(kind, name, None))]
    if lacks or not isinstance(kind, type):
        missing = f"has no {', '.join(lacks)}" if lacks else "is no class"
        raise UserError(f"the world {reference} {missing}; write a class with reset(task), step(action) and success()")
    try:
        return kind()
    except Exception as error:  # a person's own code may raise anything
        raise UserError(f"the world {reference} cannot be made: {type(error).__name__}: {error}") from error


class _Episode:
    """The world of this process, made when it is first needed."""

    def __init__(self, reference: str) -> None:
        self._reference = reference
        self._world: World | None = None

    @property
    def world(self) -> World:
        if self._world is None:
            self._world = new_world(self._reference)
            self._world.reset(json.loads(behind.read(behind.WORLD_FILE) or b"{}"))
        return self._world


class Act(CheckedTool):
    """One step of the world."""

    name = "act"
    description = "Does one thing in the world and tells what is seen then."
    inputs = {"action": {"type": "string", "description": "what to do"}}
    output_type = "any"

    def __init__(self, episode: _Episode) -> None:
        self._episode = episode
        super().__init__()

    def forward(self, action: str) -> Any:
        return self._episode.world.step(action)


class Finish(FinalAnswer):
    """Ends the episode; the world says whether its task is done, whatever the answer."""

    description = "Ends the task, when the world is as it should be."
    inputs: dict[str, Any] = {"answer": {"type": "any", "description": "anything", "nullable": True}}

    def __init__(self, episode: _Episode) -> None:
        self._episode = episode
        super().__init__()

    def forward(self, answer: Any = None) -> Any:
        return DONE if self._episode.world.success() else NOT_DONE


def world_tools(reference: str) -> tuple[Act, Finish]:
    """The tools of a world, which share it. UserError when there is none such."""
    new_world(reference)
    episode = _Episode(reference)
    return Act(episode), Finish(episode)
