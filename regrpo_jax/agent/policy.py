"""What plays: a policy that writes turns for many conversations at once, each in its place of a group.

Two are here: the sampler in this process (`regrpo_jax.rollouts.sampler_policy`), and any OpenAI-compatible engine
(`remote_policy`). Tests have one that says what it is told to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from regrpo_jax.records.types import ImageReference, Turn

# What the gate puts in the policy's mouth: it decides whether a block opens, the policy writes the rest.
REFLECTION_OPENING = "Reflection:\n- ErrorType:"
ACTION_OPENING = "Thought:"
NO_OPENING = ""

Branch = tuple[int, int]  # index of the group in the session, number of the branch


class PolicyError(Exception):
    """A conversation that the policy cannot begin with; names why. Not the policy's fault."""


@dataclass(frozen=True)
class EpisodePrompt:
    """The conversation that a group starts from. draw_id: what tells its random draws from those of other groups."""

    turns: tuple[Turn, ...]
    images: tuple[ImageReference, ...]
    draw_id: int


@dataclass(frozen=True, eq=False)
class Prefix:
    """A prompt as tokens, header of the first turn included; see `rollout.RolloutGroup` for the fields."""

    tokens: np.ndarray
    positions: np.ndarray
    images: Any


@dataclass(frozen=True)
class WriteRequest:
    """A turn to be written. opening: the words it must start with. budget: most tokens of the policy's own."""

    branch: Branch
    opening: str
    budget: int


@dataclass(frozen=True, eq=False)
class SampledTurn:
    """A turn as it was written.

    opening: int32 tokens of the opening.  # [opening]
    tokens: int32 tokens that the policy sampled, the end of the turn included.  # [token]
    logprobs: float32, of the sampled ones.  # [token]
    text: opening and sampled text, without the end of the turn.
    starts: int32, where in the text each sampled token begins; the end of the turn at its end.  # [token]
    finished: the turn has an end. error: what failed when the backend could not write it ("" if nothing did).
    no_room: nothing failed, but no turn fits into the episode any more; error says whose limit it was.
    scored: tokens and log-probs are really those of the sampling; an engine may not tell them.
    """

    opening: np.ndarray
    tokens: np.ndarray
    logprobs: np.ndarray
    text: str
    starts: np.ndarray
    finished: bool
    error: str = ""
    scored: bool = True
    no_room: bool = False


@dataclass(frozen=True)
class Told:
    """A user turn: its text, and the pictures that stand in the place of their placeholders there."""

    text: str
    images: tuple[ImageReference, ...] = ()


@dataclass(frozen=True, eq=False)
class Heard:
    """What stands between two turns: tokens after the end of the turn, up to the header of the next one.

    tokens: int32; an image is one run of image tokens.  # [token]
    spoken: bool, those of the observation itself, images included; the others are the template's.  # [token]
    """

    tokens: np.ndarray
    spoken: np.ndarray


class Session(Protocol):
    """Conversations that go on. Branches that are not asked for stay as they are."""

    @property
    def prefixes(self) -> Sequence[Prefix]:
        """Of each group."""

    def write(self, requests: Sequence[WriteRequest]) -> list[SampledTurn]:
        """One turn of each branch, in the order of the requests."""

    def observe(self, observations: Sequence[tuple[Branch, Told]]) -> list[Heard | None]:
        """Put user turns after the branches' last ones; None where it cannot be said or does not fit."""

    def finish(self, branches: Sequence[Branch]) -> None:
        """These go on no more."""


class Policy(Protocol):
    """A backend. version: updates that its weights have seen."""

    @property
    def version(self) -> int: ...

    def start(self, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> Session:
        """A session with `branches` branches of each prompt. PolicyError."""
