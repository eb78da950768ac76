"""The objective of online updates: a clipped ratio per token, against whoever sampled it.

Source: the ReGRPO objective of arXiv 2606.31392 on sampled trajectories; the ratio and its clipping are PPO's (arXiv
1707.06347), the two unequal bounds DAPO's (arXiv 2503.14476), the third policy between sampler and update that of
decoupled PPO (arXiv 2110.00641).

Three policies meet at a token t: mu, which sampled it; pi_old, the policy before the first update on the batch; and pi,
which is trained. On fresh rollouts of our own sampler mu is pi_old. A stale rollout, or one of an engine that rounds
differently, has another mu: the distance from mu to pi_old is then a constant weight, and the trust region lies around
pi_old, where the update starts, and not around mu, where it may not even be.

The conventions of `losses` hold here too: masks first, sums over one denominator.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from regrpo_jax.core.kl import kl_estimate
from regrpo_jax.core.metrics import segment_sums

Metrics = dict[str, Array]
RATIOS = ("token", "branch")


def clipped_loss(
    token_logprobs: Array,
    reference_logprobs: Array,
    behaviour_logprobs: Array,
    reflection_mask: Array,
    action_mask: Array,
    advantages: Array,
    *,
    beta: ArrayLike,
    clip_range: tuple[float, float],
    kl_estimator: str = "k3",
    proximal_logprobs: Array | None = None,
    weight_cap: float | None = None,
    ratio_of: str = "token",
    keep: Array | None = None,
    keep_kl: bool = False,
    denominator: ArrayLike | None = None,
) -> tuple[Array, Metrics]:
    """L = -(1/N) sum_t w_t * min(r_t * A_t, clip(r_t, 1 - low, 1 + high) * A_t) + beta * (1/N) sum_t KL_t.

    The sums are over the reflection and action tokens t of all branches, N is their number, and

        r_t = pi(t) / pi_old(t)                     (low, high) = clip_range
        w_t = min(pi_old(t) / mu(t), weight_cap)    a constant; 1 without `proximal_logprobs`, where pi_old is mu

    At pi = pi_old every r_t is exactly 1 and the gradient is that of -(1/N) sum_t w_t * A_t * log pi(t). A token is
    clipped on the side that would move it further only: r_t > 1 + high with A_t > 0, r_t < 1 - low with A_t < 0.

    With ratio_of="branch" all tokens of a branch share one ratio, the geometric mean of theirs, as in GSPO (arXiv
    2507.18071; its form for token advantages): a token still has the gradient of its own log pi, times that ratio. Such
    ratios lie much closer to 1, and so should the bounds.

    Where no branch can be preferred, `keep` drops a token from the policy term; with keep_kl=False it drops out of
    the KL term and of N too.

    Args:
        token_logprobs: log pi, float [group, branch, token].
        reference_logprobs: log pi_ref, constants, [group, branch, token].
        behaviour_logprobs: log mu, constants, [group, branch, token].
        reflection_mask, action_mask: tokens of z and of a, boolean [group, branch, token], disjoint; both were
            sampled from mu.
        advantages: A, constants, [group, branch, token]; see `step_advantages`.
        beta: weight of the KL term: the price of one nat at a token, as in `losses.regrpo_loss`; see `kl`.
        clip_range: (low, high), both positive.
        kl_estimator: one of `kl.KL_ESTIMATORS`.
        proximal_logprobs: log pi_old, constants, [group, branch, token]; None when mu is pi_old.
        weight_cap: largest w, at least 1; None for no limit.
        ratio_of: what has a ratio of its own: a "token" or a "branch".
        keep: tokens in the policy term, boolean [group, branch, token]; None keeps all.
        keep_kl: whether dropped tokens stay in the KL term.
        denominator: N; None takes `clipped_denominator` of these arrays.

    Returns:
        The loss, a scalar, and sums for `metrics.finalize_metrics`: "loss/policy" and "loss/kl" (unweighted by beta),
        divided by N like the loss; per segment "logprob_sum", "kl_sum", "token_count" (tokens in the loss),
        "policy_token_count" (tokens in its policy term), and over the latter "ratio_sum" (of r), "weight_sum" (of w),
        "clipped_count" and "capped_count" (tokens whose w met the cap).

    Raises:
        ValueError: an unknown kl_estimator or ratio_of, a bound that is not positive, or a cap below 1.
    """
    _check(clip_range, weight_cap)
    if ratio_of not in RATIOS:
        raise ValueError(f"ratio_of {ratio_of!r} must be one of {', '.join(RATIOS)}")
    kl_tokens, policy_tokens = _tokens_in_loss(reflection_mask | action_mask, keep, keep_kl)
    logprobs = _masked(token_logprobs, kl_tokens)  # [group, branch, token]
    reference = jax.lax.stop_gradient(_masked(reference_logprobs, kl_tokens))  # [group, branch, token]
    kl = kl_estimate(logprobs, reference, estimator=kl_estimator)  # [group, branch, token]

    behaviour = _masked(behaviour_logprobs, policy_tokens)  # [group, branch, token]
    proximal = behaviour if proximal_logprobs is None else _masked(proximal_logprobs, policy_tokens)
    weights, capped = _importance_weights(proximal, behaviour, weight_cap)  # [group, branch, token]
    log_ratio = _masked(token_logprobs, policy_tokens) - jax.lax.stop_gradient(proximal)  # [group, branch, token]
    if ratio_of == "branch":
        log_ratio = _of_branch(log_ratio, policy_tokens)
    constants = jax.lax.stop_gradient(_masked(advantages, policy_tokens))  # [group, branch, token]
    objective, clipped = _clipped_objective(log_ratio, constants, clip_range)  # [group, branch, token]

    divisor = jnp.maximum(jnp.sum(kl_tokens) if denominator is None else denominator, 1)
    policy_loss = -jnp.sum(jnp.where(policy_tokens, weights * objective, 0.0) / divisor)
    kl_loss = jnp.sum(kl / divisor)

    metrics: Metrics = {"loss/policy": policy_loss, "loss/kl": kl_loss}
    of_policy = {
        "ratio_sum": jnp.exp(log_ratio),
        "weight_sum": weights,
        "policy_token_count": policy_tokens,
        "clipped_count": clipped,
        "capped_count": capped,
    }  # each [group, branch, token]
    for segment, mask in (("reflection", reflection_mask), ("action", action_mask)):
        metrics |= segment_sums(segment, mask & kl_tokens, logprob=logprobs, kl=kl)
        for name, values in of_policy.items():
            metrics[f"{segment}/{name}"] = jnp.sum(jnp.where(mask & policy_tokens, values, 0), dtype=float)
    return policy_loss + beta * kl_loss, jax.lax.stop_gradient(metrics)


def clipped_denominator(
    trained_mask: Array, keep: Array | None = None, *, keep_kl: bool = False, branch_length: int | None = None
) -> Array:
    """Number N of tokens in `clipped_loss`, an integer scalar; add it up over microbatches and shards.

    Args:
        trained_mask: tokens of z and of a, boolean [group, branch, token].
        keep, keep_kl: as in `clipped_loss`.
        branch_length: counted for each branch that has a token in the loss, in place of its tokens. The constant of Dr.
            GRPO (arXiv 2503.20783): a token then weighs the same in an update of long branches as in one of short ones.
    """
    tokens = _tokens_in_loss(trained_mask, keep, keep_kl)[0]  # [group, branch, token]
    return jnp.sum(tokens) if branch_length is None else jnp.sum(jnp.any(tokens, axis=-1)) * branch_length


def _of_branch(log_ratio: Array, tokens: Array) -> Array:
    """The mean over a branch's tokens in the place of their own values, with their own gradients; 0 at other tokens.

    Both [group, branch, token].
    """
    constant = jax.lax.stop_gradient(log_ratio)  # [group, branch, token]
    count = jnp.maximum(jnp.sum(tokens, axis=-1, keepdims=True), 1)  # [group, branch, 1]
    mean = jnp.sum(constant, axis=-1, keepdims=True) / count  # [group, branch, 1]
    return jnp.where(tokens, mean + log_ratio - constant, 0.0)


def _tokens_in_loss(trained: Array, keep: Array | None, keep_kl: bool) -> tuple[Array, Array]:
    """Tokens in the KL term, and tokens in the policy term (a subset), both boolean [group, branch, token]."""
    kept = trained if keep is None else trained & keep  # [group, branch, token]
    return trained if keep_kl else kept, kept


def _masked(values: Array, mask: Array) -> Array:
    """Values with 0 at masked places, in at least float32: sums over tokens need the digits."""
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    return jnp.where(mask, values, 0.0).astype(dtype)


def _importance_weights(proximal: Array, behaviour: Array, cap: float | None) -> tuple[Array, Array]:
    """w = min(pi_old / mu, cap), a constant, and where it met the cap, both [group, branch, token]."""
    log_weight = jax.lax.stop_gradient(proximal - behaviour)  # [group, branch, token]
    limit = jnp.inf if cap is None else jnp.log(cap)
    return jnp.exp(jnp.minimum(log_weight, limit)), log_weight > limit


def _clipped_objective(log_ratio: Array, advantages: Array, clip_range: tuple[float, float]) -> tuple[Array, Array]:
    """min(r * A, clip(r) * A), and where it was clipped, both [group, branch, token]."""
    low, high = clip_range
    bound = jnp.where(advantages > 0, 1 + high, 1 - low)  # [group, branch, token]
    ratio = jnp.exp(jax.lax.stop_gradient(log_ratio))  # [group, branch, token]
    clipped = (ratio - bound) * jnp.sign(advantages) > 0  # [group, branch, token]
    # The minimum by cases: a clipped token has gradient 0 even where its ratio overflowed to inf.
    unclipped = jnp.exp(jnp.where(clipped, 0.0, log_ratio))  # [group, branch, token]
    return jnp.where(clipped, bound, unclipped) * advantages, clipped


def _check(clip_range: tuple[float, float], weight_cap: float | None) -> None:
    if min(clip_range) <= 0:
        raise ValueError(f"clip_range {clip_range} must be two positive numbers")
    if weight_cap is not None and weight_cap < 1:
        raise ValueError(f"weight_cap {weight_cap} is below 1, so it would shrink tokens of the policy's own as well")
