"""ReGRPO (arXiv 2606.31392) as equations: pure functions of arrays, no models, no files, no state.

Read the four files in this order and you know the method:

1. `rewards`     R(tau) = lambda_exec * 1{success} - eta * C(tau) + lambda_val * V(x, tau)
2. `advantages`  A_k = R_k - mean_j R_j, over the K branches of one group
3. `kl`          how far the policy pi has moved from the frozen reference pi_ref, token by token
4. `losses`      L = -mean_k A_k * log pi(z_k, a_k) + beta * mean_k KL_k, reflection and action tokens only

Then the three that an online update adds, where the policy learns from episodes that it played itself:

5. `attempt_credit`   whom a reward pays: the first attempt of a step for itself, a repair for the repair
6. `step_advantages`  A_ks, each step of an episode compared with the same step of its siblings
7. `clipped_loss`     4 with a ratio per token against the policy that sampled it, clipped

`preference_loss` is the baseline that needs neither rewards nor samples: DPO on (corrected, failed) actions. `metrics`
only adds up what the losses report.

The symbols: a *group* is K *branches* k = 1..K that start from the same state (instruction x, images,
history). A branch is a local trajectory tau_k. It either acts at once, `a1 -> o1`, or recovers from a
failure, `a0 -> o0 -> z -> a1 -> o1`: `a` are action tokens, `o` what a tool returned, `z` the reflection.
Offline, trained are only `z` and the last action of a branch; `a0` and `o0` are conditions. Online the policy made `a0`
itself: it is then judged by its own outcome, never by that of the repair.

Every array line of this package ends with its shape, `# [group, branch, token]`. Masks are boolean. Nothing
here imports any other part of regrpo_jax.
"""

from regrpo_jax.core.advantages import (
    group_advantages,
    group_variance,
    two_stream_advantages,
    zero_variance_groups,
)
from regrpo_jax.core.kl import KL_ESTIMATORS, kl_estimate
from regrpo_jax.core.losses import branch_denominator, regrpo_loss, sft_loss, token_denominator
from regrpo_jax.core.metrics import finalize_metrics
from regrpo_jax.core.rewards import reflection_cost, trajectory_reward, verifier_value

__all__ = [
    "KL_ESTIMATORS",
    "branch_denominator",
    "finalize_metrics",
    "group_advantages",
    "group_variance",
    "kl_estimate",
    "reflection_cost",
    "regrpo_loss",
    "sft_loss",
    "token_denominator",
    "trajectory_reward",
    "two_stream_advantages",
    "verifier_value",
    "zero_variance_groups",
]
