"""The vocabulary of the host wing: what a step, a failure, a reflection and a recovery are.

Every other file speaks in these few frozen types, so that a record means the same thing in the data engine,
in the agent, in the batches and in the reports. Nothing here does work; parsing lives in the files named
after what they parse.

Source: ReGRPO (arXiv 2606.31392), section "Reflection-of-Thought": a local trajectory is `a1 -> o1` or
`a0 -> o0 -> z -> a1 -> o1` with `z = (ErrorType, Evidence, FixPlan)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Status(StrEnum):
    """What the tool runtime says happened to an action; the gate reads this and never the words."""

    OK = "ok"
    EMPTY = "empty"
    TOOL_ERROR = "tool_error"
    TIMEOUT = "timeout"
    INVALID_ACTION = "invalid_action"
    INFRA_ERROR = "infra_error"


class ErrorType(StrEnum):
    """The six kinds of failure a reflection may name (four of the paper, two more of the release)."""

    GROUNDING_DRIFT = "GroundingDrift"
    TOOL_MISMATCH = "ToolMismatch"
    ARG_INVALID = "ArgInvalid"
    INFO_INSUFFICIENT = "InfoInsufficient"
    NON_COMMIT = "NonCommit"
    CODE_ERROR = "CodeError"


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; `role` is "system", "user" or "assistant".

    trained: nobody said that this turn is only context.
    """

    role: str
    content: str
    trained: bool = True


@dataclass(frozen=True)
class Observation:
    """What came back from the environment after an action; `images` are file paths.

    elapsed: seconds, which two equal observations need not share. size: bytes of the text before it was cut.
    """

    status: Status
    text: str
    images: tuple[str, ...] = ()
    elapsed: float = field(default=0.0, compare=False)
    size: int = 0


@dataclass(frozen=True)
class Reflection:
    """The structured reflection `z`: the kind of failure, words of the observation, and the next move."""

    error_type: ErrorType
    evidence: str
    fix_plan: str


@dataclass(frozen=True)
class ToolCall:
    """One call found in an action's code; arguments are unparsed Python source, `line` counts from 1."""

    name: str
    arguments: tuple[str, ...]
    keywords: tuple[tuple[str, str], ...]
    line: int


@dataclass(frozen=True)
class Step:
    """One assistant turn and what came back; `text` is the turn as written, reflection block included."""

    index: int
    thought: str
    code: str
    tool_calls: tuple[ToolCall, ...]
    observation: Observation | None
    reflection: Reflection | None
    text: str


@dataclass(frozen=True)
class ImageReference:
    """An image of a record: its placeholder in the text ("" for a bare path) and the file it stands for.

    path: of a file, or a data URL that holds the picture.
    """

    placeholder: str
    path: str


@dataclass(frozen=True)
class Trajectory:
    """A whole episode: its conversation as written, and the same parsed into a task and steps."""

    id: str
    images: tuple[ImageReference, ...]
    answer: str
    conversation: tuple[Turn, ...]
    system: str
    task: str
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class Complexity:
    """How much a failure asks of the one who reflects on it.

    candidates: fixes that the evidence must tell apart, at least 1. steps_back: facts that are chained from the
    evidence to the fix. length: words of the reflection. score: the three in one number in [0, 1].
    """

    candidates: int
    steps_back: int
    length: int
    score: float


@dataclass(frozen=True)
class ExecutedStep:
    """An action that was really run: SHA-256 (hex) of its code and of its observation's text, and the typed status.

    recorded: whether a tool that it called answered with what was recorded elsewhere.
    """

    code_sha256: str
    status: Status
    observation_sha256: str
    recorded: bool = False


@dataclass(frozen=True)
class Execution:
    """Where a record of our own comes from, and what the sandbox said when its actions ran.

    kind: "executed"; "recorded" when tools answered some of its calls with what was recorded elsewhere; or "synthetic"
    when the observations were made up; then `steps` is empty and `repaired` false.
    source: "oracle", "trajectory" or "policy". proposer: who made the failed action. annotator: who wrote the
    reflection. loader: "package.module:function" that gives the tools. tools: name -> version of every tool the
    episode had. steps: every action in the order it ran. failed_step: which of them failed; the next one mends it.
    repaired: the correction's status is ok and the episode ended with the right answer. seen: what the pixels of the
    failed observation's pictures say (`picture_words`), a line a picture; "" without any.
    """

    version: int
    kind: str
    source: str
    proposer: str
    annotator: str
    task: str
    task_sha256: str
    loader: str
    tools: Mapping[str, str] = field(hash=False)
    seed: int
    steps: tuple[ExecutedStep, ...]
    failed_step: int
    repaired: bool
    complexity: Complexity
    seen: str = ""

    @property
    def failed_status(self) -> Status | None:
        """What the sandbox said of the failed action; None when it was never run."""
        return self.steps[self.failed_step].status if self.failed_step < len(self.steps) else None


@dataclass(frozen=True)
class RotRecord:
    """A Reflection-of-Thought record: one failed step, the reflection on it, and the action that mends it.

    `failed_turn` and `reflection_turn` are indices into `conversation`: the failed assistant turn `a0`, and
    the turn that starts with "Reflection:" and goes on with `a1`. Turn `failed_turn + 1` is the failed
    observation `o0`. execution: what is known of how the record was made; None for other people's records.
    """

    id: str
    images: tuple[ImageReference, ...]
    answer: str
    conversation: tuple[Turn, ...]
    source_id: str
    step_index: int
    error_type: ErrorType
    failed_action: str
    failed_observation: str
    reflection: Reflection
    corrected_action: str
    final_answer: str
    failed_turn: int
    reflection_turn: int
    execution: Execution | None = None

    @property
    def failed_status(self) -> Status | None:
        """The typed status of the failed action; None where only its text was recorded."""
        return None if self.execution is None else self.execution.failed_status

    @property
    def quotable(self) -> str:
        """What evidence may quote: the failed observation, and what the pixels of its pictures say."""
        seen = "" if self.execution is None else self.execution.seen
        return f"{self.failed_observation}\n{seen}" if seen else self.failed_observation


@dataclass(frozen=True)
class Rejection:
    """Why a record of a file was not used; `position` counts from 0, a reason is "rule_name: sentence"."""

    path: str
    position: int
    record_id: str
    reasons: tuple[str, ...]
