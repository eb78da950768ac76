"""What sampled episodes were worth, and how much better than their siblings: R and A of rollouts.

    "step"     R of the local trajectory at step s, for its tokens; whom inside it, says `core.attempt_credit`.
               Where no oracle says what a step should do, an action that ran without a failure is right if the
               episode was solved
    "episode"  R_k = lambda_exec * 1{the task was solved} - eta * C_k + lambda_val * V_k, for all tokens

V is that of `records.candidates`: an action's success stands for its answer and its plan, and grounding counts where a
success had reflected on quoted evidence.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from regrpo_jax.agent.rollout import Rollout, RolloutGroup
from regrpo_jax.core.attempt_credit import BY_ATTEMPT, attempt_rewards
from regrpo_jax.core.step_advantages import step_advantages, zero_variance_steps


@dataclasses.dataclass(frozen=True)
class CreditSettings:
    """How rollouts are judged; see `core.attempt_credit`, `core.rewards` and `core.advantages` for the equations.

    Attributes:
      success: whose success counts for a token, its step's or the episode's.
      first_attempt: of a step, "own", "apart", "condition" or "shared"; an episode under one reward is "shared".
    """

    success: Literal["step", "episode"]
    first_attempt: Literal["own", "apart", "condition", "shared"] = "own"
    lambda_exec: float = 1.0
    eta: float = 0.1
    lambda_val: float = 0.0
    baseline: str = "mean"
    normalize: bool = False
    clip_range: float | None = None
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """ValueError for one reward of a whole episode that is not shared."""
        if self.success == "episode" and self.first_attempt != "shared":
            raise ValueError("one reward for the whole episode is shared by all its attempts: first_attempt='shared'")


def credit_settings(online: ConfigDict) -> CreditSettings:
    """How `config.online` judges rollouts; without reflections there is no cost."""
    return CreditSettings(
        success="episode" if online.credit == "episode" else "step",
        first_attempt="shared" if online.credit == "episode" else online.credit,
        lambda_exec=online.lambda_exec,
        eta=online.eta,
        lambda_val=online.lambda_val,
        baseline=online.baseline,
        normalize=online.advantage_epsilon > 0,
        epsilon=online.advantage_epsilon,
        clip_range=online.advantage_clip,
    )


class Credit(NamedTuple):
    """Judged rollouts. A place is what is compared at once: (step, attempt), a step, or a whole episode.

    Attributes:
      rewards: float32 R.  # [group, branch, place]
      reached: bool, which rollouts are compared at which place, also where they have no tokens; never a dropped one.
        # [group, branch, place]
      advantages: float32 A.  # [group, branch, place]
      learnable: bool, whether the rewards of a place differ, so that there is something to prefer.  # [group, place]
      attempts: places of a step.
    """

    rewards: np.ndarray
    reached: np.ndarray
    advantages: np.ndarray
    learnable: np.ndarray
    attempts: int


class _Attempt(NamedTuple):
    """One attempt at a step."""

    right: bool
    reflection_tokens: int
    grounded: bool


def judge(groups: Sequence[RolloutGroup], settings: CreditSettings, *, branches: int) -> Credit:
    """Judges groups; dropped rollouts are as if they had not been.

    Args:
      branches: width of the branch axis, at least the rollouts of the largest group.
    """
    judged = [[_attempts(rollout, settings.success) for rollout in group.rollouts] for group in groups]
    steps = max((len(rollout) for group in judged for rollout in group), default=1)
    attempts = max((len(step) for group in judged for rollout in group for step in rollout), default=1)
    # Few widths, because each is a program of its own.
    shape = (1, 1) if settings.success == "episode" else (4 * -(-max(steps, 1) // 4), max(attempts, 2))
    values = np.zeros((len(groups), branches, *shape, len(_Attempt._fields)), np.float32)
    made = np.zeros(values.shape[:-1], bool)
    for row, group in enumerate(judged):
        for column, rollout in enumerate(group):
            for step, tried in enumerate(rollout):
                made[row, column, step, : len(tried)] = True
                values[row, column, step, : len(tried)] = np.reshape(tried, (len(tried), -1))
    rewards, reached, advantages, learnable = (np.asarray(array) for array in _credit(values, made, settings))
    attempts = shape[1] if settings.first_attempt in BY_ATTEMPT else 1
    return Credit(rewards, reached, advantages, learnable, attempts)


def is_learnable(group: RolloutGroup, settings: CreditSettings) -> bool:
    """Whether an update could learn anything from a group; one that could not is worth playing again."""
    return bool(judge([group], settings, branches=max(len(group.rollouts), 2)).learnable.any())


def token_places(rollout: Rollout, settings: CreditSettings, attempts: int) -> np.ndarray:
    """int32, the place of `Credit` that judges a token, -1 at tokens that are not trained.  # [token]

    Args:
      attempts: of the `Credit`.
    Raises:
      ValueError: a trained token belongs to a step that the rollout knows nothing of.
    """
    trained = rollout.trained  # [token]
    if np.any(rollout.steps[trained] >= len(rollout.step_success)) or np.any(rollout.steps[trained] < 0):
        raise ValueError(
            f"the rollout {rollout.group}/{rollout.branch} of task {rollout.task_id} knows of "
            f"{len(rollout.step_success)} step(s), but has a trained token of step {rollout.steps[trained].max()}"
        )
    if settings.success == "episode":
        return np.where(trained, 0, -1).astype(np.int32)
    places = np.where(trained, rollout.steps, -1).astype(np.int32)
    if settings.first_attempt == "shared":
        return places
    numbers = rollout.attempts()
    last = {turn.step: number for turn, number in zip(rollout.turns, numbers, strict=True) if number is not None}
    for turn, number in zip(rollout.turns, numbers, strict=True):
        own = places[turn.start : turn.end]  # [token]
        if number is None or (settings.first_attempt == "condition" and number < last[turn.step]):
            own[:] = -1
        elif settings.first_attempt in BY_ATTEMPT:
            own[own >= 0] = turn.step * attempts + number
    return places


def _attempts(rollout: Rollout, success: str) -> list[list[_Attempt]]:
    """The attempts at each step that a rollout began; an episode under one reward is one; none of a dropped one."""
    if rollout.dropped:
        return []
    if success == "episode":
        grounded = any(turn.grounded for turn in rollout.turns)
        return [[_Attempt(rollout.success, rollout.reflection_tokens(), grounded)]]
    found: list[list[_Attempt]] = [[] for _ in range(1 + max((turn.step for turn in rollout.turns), default=-1))]
    for turn, number in zip(rollout.turns, rollout.attempts(), strict=True):
        if number is not None:
            # Where nobody knows what a step should do, an action that ran is worth what the episode came to: paid for
            # running alone, a policy would learn to go on with things that cannot fail.
            right = turn.went_right and (turn.right is not None or rollout.success)
            found[turn.step].append(_Attempt(right, turn.reflection_tokens, turn.grounded))
    return found


@functools.partial(jax.jit, static_argnames="settings")
def _credit(
    values: np.ndarray, made: np.ndarray, settings: CreditSettings
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """R, who is compared, and A, each [group, branch, place]; which places have something to prefer, [group, place]."""
    right, reflection_tokens, grounded = jnp.moveaxis(values, -1, 0)  # each [group, branch, step, attempt]
    rewards, reached = attempt_rewards(
        right,
        reflection_tokens,
        grounded,
        made,
        first_attempt=settings.first_attempt,
        lambda_exec=settings.lambda_exec,
        eta=settings.eta,
        lambda_val=settings.lambda_val,
    )  # each [group, branch, place]
    advantages = step_advantages(
        rewards,
        reached,
        baseline=settings.baseline,
        normalize=settings.normalize,
        clip_range=settings.clip_range,
        epsilon=settings.epsilon,
    )  # [group, branch, place]
    return rewards, reached, advantages, ~zero_variance_steps(rewards, reached)
