"""The execution block of a record of our own, between JSON and its typed form.

Its texts are hashed, so that a reader can tell that the actions and observations of the conversation are the very
ones that ran.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from regrpo_jax.records.types import Complexity, ExecutedStep, Execution, Status

VERSION = 1
EXECUTED, RECORDED, SYNTHETIC = "executed", "recorded", "synthetic"


def text_sha256(text: str) -> str:
    """SHA-256 of the text in UTF-8, as hex."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def execution_from_dict(raw: Mapping[str, Any]) -> Execution:
    """Read a block that keeps the rules of `execution_rules`."""
    steps = tuple(
        ExecutedStep(
            step["code_sha256"], Status(step["status"]), step["observation_sha256"], step.get("recorded", False)
        )
        for step in raw["steps"]
    )
    measured = raw["complexity"]
    complexity = Complexity(
        measured["candidates"], measured["steps_back"], measured["length"], float(measured["score"])
    )
    return Execution(
        version=raw["version"],
        kind=raw["kind"],
        source=raw["source"],
        proposer=raw["proposer"],
        annotator=raw["annotator"],
        task=raw["task"],
        task_sha256=raw["task_sha256"],
        loader=raw["loader"],
        tools=dict(raw["tools"]),
        seed=raw["seed"],
        steps=steps,
        failed_step=raw["failed_step"],
        repaired=raw["repaired"],
        complexity=complexity,
        seen=raw.get("seen", ""),
    )


def quotable(observation: str, execution: object) -> str:
    """What evidence may quote of a failed observation: its text, and what the pixels of its pictures say.

    Args:
      execution: the block of the record as it is written, whatever it is.
    """
    seen = execution.get("seen") if isinstance(execution, Mapping) else None
    return f"{observation}\n{seen}" if isinstance(seen, str) and seen else observation


def _step_to_dict(step: ExecutedStep) -> dict[str, str | bool]:
    told: dict[str, str | bool] = {
        "code_sha256": step.code_sha256,
        "status": step.status.value,
        "observation_sha256": step.observation_sha256,
    }
    return told | ({"recorded": True} if step.recorded else {})


def complexity_to_dict(complexity: Complexity) -> dict[str, Any]:
    """The four numbers by their names."""
    return {
        "candidates": complexity.candidates,
        "steps_back": complexity.steps_back,
        "length": complexity.length,
        "score": complexity.score,
    }


def execution_to_dict(execution: Execution) -> dict[str, Any]:
    """Write a block; `execution_from_dict` of the result gives it back."""
    return {
        "version": execution.version,
        "kind": execution.kind,
        "source": execution.source,
        "proposer": execution.proposer,
        "annotator": execution.annotator,
        "task": execution.task,
        "task_sha256": execution.task_sha256,
        "loader": execution.loader,
        "tools": dict(execution.tools),
        "seed": execution.seed,
        "steps": [_step_to_dict(step) for step in execution.steps],
        "failed_step": execution.failed_step,
        "repaired": execution.repaired,
        "complexity": complexity_to_dict(execution.complexity),
    } | ({"seen": execution.seen} if execution.seen else {})
