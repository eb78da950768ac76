"""The few types that the data engine hands from stage to stage: situation -> near miss -> failure -> record.

source     gives Situations: a step of a clean trajectory, in the workspace it is played in
perturb    gives NearMisses of a situation: other actions, plausible and (one hopes) wrong
execute    plays prefix, near miss, correction and the rest, and gives a Failure: what really came back
annotate   gives the Reflection on a failure
gates      refuse what would teach the wrong thing
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import ErrorType, ImageReference, Observation
from regrpo_jax.suites.toolrepair.plan import Repair


@dataclass(frozen=True)
class ArgumentShape:
    """An argument as its tool declares it; kind is smolagents' type ("string", "integer", "image", ...)."""

    name: str
    kind: str
    description: str = ""
    optional: bool = False


@dataclass(frozen=True)
class ToolShape:
    """What can be known of a tool without running it. version: SHA-256 of what it is made of, shortened."""

    name: str
    description: str
    arguments: tuple[ArgumentShape, ...]
    version: str = ""


def written_turn(thought: str, code: str) -> str:
    """An assistant's turn without a reflection."""
    return f"Thought: {thought}\n\nCode:\n```py\n{code}\n```"


@dataclass(frozen=True)
class CleanStep:
    """An action that is right: `thought` without its label, `code` without its fence."""

    thought: str
    code: str

    def turn(self) -> str:
        """The assistant's turn as it is written down."""
        return written_turn(self.thought, self.code)


@dataclass(frozen=True)
class NearMiss:
    """A plausible wrong action in the place of a clean step.

    proposer: the rule that made it, or "plan" (the suite's own surprise), "policy" (a policy did it), "teacher".
    hint: what its source knows of the repair, else None.
    """

    error_type: ErrorType
    proposer: str
    thought: str
    code: str
    hint: Repair | None = None

    def turn(self) -> str:
        """The assistant's turn as it is written down."""
        return written_turn(self.thought, self.code)


@dataclass(frozen=True)
class Situation:
    """A step of a clean trajectory that solves `task`, and everything that may be known about it before it is run.

    source: "oracle", "trajectory" or "policy"; source_id names the trajectory. system, instruction: the first two
    turns as they are written (the instruction with its image placeholders). steps: the whole trajectory, final_answer
    included; index: the step that a near miss replaces. observations: of the steps before `index`, where they are
    known. tools: of the task, by name, final_answer included. images: placeholder -> name among the task's files.
    own: near misses that come with the source. executable: its files and tools are here. absent: tools that are here
    in recordings alone. recorded: the task with the recordings of all tools, for where those of here come to something
    else; None without any.
    """

    source: str
    source_id: str
    task: Task
    system: str
    instruction: str
    steps: tuple[CleanStep, ...]
    index: int
    tools: Mapping[str, ToolShape]
    images: Mapping[str, str] = field(default_factory=dict)
    observations: tuple[str, ...] = ()
    own: tuple[NearMiss, ...] = ()
    executable: bool = True
    absent: frozenset[str] = frozenset()
    recorded: Task | None = None

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What it may be played as, the best first."""
        return (self.task,) if self.recorded is None else (self.task, self.recorded)

    @property
    def step(self) -> CleanStep:
        """The clean step that a near miss replaces."""
        return self.steps[self.index]


@dataclass(frozen=True)
class Failure:
    """A near miss that was played and failed, and the clean step that was played after it and repaired.

    observations: of all actions in the order they ran: the steps before, the near miss, the clean step, the rest.
    answered: whether the episode ended with the right answer. kind: "executed", "recorded" where recordings answered
    calls, those of the actions in `recorded`; or "synthetic" when the observations were made up. images: pictures that
    the actions made, as they stand in the observations, in order. seen: what the pixels of the failed observation's
    pictures say, "" without any.
    """

    situation: Situation
    near_miss: NearMiss
    observations: tuple[Observation, ...]
    answered: bool
    kind: str = "executed"
    images: tuple[ImageReference, ...] = ()
    seen: str = ""
    recorded: frozenset[int] = frozenset()

    @property
    def failed(self) -> Observation:
        """What the near miss returned."""
        return self.observations[self.situation.index]

    @property
    def repaired(self) -> Observation:
        """What the clean step returned after it."""
        return self.observations[self.situation.index + 1]
