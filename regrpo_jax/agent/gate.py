"""The inference gate: when does the agent open a reflection block, with no verifier at hand?

    g_i = 1{ToolError or EmptyObs or (i > 1 and u_i < kappa_i)}
    u_i = exp(mean log pi(action tokens)),   kappa_i = mean(u_1 .. u_{i-1})

The failure clauses read the typed status of the tool runtime, never words in the observation: a page that
talks about exceptions is not one. Everything here is a pure function; the caller keeps the history of
confidences.

Source: ReGRPO (arXiv 2606.31392), the inference section.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from regrpo_jax.records.types import Status

_FAILED = frozenset({Status.TOOL_ERROR, Status.TIMEOUT, Status.INVALID_ACTION, Status.EMPTY})


@dataclass(frozen=True)
class GateDecision:
    """Whether the block opens and why; `confidence` is `u_i`, `threshold` is `kappa_i`.

    `reason` is the status that opened it, "low_confidence", "none" (nothing asks for a block), "block_limit"
    (this step had its block) or "infra_error" (the policy is not to blame, so it has nothing to reflect on).
    """

    open: bool
    reason: str
    confidence: float
    threshold: float


def confidence(action_logprobs: Sequence[float]) -> float:
    """`u_i`: exp of the mean log-probability (nats) of the action tokens; 0.0 when there are none.

    The caller passes the tokens of the code block alone, not those of the thought or of a reflection.
    """
    if len(action_logprobs) == 0:
        return 0.0
    return math.exp(math.fsum(action_logprobs) / len(action_logprobs))


def adaptive_threshold(previous: Sequence[float]) -> float:
    """`kappa_i`: the mean confidence of the earlier steps; -inf when there are none."""
    if len(previous) == 0:
        return -math.inf
    return math.fsum(previous) / len(previous)


def reflection_gate(
    status: Status, step_number: int, confidence: float, previous: Sequence[float], blocks_opened: int
) -> GateDecision:
    """Decide `g_i` for step `step_number` (counted from 1) of which the environment reported `status`.

    `confidence` is `u_i` of this step's action, `previous` are `u_1 .. u_{i-1}`, and `blocks_opened` counts
    the reflection blocks this step has had: more than one never opens. An infra error never opens, however
    low the confidence.
    """
    threshold = adaptive_threshold(previous)
    if status == Status.INFRA_ERROR:
        return GateDecision(False, "infra_error", confidence, threshold)
    wanted = status in _FAILED
    unsure = step_number > 1 and confidence < threshold
    if not (wanted or unsure):
        return GateDecision(False, "none", confidence, threshold)
    if blocks_opened >= 1:
        return GateDecision(False, "block_limit", confidence, threshold)
    return GateDecision(True, status.value if wanted else "low_confidence", confidence, threshold)
