"""What is kept of an episode that a policy played: its tokens as they were sampled, and what became of each turn.

Tokens in, tokens out: what the policy sampled is never tokenised again, so that a trainer sees the tokens whose
log-probs it has. A rollout's tokens follow its group's prefix; the prefix is stored once, in the group.

    group.prefix | opening, sampled .. end of turn | template, observation, template | opening, sampled .. | ..
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regrpo_jax.agent.gate import GateDecision
from regrpo_jax.records.types import ImageReference, Status
from regrpo_jax.sandbox.results import ToolRun


class Label(enum.IntEnum):
    """What a token is. From REFLECTION on it was sampled by the policy, and only those are ever trained."""

    TEMPLATE = 0  # of the chat template, around an observation
    OBSERVATION = 1
    OPENING = 2  # words that were put into the policy's mouth
    REFLECTION = 3
    THOUGHT = 4
    ACTION = 5  # the code, its fence and the end of the turn


class Opener(enum.StrEnum):
    """Who opened the reflection block of a turn."""

    NOBODY = "nobody"  # the turn has none
    GATE = "gate"
    POLICY = "policy"  # of its own will


@dataclass(frozen=True)
class RolloutTurn:
    """One turn of the policy and what came of it.

    start, sampled_from, end: its tokens are [start, end) of the rollout, those from `sampled_from` on are its own.
    text: the turn as written, opening included. step: which step of the task (local trajectory) it belongs to.
    status: of its action; None when that was never run (held back, or the turn has no end). observation: the text
    that came back; images: the pictures that were shown with it, as files; pictured: whether any was made. right:
    whether the action did what its step asks for; None when nobody knows. reflection: who opened its block.
    error_type: the one it names ("None" and unknown words included). malformed: its block lacks a field or is out of
    order. needless: it reflects although nothing had gone wrong. grounded: its evidence quotes the observation that it
    reflects on. held_back: the action was withdrawn before it ran. gate: the decision taken on the action; None when
    there was nothing to decide. confidence: u_i. tool_calls: final_answer left out. calls: the first of them, in words,
    with it. problems: what is wrong with its format.
    """

    start: int
    sampled_from: int
    end: int
    text: str
    step: int
    status: Status | None = None
    observation: str = ""
    images: tuple[ImageReference, ...] = ()
    pictured: bool = False
    right: bool | None = None
    reflection: Opener = Opener.NOBODY
    reflection_tokens: int = 0
    error_type: str = ""
    malformed: bool = False
    needless: bool = False
    grounded: bool = False
    held_back: bool = False
    gate: GateDecision | None = None
    confidence: float = 0.0
    tool_calls: int = 0
    calls: tuple[ToolRun, ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def went_right(self) -> bool:
        """Whether its action ran and did what its step asks for, as far as anybody knows."""
        return self.status == Status.OK and self.right is not False and not self.held_back

    @property
    def fell(self) -> bool:
        """Whether its action failed: by its status, or by a picture that is not the right one."""
        return self.status in FAILURES or (self.status == Status.OK and self.right is False and self.pictured)

    def to_json(self) -> dict[str, Any]:
        """Plain data; -inf of the gate's threshold is None."""
        told = dict(vars(self)) | {"status": None if self.status is None else str(self.status)}
        told |= {"reflection": str(self.reflection), "problems": list(self.problems), "images": _pairs(self.images)}
        told["calls"] = [vars(call) | {"status": str(call.status)} for call in self.calls]
        if self.gate is not None:
            threshold = self.gate.threshold if np.isfinite(self.gate.threshold) else None
            told["gate"] = dict(vars(self.gate)) | {"threshold": threshold}
        return told

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> RolloutTurn:
        """What `to_json` wrote."""
        told = dict(data)
        gate = told["gate"]
        if gate is not None:
            threshold = -np.inf if gate["threshold"] is None else gate["threshold"]
            told["gate"] = GateDecision(gate["open"], gate["reason"], gate["confidence"], threshold)
        told["status"] = None if told["status"] is None else Status(told["status"])
        told |= {"reflection": Opener(told["reflection"]), "problems": tuple(told["problems"])}
        told["images"] = _references(told.get("images", ()))
        told["calls"] = tuple(ToolRun(**call | {"status": Status(call["status"])}) for call in told.get("calls", ()))
        return cls(**told)


@dataclass(frozen=True, eq=False)
class Rollout:
    """One episode of a group.

    tokens: int32, everything after the group's prefix.  # [token]
    labels: int8 `Label`.  # [token]
    logprobs: float32 log-probs of the sampled tokens under the policy that sampled them, 0 elsewhere.  # [token]
    steps: int16, which step of the task a token belongs to; the first that the policy takes is 0.  # [token]
    turns: of the policy, in order. step_success: of each step that was begun. success: the task was answered, and
    rightly. answer: in words, "" without one. outcome: how it ended, as the environment or the loop says. dropped:
    trouble of ours; it is no evidence about the policy and never trains. truncated: it ended because a budget of tokens
    was used up. policy_version: updates that the policy had seen. seed: of the sampling. group, branch: its place.
    error: what failed when dropped, or whose limit ended it.
    scored: the log-probs are known; an engine may not tell them, and then the episode counts and never trains.
    image_files: the pictures among its tokens, in order, as files named by their SHA-256; one that came with the last
    observation was never told.
    """

    task_id: str
    group: int
    branch: int
    tokens: np.ndarray
    labels: np.ndarray
    logprobs: np.ndarray
    steps: np.ndarray
    turns: tuple[RolloutTurn, ...]
    step_success: tuple[bool, ...]
    success: bool
    outcome: str
    dropped: bool = False
    truncated: bool = False
    policy_version: int = 0
    seed: int = 0
    error: str = ""
    scored: bool = True
    image_files: tuple[ImageReference, ...] = ()
    answer: str = ""

    @property
    def shown_paths(self) -> tuple[str, ...]:
        """The files of all pictures that its tools made, told or not, each once."""
        return tuple(dict.fromkeys(image.path for turn in self.turns for image in turn.images))

    @property
    def trained(self) -> np.ndarray:
        """bool, which tokens a trainer may train: sampled and scored ones, of an episode that counts.  # [token]"""
        return (self.labels >= Label.REFLECTION) & (self.scored and not self.dropped)

    @property
    def statuses(self) -> tuple[Status, ...]:
        """Of every action that was run."""
        return tuple(turn.status for turn in self.turns if turn.status is not None)

    @property
    def failed(self) -> bool:
        """Whether an action of the policy failed."""
        return any(turn.fell for turn in self.turns)

    @property
    def first_attempt_success(self) -> bool:
        """Success without any failed action."""
        return self.success and not self.failed

    @property
    def reflections(self) -> tuple[RolloutTurn, ...]:
        """The turns with a reflection block."""
        return tuple(turn for turn in self.turns if turn.reflection != Opener.NOBODY)

    @property
    def tool_calls(self) -> int:
        """How many tools were called, final_answer left out."""
        return sum(turn.tool_calls for turn in self.turns)

    def reflection_tokens(self) -> int:
        """Sampled tokens of reflection blocks."""
        return int(np.count_nonzero(self.labels == Label.REFLECTION))

    def attempts(self) -> list[int | None]:
        """Which attempt at its step each turn is: 0 the first, then repairs; None of an action that was withdrawn."""
        made: dict[int, int] = {}
        numbers: list[int | None] = []
        for turn in self.turns:
            numbers.append(None if turn.held_back else made.get(turn.step, 0))
            made[turn.step] = made.get(turn.step, 0) + (not turn.held_back)
        return numbers

    def to_json(self) -> dict[str, Any]:
        """Plain data, arrays as lists; `from_json` gives the same bits back."""
        told = dict(vars(self)) | {name: getattr(self, name).tolist() for name in _ARRAYS}
        told |= {"turns": [turn.to_json() for turn in self.turns], "step_success": list(self.step_success)}
        return told | {"image_files": _pairs(self.image_files)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Rollout:
        """What `to_json` wrote."""
        arrays = {name: np.array(data[name], kind) for name, kind in _ARRAYS.items()}
        turns = tuple(map(RolloutTurn.from_json, data["turns"]))
        lists = {"turns": turns, "step_success": tuple(data["step_success"])}
        images = {"image_files": _references(data.get("image_files", ()))}
        return cls(**(dict(data) | arrays | lists | images))


@dataclass(frozen=True, eq=False)
class RolloutGroup:
    """One state of a task, and the episodes that the policy played from it.

    prefix: int32, everything before the first turn of the policy, its header included; the last token leads the
    branches, as in `data.groups.Group`.  # [prefix]
    positions: int32 rotary positions.  # [prefix, 3]
    images: packed images of the prefix (`data.images.PackedImages`), None where the policy's backend keeps no pixels;
    `data.online_batches.with_images` adds those of the rollouts. image_files: of the prefix, as files.
    rollouts: all that were played, dropped ones included. start: where the state comes from ("start", "middle",
    "near_miss"). forced: a first failure was put there on purpose; reported apart.
    """

    group: int
    task_id: str
    family: str
    error_type: str
    prefix: np.ndarray
    positions: np.ndarray
    images: Any
    image_files: tuple[ImageReference, ...]
    rollouts: tuple[Rollout, ...]
    start: str = "start"
    forced: bool = False

    @property
    def counted(self) -> tuple[Rollout, ...]:
        """The rollouts that are evidence about the policy."""
        return tuple(rollout for rollout in self.rollouts if not rollout.dropped)

    def to_json(self) -> dict[str, Any]:
        """Plain data without `images`, which are made again from `image_files`."""
        told = dict(vars(self)) | {"prefix": self.prefix.tolist(), "positions": self.positions.tolist()}
        told["image_files"] = _pairs(self.image_files)
        told["rollouts"] = [rollout.to_json() for rollout in self.rollouts]
        del told["images"]
        return told

    @classmethod
    def from_json(cls, data: Mapping[str, Any], images: Any = None) -> RolloutGroup:
        """What `to_json` wrote; images: packed images of the prefix."""
        made = {
            "prefix": np.array(data["prefix"], np.int32),
            "positions": np.array(data["positions"], np.int32).reshape(-1, 3),
            "image_files": _references(data["image_files"]),
            "rollouts": tuple(map(Rollout.from_json, data["rollouts"])),
            "images": images,
        }
        return cls(**(dict(data) | made))


FAILURES = frozenset({Status.EMPTY, Status.TOOL_ERROR, Status.TIMEOUT, Status.INVALID_ACTION})
_ARRAYS = {"tokens": np.int32, "labels": np.int8, "logprobs": np.float32, "steps": np.int16}


def _pairs(images: Sequence[ImageReference]) -> list[list[str]]:
    return [[image.placeholder, image.path] for image in images]


def _references(pairs: Sequence[Sequence[str]]) -> tuple[ImageReference, ...]:
    return tuple(ImageReference(*pair) for pair in pairs)


def check_rollout(rollout: Rollout) -> None:
    """Refuse a rollout whose books do not agree: a trained token must be one that the policy sampled.

    Raises:
      ValueError: names the task and what does not agree; a bug of ours, never the policy's.
    """
    problem = _array_problem(rollout) or _turn_problem(rollout)
    if problem:
        raise ValueError(f"the rollout {rollout.group}/{rollout.branch} of task {rollout.task_id}: {problem}")


def sampled_mask(turns: Sequence[RolloutTurn], length: int) -> np.ndarray:
    """bool, the tokens that the policy sampled, by the books of its turns.  # [token]"""
    sampled = np.zeros(length, bool)
    for turn in turns:
        sampled[turn.sampled_from : turn.end] = True
    return sampled


def _array_problem(rollout: Rollout) -> str:
    length = len(rollout.tokens)
    for name, kind in _ARRAYS.items():
        array = getattr(rollout, name)
        if array.shape != (length,) or array.dtype != kind:
            return f"{name} is {array.dtype} {array.shape}, wanted {np.dtype(kind)} ({length},)"
    if length and not 0 <= rollout.labels.min() <= rollout.labels.max() <= max(Label):
        return "a label is none of Label"
    if np.any(np.diff(rollout.steps) < 0):
        return "a later token belongs to an earlier step"
    return ""


def _turn_problem(rollout: Rollout) -> str:
    end = 0
    for number, turn in enumerate(rollout.turns):
        if not end <= turn.start <= turn.sampled_from <= turn.end <= len(rollout.tokens):
            return f"turn {number} is [{turn.start}, {turn.sampled_from}, {turn.end}) after {end}"
        if np.any(rollout.steps[turn.start : turn.end] != turn.step):
            return f"the tokens of turn {number} are not all of step {turn.step}"
        end = turn.end
    sampled = sampled_mask(rollout.turns, len(rollout.tokens))
    if not np.array_equal(sampled, rollout.labels >= Label.REFLECTION):
        return "the labels train a token that was not sampled, or leave a sampled one out"
    if np.any(rollout.logprobs[~sampled]) or not np.all(np.isfinite(rollout.logprobs)):
        return "a log-prob is not finite, or stands at a token that was not sampled"
    if np.any(rollout.logprobs > 1e-4):
        return "a log-prob is above 0"
    return ""
