"""Metrics that survive sharding: sums and counts first, means last.

The losses return sums, which add up over microbatches and over devices (`psum`); only the total is turned
into means. A mean of means would weigh a shard of few tokens like one of many.
"""

from collections.abc import Mapping

import jax.numpy as jnp
from jax import Array

SEGMENTS = ("reflection", "action")
MEANS = (  # name, sum, number of tokens that it is over
    ("logprob", "logprob_sum", "token_count"),
    ("kl", "kl_sum", "token_count"),
    ("entropy", "entropy_sum", "token_count"),
    ("ratio", "ratio_sum", "policy_token_count"),
    ("weight", "weight_sum", "policy_token_count"),
    ("clip_share", "clipped_count", "policy_token_count"),
    ("cap_share", "capped_count", "policy_token_count"),
)


def segment_sums(segment: str, mask: Array, **values: Array) -> dict[str, Array]:
    """Sums over one segment: "<segment>/<name>_sum" for each value, and "<segment>/token_count".

    Args:
        segment: "reflection" or "action".
        mask: the tokens to sum over, boolean [..., token].
        values: arrays [..., token].

    Returns:
        float scalars.
    """
    sums = {f"{segment}/{name}_sum": jnp.sum(jnp.where(mask, value, 0.0)) for name, value in values.items()}
    return sums | {f"{segment}/token_count": jnp.sum(mask, dtype=float)}


def finalize_metrics(sums: Mapping[str, Array]) -> dict[str, Array]:
    """Means from sums: the last step, after all microbatches and shards were added up.

    Per segment s in {reflection, action}: "s/logprob", "s/kl" and "s/entropy" are means over the
    s/token_count tokens in the loss; over the s/policy_token_count tokens in its policy term "s/ratio" and
    "s/weight" are means, "s/clip_share" and "s/cap_share" the shares whose ratio was clipped and whose
    importance weight met its cap. "groups/dropped_share" is the share of groups that had no variance. Counts,
    and the parts of the loss ("loss/..."), pass unchanged.

    Args:
        sums: what `losses.regrpo_loss`, `losses.sft_loss` or `clipped_loss.clipped_loss` returned, added up.

    Returns:
        float scalars; a mean over nothing is 0, never nan.
    """
    means = {name: value for name, value in sums.items() if not name.endswith("_sum")}
    for segment in SEGMENTS:
        for name, total, count in MEANS:
            if f"{segment}/{total}" in sums:
                means[f"{segment}/{name}"] = _ratio(sums[f"{segment}/{total}"], sums[f"{segment}/{count}"])
    if "groups/dropped_count" in sums:
        dropped = sums["groups/dropped_count"]
        means["groups/dropped_share"] = _ratio(dropped, dropped + sums["groups/kept_count"])
    return means


def _ratio(total: Array, count: Array) -> Array:
    return total / jnp.maximum(count, 1.0)
