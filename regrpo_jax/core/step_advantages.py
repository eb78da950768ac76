"""Step-local credit: each step of an episode is compared with the same step of its siblings, and with nothing else.

Source: the local trajectories of arXiv 2606.31392, taken one step of an episode at a time. Branch k reaches step s when
all its earlier steps succeeded; R_ks is what its local trajectory at s was worth:

    A_ks = R_ks - mean_{j reached s} R_js        A_t = A_ks for every token t that branch k spent on step s

so a step that went well keeps its credit when a later one fails. An episode under one reward is the case of one step.
"""

from functools import partial

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from regrpo_jax.core.advantages import group_advantages, zero_variance_groups


def step_advantages(
    rewards: ArrayLike,
    reached: ArrayLike,
    *,
    baseline: str = "mean",
    normalize: bool = False,
    clip_range: float | None = None,
    epsilon: float = 1e-8,
) -> Array:
    """A_ks of each step within its group: `group_advantages` over the branches that reached it.

    Args:
        rewards: R, [group, branch, step].
        reached: which branches got to which step, boolean [group, branch, step].
        baseline, normalize, clip_range, epsilon: as in `group_advantages`.

    Returns:
        A, float [group, branch, step]; 0 where a step was not reached, or by one branch alone.

    Raises:
        ValueError: as `group_advantages`.
    """
    compared = partial(group_advantages, baseline=baseline, normalize=normalize, clip_range=clip_range, epsilon=epsilon)
    advantages = compared(_steps_first(rewards), mask=_steps_first(reached))  # [group, step, branch]
    return jnp.swapaxes(advantages, -1, -2)  # [group, branch, step]


def zero_variance_steps(rewards: ArrayLike, reached: ArrayLike, *, tolerance: float = 1e-8) -> Array:
    """Steps whose branches all got the same reward, so that no branch can be preferred there.

    Args:
        rewards: R, [group, branch, step].
        reached: boolean [group, branch, step].
        tolerance: variances up to this count as zero.

    Returns:
        bool [group, step]; true as well where one branch, or none, got to the step.
    """
    return zero_variance_groups(_steps_first(rewards), mask=_steps_first(reached), tolerance=tolerance)


def at_tokens(values: ArrayLike, steps: ArrayLike) -> Array:
    """What was said of each step, said of each of its tokens.

    Args:
        values: [group, branch, step], any type.
        steps: the step that a token belongs to, integer [group, branch, token]; -1 for none.

    Returns:
        [group, branch, token], 0 or False at tokens of no step.
    """
    array, index = jnp.asarray(values), jnp.asarray(steps)
    chosen = jnp.take_along_axis(array, jnp.maximum(index, 0), axis=-1)  # [group, branch, token]
    return jnp.where(index >= 0, chosen, jnp.zeros((), array.dtype))


def _steps_first(values: ArrayLike) -> Array:
    """[group, branch, step] -> [group, step, branch]"""
    return jnp.swapaxes(jnp.asarray(values), -1, -2)
