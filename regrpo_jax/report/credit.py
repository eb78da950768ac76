"""What the steps of rollouts were worth, in numpy: the report is written where no jax is.

The equations are those of `core.rewards` and `core.step_advantages`, put together as `data.rollout_credit` does; a test
holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from regrpo_jax.agent.rollout import Rollout, RolloutGroup
from regrpo_jax.report.files import LeftOut

_TOKENS_PER_UNIT = 100.0  # reflection tokens that cost eta
_ACTION, _GROUNDING = 0.5, 0.5  # weights of V: of an answer and a plan that a right action stands for, of evidence


class Credit(NamedTuple):
    """Of one rollout: R and A of each step that it began; an episode under one reward has one step.  # [step]"""

    rewards: np.ndarray
    advantages: np.ndarray


class Prices(NamedTuple):
    """The fields of `config.online` that decide what is good, under their names there."""

    success: str
    lambda_exec: float
    eta: float
    lambda_val: float
    baseline: str
    normalize_advantages: bool
    advantage_epsilon: float
    advantage_clip: float | None

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Prices:
        """Of the whole configuration as `config.json` has it. LeftOut where it has no online stage."""
        try:
            return cls(**{name: config["online"][name] for name in cls._fields})
        except (KeyError, TypeError) as error:
            raise LeftOut(f"config.json does not say how rollouts were judged ({error} is missing)") from error


def group_credit(group: RolloutGroup, prices: Prices) -> list[Credit]:
    """Of each rollout, in their order; a dropped one has no steps."""
    rewards = [_rewards(rollout, prices) for rollout in group.rollouts]
    steps = max(map(len, rewards), default=0)
    table = np.full((len(rewards), steps), np.nan)  # [branch, step]
    for row, values in zip(table, rewards, strict=True):
        row[: len(values)] = values
    advantages = step_advantages(table, prices)  # [branch, step]
    return [Credit(values, row[: len(values)]) for values, row in zip(rewards, advantages, strict=True)]


def step_advantages(rewards: np.ndarray, prices: Prices) -> np.ndarray:
    """A of each step against the same step of the siblings; 0 where a step was not reached, or by one alone.

    Args:
      rewards: R, nan where a rollout did not get to the step.  # [branch, step]
    """
    reached = ~np.isnan(rewards)  # [branch, step]
    count = np.maximum(reached.sum(axis=0), 1)  # [step]
    mean = np.where(reached, rewards, 0.0).sum(axis=0) / count  # [step]
    deviations = np.where(reached, rewards - mean, 0.0)  # [branch, step]
    advantages = deviations
    if prices.baseline == "leave_one_out":
        advantages = advantages * count / np.maximum(count - 1, 1)
    if prices.normalize_advantages:
        advantages = advantages / (np.sqrt((deviations**2).sum(axis=0) / count) + prices.advantage_epsilon)
    if prices.advantage_clip is not None:
        advantages = np.clip(advantages, -prices.advantage_clip, prices.advantage_clip)
    return advantages


def _rewards(rollout: Rollout, prices: Prices) -> np.ndarray:
    """R of each step.  # [step]"""
    if rollout.dropped:
        return np.zeros(0)
    if prices.success == "episode":
        grounded = any(turn.grounded for turn in rollout.turns)
        return np.array([_reward(rollout.success, rollout.reflection_tokens(), grounded, prices)])
    return np.array(
        [
            _reward(
                succeeded,
                rollout.reflection_tokens(step),
                any(turn.grounded for turn in rollout.turns if turn.step == step),
                prices,
            )
            for step, succeeded in enumerate(rollout.step_success)
        ]
    )


def _reward(success: bool, reflection_tokens: int, grounded: bool, prices: Prices) -> float:
    value = _ACTION * success + _GROUNDING * (success and grounded)
    cost = reflection_tokens / _TOKENS_PER_UNIT
    return prices.lambda_exec * success - prices.eta * cost + prices.lambda_val * value
