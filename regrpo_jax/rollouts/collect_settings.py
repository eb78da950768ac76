"""What a collection of episodes is told, what it counts, and who hears of it."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from smolagents.tools import Tool

from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.prompt import system_text
from regrpo_jax.agent.rollout import Rollout, RolloutGroup
from regrpo_jax.agent.shown_pictures import NO_PICTURES, PictureLimits
from regrpo_jax.environments.task import Task

Expected = MutableMapping[str, tuple[str, ...] | None]  # task id -> see `expected_observations`


@dataclass(frozen=True)
class CollectSettings:
    """loop: rules of an episode. branches: episodes of a group. tools: all that are loaded, by name; those of a task
    stand in the first turn of its conversations; brief, system: how, see `agent.prompt.system_text`. image_folder:
    where the pictures of tasks and tools are kept as files, under their SHA-256. turn_seconds: that the environment may
    need for one action; the sandbox ends every action long before, so only a fault of ours takes so long. seconds: that
    all actions of the collection may take together, then it is broken off; None for any time. Sampling, and the
    compilation that comes with it, is not counted. patience: seconds in which no action
    ends, then episodes go on without those that still run. pictures: which of those that tools make are shown.
    """

    loop: LoopSettings
    branches: int
    tools: Mapping[str, Tool]
    brief: bool
    image_folder: Path
    turn_seconds: float = 600.0
    seconds: float | None = None
    patience: float | None = None
    system: str = ""
    pictures: PictureLimits = NO_PICTURES

    def system_text(self, task: Task) -> str:
        """The first turn of a task's conversations."""
        return system_text(task.tools, self.tools, brief=self.brief, template=self.system)


class Journal(Protocol):
    """What is told of a collection while it goes on."""

    def begun(self, group: RolloutGroup, planned: int) -> None:
        """A group is about to be played; it has none of its `planned` rollouts yet."""

    def finished(self, rollout: Rollout) -> None:
        """An episode has ended, dropped ones included; its books are checked."""


@dataclass
class Counts:
    """What a collection was made of. seconds: by part. actions: that branches asked for; runs: that were really run,
    because branches which do the same share an episode. refused: states that could not be started, with why."""

    episodes: int = 0
    dropped: int = 0
    actions: int = 0
    runs: int = 0
    retried: int = 0
    sampled_tokens: int = 0
    refused: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
