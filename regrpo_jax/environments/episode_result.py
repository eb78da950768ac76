"""How far an episode may go, how it may end, and what is kept of one that is over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import Step
from regrpo_jax.sandbox.results import ToolRun


class Outcome(StrEnum):
    """Where an episode stands, or how it ended."""

    RUNNING = "running"
    ANSWERED = "answered"
    OUT_OF_STEPS = "out_of_steps"
    OUT_OF_TIME = "out_of_time"
    INFRA_ERROR = "infra_error"  # ours to answer for: trainers drop the episode


@dataclass(frozen=True)
class EpisodeLimits:
    """max_steps: turns after each message of the user. seconds: time that actions may take together (the policy's own
    is not counted; looked at before each action, which has the sandbox's own limit). observation_characters: kept of
    a text, head and tail. image_bytes, step_image_bytes, episode_image_bytes: of one image that is kept, of those of
    one step, of all."""

    max_steps: int = 8
    seconds: float = 120.0
    observation_characters: int = 8000
    image_bytes: int = 8 * 2**20
    step_image_bytes: int = 16 * 2**20
    episode_image_bytes: int = 64 * 2**20


@dataclass(frozen=True)
class EpisodeResult:
    """An episode that is over. images: contents by (step, name). error: what failed in an infra error."""

    task: Task
    outcome: Outcome
    answer: Any
    success: bool
    steps: tuple[Step, ...]
    images: Mapping[tuple[int, str], bytes] = field(default_factory=dict)
    tool_runs: tuple[tuple[ToolRun, ...], ...] = ()
    error: str = ""
    seconds: float = field(default=0.0, compare=False)

    @property
    def dropped(self) -> bool:
        """Whether it is no evidence about the policy."""
        return self.outcome == Outcome.INFRA_ERROR
