"""Whom a reward pays: the first attempt of a step, and the repairs that follow where it failed.

At step s of an episode branch k makes attempts i = 0, 1, ..: a first attempt a_0 and, after failures, repairs
(z_i, a_i). 1{right_ksi} says whether a_i did what its step asks for, 1{silent_ksi} whether its result was wrong and no
status told so, C_ksi what was reflected in its turn, V_ksi what a verifier makes of it. What a first attempt is paid
for can be three things:

    own        R_ksi = lambda_exec * (1{right_ksi} - silent_price * 1{silent_ksi}) - eta * C_ksi + lambda_val * V_ksi
               compared among the branches that made attempt i at step s: first attempts with first attempts, repairs
               with repairs. A needless reflection before a first attempt costs that attempt. A failure can be repaired
               and a silent error cannot, so it must cost more than a failure; else guessing would be as good.
    condition  R_ks  = lambda_exec * 1{right_ks,last} - eta * sum_i C_ksi + lambda_val * V_ks
               compared among the branches that reached step s, for the tokens of its last attempt; what failed before
               is a condition, as in the paper's local trajectory a0 -> o0 -> z -> a1, and is not trained.
    shared     the same R_ks for the tokens of all attempts, failed ones included. Then a failure that was repaired is
               paid like a success, so first attempts hardly change; kept for comparison.

A *place* is what is compared at once: (step, attempt) with "own", a step otherwise; `step_advantages` takes its places
for steps. Source: the local trajectories of arXiv 2606.31392, which trains z and a1 given a0 and o0.
"""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from regrpo_jax.core.rewards import trajectory_reward, verifier_value

FIRST_ATTEMPTS = ("own", "condition", "shared")


def attempt_rewards(
    right: ArrayLike,
    reflection_tokens: ArrayLike,
    grounded: ArrayLike,
    silent: ArrayLike,
    made: ArrayLike,
    *,
    first_attempt: str,
    silent_price: float = 0.0,
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
        silent: whether its result was wrong and its status fine, boolean [group, branch, step, attempt].
        made: attempts that there were, boolean [group, branch, step, attempt]; the others count for nothing.
        first_attempt: one of `FIRST_ATTEMPTS`.
        silent_price: price of a silent error, in successes; with "own" only.
        lambda_exec, eta, lambda_val: the weights of success, cost and verifier.

    Returns:
        R, float [group, branch, place], and boolean [group, branch, place]. Places are step * attempts + attempt with
        "own", steps otherwise.

    Raises:
        ValueError: an unknown first_attempt.
    """
    if first_attempt not in FIRST_ATTEMPTS:
        raise ValueError(f"unknown first_attempt {first_attempt!r}: choose one of {', '.join(FIRST_ATTEMPTS)}")
    there = jnp.asarray(made, bool)  # [group, branch, step, attempt]
    success = jnp.where(there, right, 0)  # [group, branch, step, attempt]
    tokens = jnp.where(there, reflection_tokens, 0)  # [group, branch, step, attempt]
    quoting = jnp.where(there, grounded, 0)  # [group, branch, step, attempt]
    errors = jnp.where(there, silent, 0)  # [group, branch, step, attempt]
    if first_attempt == "own":
        parts = (success, tokens, quoting, errors, there)
        success, tokens, quoting, errors, reached = (part.reshape(*there.shape[:2], -1) for part in parts)
    else:
        success = jnp.sum(success * last_attempts(there), axis=-1)  # [group, branch, step]
        tokens, quoting = jnp.sum(tokens, axis=-1), jnp.max(quoting, axis=-1)  # each [group, branch, step]
        reached, errors = jnp.any(there, axis=-1), jnp.zeros_like(success)  # each [group, branch, step]
    rewards = trajectory_reward(
        success - silent_price * errors,
        tokens,
        verifier_value(success, success * quoting, success),
        lambda_exec=lambda_exec,
        eta=eta,
        lambda_val=lambda_val,
    )  # [group, branch, place]
    return rewards, reached


def last_attempts(made: ArrayLike) -> Array:
    """The attempt that a step ended with, boolean [.., attempt]; attempts are made in order, without gaps."""
    there = jnp.asarray(made, bool)  # [.., attempt]
    later = jnp.concatenate([there[..., 1:], jnp.zeros_like(there[..., :1])], axis=-1)  # [.., attempt]
    return there & ~later
