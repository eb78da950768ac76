"""The two objectives: `regrpo_loss` for groups of branches, `sft_loss` for the warm start before it.

Source: arXiv 2606.31392, the ReGRPO objective; on one full group `regrpo_loss` equals the authors' function.

Three conventions hold in both:
- Only reflection tokens (z) and action tokens (a) are trained. A token is in at most one of the two masks.
- Masked positions may hold anything, -inf and nan included: they are replaced before any arithmetic, so
  neither the loss nor its gradient can see them. A whole padded branch is masked by `branch_mask`.
- The loss is a sum divided by a *denominator*. Losses that share one denominator add up, over microbatches
  and over devices, to exactly the loss of the one big batch, and so do their gradients. Compute the
  denominator of all the data first (`branch_denominator`, `token_denominator`; add up the parts), then pass
  it to every part.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from regrpo_jax.core.kl import kl_estimate
from regrpo_jax.core.metrics import segment_sums

Metrics = dict[str, Array]


def regrpo_loss(
    token_logprobs: Array,
    reference_logprobs: Array,
    reflection_mask: Array,
    action_mask: Array,
    advantages: Array,
    *,
    beta: ArrayLike,
    kl_estimator: str = "k1",
    length_normalize: bool = False,
    group_keep: Array | None = None,
    keep_kl: bool = False,
    branch_mask: Array | None = None,
    denominator: ArrayLike | None = None,
) -> tuple[Array, Metrics]:
    """L = -mean_k A_k * log pi(z_k, a_k) + beta * mean_k KL_k.

    log pi(z_k, a_k) and KL_k are sums over the reflection and action tokens t of branch k
    (`length_normalize`: divided by their number). A_k is a constant. The mean is over all real branches of
    all groups.

    A zero-variance group has nothing to prefer: `group_keep` drops it from the policy term. Whether it also
    drops out of the KL term is a choice: with keep_kl=False it is as if it were not in the batch (the release
    skips it so), with keep_kl=True its branches stay in the mean, so that the policy is held near pi_ref
    there too.

    Args:
        token_logprobs: log pi, float [group, branch, token].
        reference_logprobs: log pi_ref, constants, [group, branch, token].
        reflection_mask, action_mask: tokens of z and of a, boolean [group, branch, token], disjoint.
        advantages: A, constants, [group, branch]; see `advantages.group_advantages`.
        beta: weight of the KL term: the price of one nat at a token, as in `clipped_loss`; see `kl`.
        kl_estimator: one of `kl.KL_ESTIMATORS`; the paper's loss is "k1".
        length_normalize: average instead of sum over the tokens of a branch.
        group_keep: groups in the policy term, boolean [group]; None keeps all.
        keep_kl: whether dropped groups stay in the KL term.
        branch_mask: real branches, boolean [group, branch]; None when all are.
        denominator: number of branches the sums are divided by; None counts them with `branch_denominator`.

    Returns:
        The loss, a scalar, and sums for `metrics.finalize_metrics`: "loss/policy" and "loss/kl" (unweighted
        by beta), divided by the denominator like the loss; per segment "logprob_sum", "kl_sum", "token_count"
        (tokens in the loss), "policy_token_count" (tokens in its policy term);
        "branches/count" in the loss; "groups/kept_count", "groups/dropped_count" and, of the latter,
        "groups/kl_only_count".

    Raises:
        ValueError: an unknown kl_estimator.
    """
    policy_branches, kl_branches = _branches_in_loss(advantages.shape, branch_mask, group_keep, keep_kl)
    policy_tokens = (reflection_mask | action_mask) & policy_branches[..., None]  # [group, branch, token]
    kl_tokens = (reflection_mask | action_mask) & kl_branches[..., None]  # [group, branch, token]

    weights = jax.lax.stop_gradient(_masked(advantages, policy_branches))[..., None]  # [group, branch, 1]
    objective = weights * _masked(token_logprobs, policy_tokens)  # [group, branch, token]
    logprobs = _masked(token_logprobs, kl_tokens)  # [group, branch, token]
    reference = jax.lax.stop_gradient(_masked(reference_logprobs, kl_tokens))  # [group, branch, token]
    kl = kl_estimate(logprobs, reference, estimator=kl_estimator)  # [group, branch, token]

    if denominator is None:
        denominator = jnp.sum(kl_branches)
    divisor = jnp.maximum(denominator, 1)
    if length_normalize:
        token_count = jnp.maximum(jnp.sum(kl_tokens, axis=-1, keepdims=True), 1)  # [group, branch, 1]
        divisor = divisor * token_count  # [group, branch, 1]
    policy_loss = -jnp.sum(objective / divisor)
    kl_loss = jnp.sum(kl / divisor)

    metrics: Metrics = {"loss/policy": policy_loss, "loss/kl": kl_loss}
    for segment, mask in (("reflection", reflection_mask), ("action", action_mask)):
        metrics |= segment_sums(segment, mask & kl_tokens, logprob=logprobs, kl=kl)
        metrics[f"{segment}/policy_token_count"] = jnp.sum(mask & policy_tokens, dtype=float)
    metrics |= _group_counts(policy_branches, kl_branches, branch_mask)
    return policy_loss + beta * kl_loss, jax.lax.stop_gradient(metrics)


def branch_denominator(branch_mask: Array, group_keep: Array | None = None, *, keep_kl: bool = False) -> Array:
    """Number of branches in the mean of `regrpo_loss`: the real ones of the groups that are in the loss.

    With keep_kl=False a dropped group is not in the loss; with keep_kl=True it is (its policy term is 0), so
    it counts.

    Args:
        branch_mask: real branches, boolean [group, branch].
        group_keep: boolean [group]; None keeps all.
        keep_kl: as in `regrpo_loss`.

    Returns:
        integer scalar, 0 for nothing; add it up over microbatches and shards.
    """
    return jnp.sum(_branches_in_loss(branch_mask.shape, branch_mask, group_keep, keep_kl)[1])


def sft_loss(
    token_logprobs: Array,
    reflection_mask: Array,
    action_mask: Array,
    *,
    denominator: ArrayLike | None = None,
) -> tuple[Array, Metrics]:
    """L = -(1/N) sum_t log pi(t) over the N reflection and action tokens: imitation of recorded recoveries.

    Args:
        token_logprobs: log pi, float [..., token].
        reflection_mask, action_mask: tokens of z and of a, boolean [..., token], disjoint.
        denominator: N; None takes `token_denominator` of these arrays.

    Returns:
        The loss, a scalar, and sums for `metrics.finalize_metrics`: per segment "logprob_sum" and
        "token_count".
    """
    trained = reflection_mask | action_mask  # [..., token]
    logprobs = _masked(token_logprobs, trained)  # [..., token]
    if denominator is None:
        denominator = token_denominator(reflection_mask, action_mask)
    metrics: Metrics = {}
    for segment, mask in (("reflection", reflection_mask), ("action", action_mask)):
        metrics |= segment_sums(segment, mask, logprob=logprobs)
    return -jnp.sum(logprobs / jnp.maximum(denominator, 1)), jax.lax.stop_gradient(metrics)


def token_denominator(reflection_mask: Array, action_mask: Array) -> Array:
    """Number N of trained tokens of `sft_loss`, an integer scalar; add it up over microbatches and shards."""
    return jnp.sum(reflection_mask | action_mask)


def _branches_in_loss(
    shape: tuple[int, ...], branch_mask: Array | None, group_keep: Array | None, keep_kl: bool
) -> tuple[Array, Array]:
    """Branches in the policy term, and branches in the KL term (a superset), both boolean [group, branch]."""
    real = jnp.ones(shape, bool) if branch_mask is None else branch_mask  # [group, branch]
    kept = real if group_keep is None else real & group_keep[:, None]  # [group, branch]
    return kept, real if keep_kl else kept


def _masked(values: Array, mask: Array) -> Array:
    """Values with 0 at masked places, in at least float32: sums over tokens need the digits."""
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    return jnp.where(mask, values, 0.0).astype(dtype)


def _group_counts(policy_branches: Array, kl_branches: Array, branch_mask: Array | None) -> Metrics:
    """Branches and groups in the loss; a group without a real branch is padding and counts nowhere."""
    real = jnp.ones_like(policy_branches) if branch_mask is None else branch_mask  # [group, branch]
    kept = jnp.any(policy_branches, axis=-1)  # [group]
    return {
        "branches/count": jnp.sum(kl_branches, dtype=float),
        "groups/kept_count": jnp.sum(kept, dtype=float),
        "groups/dropped_count": jnp.sum(jnp.any(real, axis=-1) & ~kept, dtype=float),
        "groups/kl_only_count": jnp.sum(jnp.any(kl_branches, axis=-1) & ~kept, dtype=float),
    }
