"""Direct preference optimisation: prefer one continuation of a prompt to another, without rewards or samples.

Source: Rafailov et al. 2023 (arXiv 2305.18290), equation 7. It is a baseline of arXiv 2606.31392, on pairs of the
action that corrects a failure and the one that failed.
"""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

CHOSEN, REJECTED = 0, 1  # along the axis "side"


def preference_loss(
    token_logprobs: Array,
    reference_logprobs: Array,
    mask: Array,
    *,
    beta: ArrayLike,
    denominator: ArrayLike | None = None,
) -> tuple[Array, dict[str, Array]]:
    """L = -(1/N) sum_i log sigmoid(h(chosen_i) - h(rejected_i)),  h(y) = beta * sum_{t in y} log(pi(t) / pi_ref(t)).

    h is the reward that pi would be the best answer to. N is the number of pairs.

    Args:
        token_logprobs: log pi, float [pair, side, token]; side `CHOSEN`, then side `REJECTED`, after one prompt.
        reference_logprobs: log pi_ref, constants, [pair, side, token].
        mask: tokens of the two, boolean [pair, side, token]; what others hold is never seen.
        beta: how strongly pi is held near pi_ref.
        denominator: N; None counts the pairs. Parts with one denominator add up to the loss of the whole.

    Returns:
        The loss, a scalar, and numbers that add up over parts as it does: "preference/accuracy" (share of pairs
        whose chosen side has the higher h), "preference/margin" (mean of the difference of h),
        "preference/chosen_reward" and "preference/rejected_reward" (means of h).
    """
    dtype = jnp.promote_types(token_logprobs.dtype, jnp.float32)
    logprobs = jnp.where(mask, token_logprobs, 0.0).astype(dtype)  # [pair, side, token]
    reference = jax.lax.stop_gradient(jnp.where(mask, reference_logprobs, 0.0)).astype(dtype)  # [pair, side, token]
    rewards = beta * jnp.sum(logprobs - reference, axis=-1)  # [pair, side]
    margin = rewards[:, CHOSEN] - rewards[:, REJECTED]  # [pair]
    divisor = jnp.maximum(token_logprobs.shape[0] if denominator is None else denominator, 1)
    metrics = {
        "preference/accuracy": jnp.sum(jnp.where(margin > 0, 1.0, 0.0) / divisor),
        "preference/margin": jnp.sum(margin / divisor),
        "preference/chosen_reward": jnp.sum(rewards[:, CHOSEN] / divisor),
        "preference/rejected_reward": jnp.sum(rewards[:, REJECTED] / divisor),
    }
    return -jnp.sum(jax.nn.log_sigmoid(margin) / divisor), jax.lax.stop_gradient(metrics)
