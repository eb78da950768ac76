"""Whom a reward pays: the first attempt of a step, and the repairs that follow where it failed.

At step s of an episode branch k makes attempts i = 0, 1, ..: a first attempt a_0 and, after failures, repairs
(z_i, a_i). 1{right_ksi} says whether a_i did what its step asks for, C_ksi what was reflected in its turn, V_ksi what a
verifier makes of it, and n the last attempt of the branch at the step. What a first attempt is paid for can be four
things:

    own        R_ksi = lambda_exec * 1{right_ksi} - eta * C_ksi + lambda_val * V_ksi
               First attempts are compared with the first attempts of their siblings: A_ks0 by R_js0 of all j. A repair
               is compared with how all siblings left the step, because those that were right at once say what it was
               worth to need none, and because few siblings may have failed: A_ksi by R_jsm with m = min(i, n_j).
               A needless reflection before a first attempt costs that attempt.
    apart      the same R_ksi, but a repair is compared with the repairs of its siblings alone, A_ksi by R_jsi of those
               j that made the attempt. Where most repairs fail, "own" pushes down nearly every token of every
               reflection, far more than it lifts anything, and a policy unlearns to write; "apart" is silent there
               until one of them succeeds.
    condition  R_ks  = lambda_exec * 1{right_ksn} - eta * sum_i C_ksi + lambda_val * V_ks
               compared among the branches that reached step s, for the tokens of its last attempt; what failed before
               is a condition, as in the paper's local trajectory a0 -> o0 -> z -> a1, and is not trained.
    shared     the same R_ks for the tokens of all attempts, failed ones included. Then a failure that was repaired is
               paid like a success, so first attempts hardly change; kept for comparison.

A *place* is what is compared at once: (step, attempt) with "own" and "apart", a step otherwise; `step_advantages`
takes its places for steps. Source: the local trajectories of arXiv 2606.31392, which trains z and a1 given a0 and o0.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from regrpo_jax.core.rewards import trajectory_reward, verifier_value

FIRST_ATTEMPTS = ("own", "apart", "condition", "shared")
BY_ATTEMPT = ("own", "apart")  # each attempt of a step is a place


def attempt_rewards(
    right: ArrayLike,
    reflection_tokens: ArrayLike,
    grounded: ArrayLike,
    made: ArrayLike,
    *,
    first_attempt: str,
    lambda_exec: float = 1.0,
    eta: float = 0.1,
    lambda_val: float = 0.0,
) -> tuple[Array, Array]:
    """R of each place, and which branches are compared there.

    V is a success's (answer and plan are right where the action is) and, where it reflected on quoted evidence, that
    of grounding.

    Args:
        right: 1{right}, boolean (or 0/1) [group, branch, step, attempt].
        reflection_tokens: of the attempt's turn, [group, branch, step, attempt].
        grounded: whether that reflection quotes the failed observation, boolean [group, branch, step, attempt].
        made: attempts that there were, boolean [group, branch, step, attempt]; the others count for nothing.
        first_attempt: one of `FIRST_ATTEMPTS`.
        lambda_exec, eta, lambda_val: the weights of success, cost and verifier.

    Returns:
        R, float [group, branch, place], and boolean [group, branch, place]. Places are step * attempts + attempt with
        "own" and "apart", steps otherwise. With "own" a branch is compared at attempts that it did not need as well, by
        its last one.

    Raises:
        ValueError: an unknown first_attempt.
    """
    if first_attempt not in FIRST_ATTEMPTS:
        raise ValueError(f"unknown first_attempt {first_attempt!r}: choose one of {', '.join(FIRST_ATTEMPTS)}")
    there = jnp.asarray(made, bool)  # [group, branch, step, attempt]
    success = jnp.where(there, right, 0)  # [group, branch, step, attempt]
    tokens = jnp.where(there, reflection_tokens, 0)  # [group, branch, step, attempt]
    quoting = jnp.where(there, grounded, 0)  # [group, branch, step, attempt]
    reached = jnp.any(there, axis=-1)  # [group, branch, step]
    if first_attempt not in BY_ATTEMPT:
        success = jnp.sum(success * last_attempts(there), axis=-1)  # [group, branch, step]
        tokens, quoting = jnp.sum(tokens, axis=-1), jnp.max(quoting, axis=-1)  # each [group, branch, step]
    rewards = trajectory_reward(
        success,
        tokens,
        verifier_value(success, success * quoting, success),
        lambda_exec=lambda_exec,
        eta=eta,
        lambda_val=lambda_val,
    )  # [group, branch, step, attempt] by attempt, else [group, branch, step]
    if first_attempt not in BY_ATTEMPT:
        return rewards, reached
    shape = (*there.shape[:2], -1)
    if first_attempt == "apart":
        return rewards.reshape(shape), there.reshape(shape)
    left = jnp.sum(rewards * last_attempts(there), axis=-1, keepdims=True)  # [group, branch, step, 1]
    by_anyone = jnp.any(there, axis=1, keepdims=True)  # [group, 1, step, attempt]
    compared = reached[..., None] & by_anyone  # [group, branch, step, attempt]
    return jnp.where(there, rewards, left).reshape(shape), compared.reshape(shape)


def last_attempts(made: ArrayLike) -> Array:
    """The attempt that a step ended with, boolean [.., attempt]; attempts are made in order, without gaps."""
    there = jnp.asarray(made, bool)  # [.., attempt]
    later = jnp.concatenate([there[..., 1:], jnp.zeros_like(there[..., :1])], axis=-1)  # [.., attempt]
    return there & ~later
