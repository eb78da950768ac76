"""What the steps of sampled episodes were worth, and how much better than their siblings': R and A of rollouts.

    "step"     R_ks = lambda_exec * 1{step s succeeded} - eta * C_ks + lambda_val * V_ks    for the tokens of step s
    "episode"  R_k  = lambda_exec * 1{the task was solved} - eta * C_k + lambda_val * V_k   for all tokens

C counts sampled reflection tokens of the step, or of the whole episode. V is that of `records.candidates`: an action's
success stands for its answer and its plan, and grounding counts where a success had reflected on quoted evidence.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from regrpo_jax.agent.rollout import Rollout, RolloutGroup
from regrpo_jax.core.rewards import trajectory_reward, verifier_value
from regrpo_jax.core.step_advantages import step_advantages, zero_variance_steps


@dataclasses.dataclass(frozen=True)
class CreditSettings:
    """How rollouts are judged; see `core.rewards` and `core.advantages` for the equations.

    Attributes:
      success: whose success counts for a token, its step's or the episode's.
    """

    success: Literal["step", "episode"]
    lambda_exec: float = 1.0
    eta: float = 0.1
    lambda_val: float = 0.0
    baseline: str = "mean"
    normalize: bool = False
    clip_range: float | None = None
    epsilon: float = 1e-8


def credit_settings(online: ConfigDict) -> CreditSettings:
    """How `config.online` judges rollouts; without reflections there is no cost."""
    return CreditSettings(
        success=online.success,
        lambda_exec=online.lambda_exec,
        eta=online.eta,
        lambda_val=online.lambda_val,
        baseline=online.baseline,
        normalize=online.normalize_advantages,
        epsilon=online.advantage_epsilon,
        clip_range=online.advantage_clip,
    )


class StepCredit(NamedTuple):
    """Judged rollouts; an episode under one reward has one step.

    Attributes:
      rewards: float32 R.  # [group, branch, step]
      reached: bool, which rollouts are compared at which step; never a dropped one.  # [group, branch, step]
      advantages: float32 A.  # [group, branch, step]
      learnable: bool, whether the rewards of a step differ, so that there is something to prefer.  # [group, step]
    """

    rewards: np.ndarray
    reached: np.ndarray
    advantages: np.ndarray
    learnable: np.ndarray


def step_credit(groups: Sequence[RolloutGroup], settings: CreditSettings, *, branches: int) -> StepCredit:
    """Judges groups; dropped rollouts are as if they had not been.

    Args:
      branches: width of the branch axis, at least the rollouts of the largest group.
    """
    judged = [[_judged(rollout, settings.success) for rollout in group.rollouts] for group in groups]
    longest = max((len(outcomes) for group in judged for outcomes in group), default=1)
    # Few widths, because each is a program of its own.
    steps = 1 if settings.success == "episode" else 4 * -(-max(longest, 1) // 4)
    values = np.zeros((len(groups), branches, steps, 3), np.float32)
    reached = np.zeros((len(groups), branches, steps), bool)
    for row, group in enumerate(judged):
        for column, outcomes in enumerate(group):
            reached[row, column, : len(outcomes)] = True
            values[row, column, : len(outcomes)] = np.reshape(outcomes, (-1, 3))
    rewards, advantages, learnable = (np.asarray(array) for array in _credit(values, reached, settings))
    return StepCredit(rewards, reached, advantages, learnable)


def is_learnable(group: RolloutGroup, settings: CreditSettings) -> bool:
    """Whether an update could learn anything from a group; one that could not is worth playing again."""
    return bool(step_credit([group], settings, branches=max(len(group.rollouts), 2)).learnable.any())


def token_steps(rollout: Rollout, settings: CreditSettings) -> np.ndarray:
    """int32, the step of `StepCredit` that judges a token, -1 at tokens that are not trained.  # [token]

    Raises:
      ValueError: a trained token belongs to a step that the rollout knows nothing of.
    """
    trained = rollout.trained  # [token]
    if np.any(rollout.steps[trained] >= len(rollout.step_success)) or np.any(rollout.steps[trained] < 0):
        raise ValueError(
            f"the rollout {rollout.group}/{rollout.branch} of task {rollout.task_id} knows of "
            f"{len(rollout.step_success)} step(s), but has a trained token of step {rollout.steps[trained].max()}"
        )
    steps = np.zeros_like(rollout.steps) if settings.success == "episode" else rollout.steps
    return np.where(trained, steps, -1).astype(np.int32)


def _judged(rollout: Rollout, success: str) -> list[tuple[float, float, float]]:
    """(success, reflection tokens, grounded) of each step that a rollout began; nothing for a dropped one."""
    if rollout.dropped:
        return []
    if success == "episode":
        grounded = any(turn.grounded for turn in rollout.turns)
        return [(float(rollout.success), float(rollout.reflection_tokens()), float(grounded))]
    return [
        (
            float(succeeded),
            float(rollout.reflection_tokens(step)),
            float(any(turn.grounded for turn in rollout.turns if turn.step == step)),
        )
        for step, succeeded in enumerate(rollout.step_success)
    ]


@functools.partial(jax.jit, static_argnames="settings")
def _credit(
    values: np.ndarray, reached: np.ndarray, settings: CreditSettings
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """R and A, [group, branch, step], and which steps have something to prefer, [group, step]."""
    success, reflection_tokens, grounded = (values[..., index] for index in range(3))  # each [group, branch, step]
    rewards = trajectory_reward(
        success,
        reflection_tokens,
        verifier_value(success, success * grounded, success),
        lambda_exec=settings.lambda_exec,
        eta=settings.eta,
        lambda_val=settings.lambda_val,
    )  # [group, branch, step]
    advantages = step_advantages(
        rewards,
        reached,
        baseline=settings.baseline,
        normalize=settings.normalize,
        clip_range=settings.clip_range,
        epsilon=settings.epsilon,
    )  # [group, branch, step]
    return rewards, advantages, ~zero_variance_steps(rewards, reached)
