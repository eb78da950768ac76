"""How much better than its siblings a branch did: rewards compared inside one group, no value network.

Source: arXiv 2606.31392, A_k = R_k - mean_j R_j; division by the deviation, clipping, the leave-one-out
baseline and the two streams are the options of the authors' release, and have its definitions.

A mask marks the real branches of a group: padding counts for nothing and its advantage is 0.
"""

from functools import partial

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

BASELINES = ("mean", "leave_one_out")


def group_advantages(
    rewards: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    baseline: str = "mean",
    normalize: bool = False,
    clip_range: float | None = None,
    epsilon: float = 1e-8,
) -> Array:
    """Advantages A_k of the branches of each group.

        mean            A_k = R_k - (1/K) sum_j R_j
        leave_one_out   A_k = R_k - 1/(K-1) sum_{j != k} R_j      = K/(K-1) times the above
        normalize       A_k <- A_k / (sigma + epsilon), sigma the population deviation of R
        clip_range = c  A_k <- min(c, max(-c, A_k)), after the division

    Args:
        rewards: R, [..., branch].
        mask: real branches, boolean [..., branch]; None when all are.
        baseline: "mean" or "leave_one_out".
        normalize, clip_range, epsilon: see above.

    Returns:
        A, float, [..., branch]; 0 at masked branches, and at a lone real branch (it has no siblings).

    Raises:
        ValueError: unknown baseline, or leave_one_out on an axis of fewer than two branches.
    """
    if baseline not in BASELINES:
        raise ValueError(f"unknown baseline {baseline!r}: choose one of {', '.join(BASELINES)}")
    deviations, real = _centred(rewards, mask)  # [..., branch]
    if baseline == "leave_one_out" and deviations.shape[-1] < 2:
        raise ValueError(
            f"the leave_one_out baseline needs groups of at least two branches, but rewards have shape "
            f"{deviations.shape}"
        )
    advantages = deviations  # [..., branch]
    if baseline == "leave_one_out":
        count = jnp.sum(real, axis=-1, keepdims=True)  # [..., 1]
        advantages = advantages * count / jnp.maximum(count - 1, 1)  # [..., branch]
    if normalize:
        deviation = jnp.sqrt(_mean_square(deviations, real))[..., None]  # [..., 1]
        advantages = advantages / (deviation + epsilon)  # [..., branch]
    if clip_range is not None:
        advantages = jnp.clip(advantages, -clip_range, clip_range)  # [..., branch]
    return advantages


def two_stream_advantages(
    outcome_rewards: ArrayLike,
    verifier_values: ArrayLike,
    *,
    alpha: float = 1.0,
    mask: ArrayLike | None = None,
    normalize: bool = False,
    clip_range: float | None = None,
) -> Array:
    """A_k = A(R)_k + alpha * A(V)_k: outcome and verifier are compared, scaled and clipped each on its own.

    So a group whose branches all succeed still learns from V at full scale. The release calls it with the
    rewards at lambda_val = 0 as R, and lambda_val * V as V; with `normalize` that factor cancels, without it
    it does not.

    Args:
        outcome_rewards: R without its verifier term, [..., branch].
        verifier_values: V, [..., branch].
        alpha: weight of the second stream.
        mask, normalize, clip_range: as in `group_advantages`, applied to each stream.

    Returns:
        A, float, [..., branch].

    Raises:
        ValueError: the two streams differ in shape.
    """
    if jnp.shape(outcome_rewards) != jnp.shape(verifier_values):
        raise ValueError(
            f"outcome_rewards {jnp.shape(outcome_rewards)} and verifier_values {jnp.shape(verifier_values)} "
            "must have the same shape"
        )
    stream = partial(group_advantages, mask=mask, normalize=normalize, clip_range=clip_range)
    return stream(outcome_rewards) + alpha * stream(verifier_values)  # [..., branch]


def group_variance(rewards: ArrayLike, mask: ArrayLike | None = None) -> Array:
    """Population variance of R over the real branches, [..., branch] -> [...]; 0 for an empty group."""
    return _mean_square(*_centred(rewards, mask))  # [...]


def zero_variance_groups(rewards: ArrayLike, *, mask: ArrayLike | None = None, tolerance: float = 1e-8) -> Array:
    """Groups in which all real branches got the same reward, so that no branch can be preferred.

    Args:
        rewards: [..., branch].
        mask: real branches, boolean [..., branch].
        tolerance: variances up to this count as zero.

    Returns:
        bool [...]. `~zero_variance_groups(rewards)` is the `group_keep` of `losses.regrpo_loss`.
    """
    return group_variance(rewards, mask) <= tolerance  # [...]


def _centred(rewards: ArrayLike, mask: ArrayLike | None) -> tuple[Array, Array]:
    """R_k - mean_j R_j (0 at masked branches) and the mask, both [..., branch]."""
    values = 1.0 * jnp.asarray(rewards)  # [..., branch]
    real = jnp.ones(values.shape, bool) if mask is None else jnp.asarray(mask, bool)  # [..., branch]
    # Counting from the lowest reward makes equal rewards give an exact 0. A plain float32 mean may be off by
    # an ulp, which `normalize` would blow up to advantages near 1.
    lowest = jnp.min(values, axis=-1, keepdims=True, initial=jnp.inf, where=real)  # [..., 1]
    above_lowest = jnp.where(real, values - lowest, 0.0)  # [..., branch]
    count = jnp.maximum(jnp.sum(real, axis=-1, keepdims=True), 1)  # [..., 1]
    mean = jnp.sum(above_lowest, axis=-1, keepdims=True) / count  # [..., 1]
    return jnp.where(real, above_lowest - mean, 0.0), real


def _mean_square(deviations: Array, real: Array) -> Array:
    """Mean over real branches of squared deviations, [..., branch] -> [...]."""
    return jnp.sum(deviations**2, axis=-1) / jnp.maximum(jnp.sum(real, axis=-1), 1)  # [...]
