"""What a perfect agent does in a task, known from the task's truth: the natural first action and its repair.

The oracle plays it, the data engine writes demonstrations from it, and tests run it for real. A task is a row of
*attempts*: each is one thing to get done, with the action a sensible agent takes first and, where that meets a
surprise, what its reflection rests on. Plain data, so that it travels in a task's metadata as JSON.

Source: local trajectories `a0 -> o0 -> z -> a1 -> o1` of ReGRPO (arXiv 2606.31392).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from regrpo_jax.environments.task import OracleStep, Task
from regrpo_jax.records.picture_words import picture_words
from regrpo_jax.records.types import ErrorType, Reflection

VISUAL = "visual"  # in a task's metadata: its failure is seen, not told


@dataclass(frozen=True)
class Repair:
    """The reflection on a failed action and the action that follows it.

    evidence: words that stand in the failed observation, character by character; where that is a picture, what
    `told_with_pictures` says of it. facts: what is read off the
    evidence on the way to the fix, hop by hop (or off the picture, where that decides). fix: the next move in a few
    words. code: the action.
    """

    error_type: ErrorType
    evidence: str
    facts: tuple[str, ...]
    fix: str
    code: str

    def reflection(self, long: bool = False) -> Reflection:
        """Short: the fix alone. Long: the facts, then the fix."""
        plan = ", ".join((*self.facts, self.fix)) if long else self.fix
        return Reflection(self.error_type, self.evidence, plan)


@dataclass(frozen=True)
class Attempt:
    """One thing to get done.

    code: the natural first action. repair: what mends it where it fails, else None. hasty: a plausible wrong repair
    of the same failure, for demonstrations that are not perfect; None where there is none. direct: an action that
    would have worked at once for who looked closely; "" where nothing tells before the failure.
    """

    thought: str
    code: str
    repair: Repair | None = None
    hasty: Repair | None = None
    direct: str = ""


@dataclass(frozen=True)
class Plan:
    """All attempts of a task in order, and the answer that ends it."""

    attempts: tuple[Attempt, ...]
    answer: str

    @property
    def failures(self) -> int:
        """How many of the first actions meet a surprise."""
        return sum(attempt.repair is not None for attempt in self.attempts)


def call(tool: str, *arguments: str | int) -> str:
    """A tool call as Python source; texts in double quotes."""
    return f"{tool}({', '.join(json.dumps(argument, ensure_ascii=False) for argument in arguments)})"


def final_step(answer: str) -> OracleStep:
    """The step that ends a task."""
    return OracleStep("that is the answer.", call("final_answer", answer))


def oracle_steps(plan: Plan, *, long: bool = False) -> tuple[OracleStep, ...]:
    """The steps of a perfect agent: each first action, its repair where it fails, the answer.

    long: reflections write the facts down that lead from the evidence to the fix.
    """
    steps = []
    for attempt in plan.attempts:
        repair = attempt.repair
        steps.append(OracleStep(attempt.thought, attempt.code, fails=repair is not None))
        if repair is not None:
            steps.append(OracleStep("try again.", repair.code, reflection=repair.reflection(long)))
    return (*steps, final_step(plan.answer))


def is_visual(task: Task) -> bool:
    """Whether the failure of a task is seen, not told: the failed step is OK, and what it wrote is a picture."""
    return bool(task.metadata.get(VISUAL, False))


def told_with_pictures(observation: str, pictures: Mapping[str, bytes]) -> str:
    """The text of an observation, then a line such as `zoom_topleft.png: only grey` for each of its pictures.

    Evidence of a visual failure stands there. pictures: contents by name.
    """
    return "\n".join((observation, *(f"{name}: {picture_words(content)}" for name, content in pictures.items())))


def evidence_span(repair: Repair, observation: str) -> tuple[int, int]:
    """Where the evidence stands in the observation: first character and the one after the last.

    Args:
      observation: its text; with its pictures, as `told_with_pictures` has them, where the failure is visual.

    ValueError when it does not, which means that the task and its tools disagree.
    """
    start = observation.find(repair.evidence)
    if start < 0:
        raise ValueError(f"the evidence {repair.evidence!r} is not in the observation {observation[:500]!r}")
    return start, start + len(repair.evidence)


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Plain data for a task's metadata."""
    return json.loads(json.dumps(asdict(plan)))  # lists for tuples, as JSON has them


def _repair(data: Mapping[str, Any] | None) -> Repair | None:
    if data is None:
        return None
    facts = tuple(data["facts"])
    return Repair(ErrorType(data["error_type"]), data["evidence"], facts, data["fix"], data["code"])


def plan_from_json(data: Mapping[str, Any]) -> Plan:
    """What `plan_to_json` wrote."""
    return Plan(
        tuple(
            Attempt(one["thought"], one["code"], _repair(one["repair"]), _repair(one["hasty"]), one.get("direct", ""))
            for one in data["attempts"]
        ),
        data["answer"],
    )
