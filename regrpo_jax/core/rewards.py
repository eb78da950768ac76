"""What a local trajectory is worth: success, less the price of reflecting, plus a verifier's opinion.

Source: arXiv 2606.31392, the reward R(tau) and the verifier value V; the unit of 100 tokens and the verifier
weights are those of the authors' release.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def reflection_cost(reflection_tokens: ArrayLike, *, tokens_per_unit: float = 100.0) -> Array:
    """C(tau) = |z| / tokens_per_unit, the length of the reflection in units of 100 tokens.

    It is 0 for a trajectory without a reflection. The unit keeps the price small beside a success worth 1:
    with eta = 0.1 a reflection of 30 tokens costs 0.03.

    Args:
        reflection_tokens: number of tokens of z, any shape [...], integer or float.
        tokens_per_unit: tokens that cost 1.

    Returns:
        C, float, [...].
    """
    return jnp.asarray(reflection_tokens) / tokens_per_unit  # [...]


def verifier_value(
    answer_consistency: ArrayLike,
    evidence_grounding: ArrayLike,
    plan_validity: ArrayLike,
    *,
    weights: tuple[float, float, float] = (0.25, 0.5, 0.25),
) -> Array:
    """V(x, tau) = w_a * s_a + w_g * s_g + w_p * s_p, a training-only opinion on a trajectory.

    Args:
        answer_consistency: s_a, does the action agree with the known answer. [...]
        evidence_grounding: s_g, does the reflection's Evidence quote the failed observation. [...]
        plan_validity: s_p, is the action the one that the FixPlan should lead to. [...]
        weights: (w_a, w_g, w_p).

    Returns:
        V, float, [...]. Each score is clamped to [0, 1] first, so V lies in [0, 1] when the weights sum to 1.
    """
    scores = (answer_consistency, evidence_grounding, plan_validity)
    clamped = [jnp.clip(1.0 * jnp.asarray(score), 0.0, 1.0) for score in scores]  # 3 x [...]
    return weights[0] * clamped[0] + weights[1] * clamped[1] + weights[2] * clamped[2]  # [...]


def trajectory_reward(
    success: ArrayLike,
    reflection_tokens: ArrayLike,
    verifier_value: ArrayLike = 0.0,
    *,
    lambda_exec: float = 1.0,
    eta: float = 0.1,
    lambda_val: float = 0.0,
    tokens_per_unit: float = 100.0,
) -> Array:
    """R(tau) = lambda_exec * 1{success} - eta * C(tau) + lambda_val * V(x, tau).

    Shapes broadcast; usually all are [group, branch].

    Args:
        success: did the trajectory reach its goal, boolean (or 0/1). [...]
        reflection_tokens: number of reflection tokens |z|. [...]
        verifier_value: V, see `verifier_value`; the default setting (lambda_val = 0) does not use it. [...]
        lambda_exec, eta, lambda_val: the weights of success, cost and verifier.
        tokens_per_unit: see `reflection_cost`.

    Returns:
        R, float, [...].
    """
    cost = reflection_cost(reflection_tokens, tokens_per_unit=tokens_per_unit)  # [...]
    return lambda_exec * jnp.asarray(success) - eta * cost + lambda_val * jnp.asarray(verifier_value)  # [...]
