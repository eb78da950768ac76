"""The online update: one batch of the policy's own rollouts, looked at once or several times.

    score the batch under the reference, and where wanted under the policy as it is     constants of all epochs
    epochs times: gradient of `core.clipped_loss` over microbatches and devices, one step of the optimizer

"grpo" and "regrpo" are the same update on rollouts that were played differently. Nothing is dropped from an adapter
here, because the ratio compares with log-probs that were measured without dropout.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import struct
from jax.sharding import Mesh

from regrpo_jax.config.base_config import stage_section
from regrpo_jax.core.clipped_loss import clipped_denominator, clipped_loss
from regrpo_jax.core.metrics import finalize_metrics
from regrpo_jax.core.step_advantages import zero_variance_steps
from regrpo_jax.data.chat import Segment
from regrpo_jax.data.online_batches import OnlineBatch
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.training.scoring import Scorer
from regrpo_jax.training.state import TrainState
from regrpo_jax.training.steps import entropy_sums, group_scores, group_tokens
from regrpo_jax.training.train_step import Step, train_step

Array = jax.Array
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class OnlineSettings:
    """The numbers of `core.clipped_loss`.

    Attributes:
      clip_low, clip_high: how far a ratio may fall below 1, and rise above it.
      weight_cap: largest importance weight of a stale rollout, or of one of another engine; None compares those with
        the policy that sampled them, as if they were fresh, and saves a pass over the batch.
      ratio_of: what has a ratio of its own: a "token" or a "branch".
      branch_length: of `clipped_denominator`; None divides by the number of tokens.
      zero_variance: tokens of steps that prefer nothing: "skip" them, or "keep_kl" to hold them near the reference.
    """

    beta: float
    kl_estimator: str
    clip_low: float
    clip_high: float
    weight_cap: float | None
    zero_variance: Literal["skip", "keep_kl"]
    ratio_of: Literal["token", "branch"] = "token"
    branch_length: int | None = None


def online_settings(config: ml_collections.ConfigDict) -> OnlineSettings:
    """The update's numbers from the whole configuration."""
    online = stage_section(config, "online")
    return OnlineSettings(
        beta=online.beta,
        kl_estimator=online.kl_estimator,
        clip_low=online.clip[0],
        clip_high=online.clip[1],
        weight_cap=online.weight_cap,
        zero_variance=online.zero_variance,
        ratio_of=online.ratio_of,
        branch_length=config.agent.episode_tokens if online.divide_by == "budget" else None,
    )


@struct.dataclass
class ScoredBatch:
    """A batch and the constants that its epochs share; other tokens than those of `batch.segments` hold 0.

    Attributes:
      rollouts: the batch.
      reference_logprobs: log pi_ref.  # [group, branch, token]
      proximal_logprobs: log pi_old of stale branches, log mu of the others.  # [group, branch, token]
    """

    rollouts: OnlineBatch
    reference_logprobs: Array
    proximal_logprobs: Array


def online_step(
    functions: PolicyFunctions,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    settings: OnlineSettings,
    *,
    microbatches: int,
    chunk_size: int,
) -> Step:
    """An update on a `ScoredBatch`; see `train_step`."""
    keep_kl = settings.zero_variance == "keep_kl"

    def loss(trainable: Tree, frozen: Tree, rows: Any, denominator: Array, key: Array | None) -> tuple:
        batch = rows.rollouts
        scores = group_scores(
            functions, {**frozen, **trainable}, batch, key, chunk_size=chunk_size
        )  # [group, branch, token]
        reflection, action = batch.segments == Segment.REFLECTION, batch.segments == Segment.ACTION
        value, sums = clipped_loss(
            scores.logprobs,
            rows.reference_logprobs,
            batch.behaviour_logprobs,
            reflection,
            action,
            batch.advantages,
            beta=settings.beta,
            clip_range=(settings.clip_low, settings.clip_high),
            kl_estimator=settings.kl_estimator,
            proximal_logprobs=rows.proximal_logprobs,
            weight_cap=settings.weight_cap,
            ratio_of=settings.ratio_of,
            keep=batch.keep,
            keep_kl=keep_kl,
            denominator=denominator,
        )
        in_loss = batch.keep | keep_kl  # [group, branch, token]
        return value, sums | entropy_sums(scores, reflection & in_loss, action & in_loss) | {"loss": value}

    def denominator(batch: ScoredBatch) -> Array:
        trained = batch.rollouts.segments > 0
        return clipped_denominator(trained, batch.rollouts.keep, keep_kl=keep_kl, branch_length=settings.branch_length)

    def metrics(batch: ScoredBatch, sums: dict[str, Array]) -> dict[str, Array]:
        return finalize_metrics(sums | _step_counts(batch.rollouts)) | _reward_metrics(batch.rollouts)

    return train_step(loss, denominator, metrics, optimizer, mesh, microbatches=microbatches)


def online_update(
    step: Step, score: Scorer, reference: Tree, *, epochs: int, recompute_stale: bool
) -> Callable[[TrainState, Tree, OnlineBatch], tuple[TrainState, dict[str, Array]]]:
    """The update of one `OnlineBatch` on the devices, as the loop of a stage takes it: it counts as one.

    Args:
      step: of `online_step`.
      score: of `scoring.logprob_scorer`.
      reference: variables of the policy as the stage received it. Only what is trained is held twice: with an
        adapter, the weights below it are those that the policy has.
      epochs: optimizer steps taken on a batch.
      recompute_stale: whether stale rollouts get importance weights, `OnlineSettings.weight_cap` is not None.
    Returns:
      (state, frozen, batch) -> (state, metrics); the metrics are means over the epochs.
    """

    def update(state: TrainState, frozen: Tree, batch: OnlineBatch) -> tuple[TrainState, dict[str, Array]]:
        proximal = batch.behaviour_logprobs
        if recompute_stale:
            now = score({**frozen, **state.trainable}, batch)  # before `step` takes the state's memory
            proximal = jnp.where(jnp.asarray(batch.stale)[..., None], now, proximal)
        scored = ScoredBatch(batch, score(reference, batch), proximal)
        number = state.step + 1
        history = []
        for _ in range(epochs):
            state, metrics = step(state, frozen, scored)
            history.append(metrics)
        means = jax.tree.map(lambda *values: sum(values) / epochs, *history)
        return dataclasses.replace(state, step=number), means

    return update


def _step_counts(batch: OnlineBatch) -> dict[str, Array]:
    """A "group" of `finalize_metrics` is here what is compared: the branches that reached one step of one task."""
    reached = jnp.any(batch.reached, axis=1)  # [group, step]
    dropped = zero_variance_steps(batch.rewards, batch.reached)  # [group, step]
    return {
        "groups/kept_count": jnp.sum(reached & ~dropped, dtype=float),
        "groups/dropped_count": jnp.sum(reached & dropped, dtype=float),
    }


def _reward_metrics(batch: OnlineBatch) -> dict[str, Array]:
    """Of the rollouts that are trained, whatever the policy says of them now."""
    steps = jnp.maximum(jnp.sum(batch.reached), 1)
    branches = jnp.any(batch.segments > 0, axis=-1)  # [group, branch]
    return {
        "reward": jnp.sum(jnp.where(batch.reached, batch.rewards, 0.0)) / steps,
        "branches/count": jnp.sum(branches, dtype=float),
        "branches/stale_share": jnp.sum(branches & batch.stale) / jnp.maximum(jnp.sum(branches), 1),
        "tokens": group_tokens(batch),
    }
