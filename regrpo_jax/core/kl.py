"""How far the policy pi has moved from the reference pi_ref, estimated from the tokens at hand.

Source: the KL term of arXiv 2606.31392; "k1" and "k3_release" are the two of the authors' release, k1, k2 and
k3 those of John Schulman's note "Approximating KL Divergence" (2020).

`beta` means the same in every loss here, offline and online: the price, in units of the advantage, of one nat of KL
at a token. Both terms of a loss are sums over the same tokens t with the same divisor,

    L = (1/N) * sum_t [ -A_t * log pi(t) + beta * KL_t ]

so what the gradient weighs at a token is A_t against beta * dKL_t, whether N counts branches (`regrpo_loss`), tokens
(`clipped_loss`) or the tokens of each branch (length_normalize). N scales the whole loss, which AdamW does not see.
Advantages that were divided by their deviation are larger, and beta then weighs less by that factor.
"""

import jax.numpy as jnp
from jax import Array

KL_ESTIMATORS = ("k1", "k2", "k3", "k3_release")


def kl_estimate(token_logprobs: Array, reference_logprobs: Array, *, estimator: str = "k1") -> Array:
    """One KL estimate per token t.

    With d = log pi(t) - log pi_ref(t):

        k1           d                 unbiased for KL(pi || pi_ref) if pi sampled t; may be negative
        k2           d^2 / 2           biased a little, never negative
        k3           exp(-d) + d - 1   unbiased for KL(pi || pi_ref) if pi sampled t; never negative
        k3_release   exp(d) - d - 1    unbiased for KL(pi_ref || pi) if pi_ref sampled t; never negative

    The paper's loss uses k1. The two k3 are mirror images: which one is an unbiased estimate depends on who
    sampled the tokens. Use `k3` to report or penalise the drift on the policy's own samples, `k3_release` to
    reproduce the authors' option "k3"; on tokens sampled from pi the latter grows like pi / pi_ref and can
    overflow far from the reference.

    As terms of a loss what counts is the gradient, which is c(d) * grad log pi(t):

        k1           c = 1            averages to 0 on samples of pi; pushes offline branches all down alike
        k2           c = d            on samples of pi, the true gradient of KL(pi || pi_ref)
        k3           c = 1 - exp(-d)  a pull towards pi_ref, at most 1 where pi > pi_ref
        k3_release   c = exp(d) - 1   a pull towards pi_ref, exponential where pi > pi_ref

    Masks are the caller's business, and belong *before* this function: write `jnp.where(mask, logprobs, 0.0)`
    for both inputs, then d = 0 at padding, and the value and all gradients there are 0. Masking the result
    instead leaves `0 * inf = nan` in the gradient wherever padding holds -inf.

    Args:
        token_logprobs: log pi, float, any shape [...].
        reference_logprobs: log pi_ref, same shape.
        estimator: one of `KL_ESTIMATORS`.

    Returns:
        float [...].

    Raises:
        ValueError: unknown estimator.
    """
    difference = token_logprobs - reference_logprobs  # [...]
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return 0.5 * difference**2
    # expm1 keeps the digits that exp(d) - 1 would cancel while pi is still close to pi_ref.
    if estimator == "k3":
        return jnp.expm1(-difference) + difference
    if estimator == "k3_release":
        return jnp.expm1(difference) - difference
    raise ValueError(f"unknown KL estimator {estimator!r}: choose one of {', '.join(KL_ESTIMATORS)}")
