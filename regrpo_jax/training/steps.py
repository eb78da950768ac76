"""The updates on recorded examples: supervised warm start and ReGRPO."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import ml_collections
import optax
from jax.sharding import Mesh

from regrpo_jax.core.advantages import group_advantages, two_stream_advantages, zero_variance_groups
from regrpo_jax.core.losses import branch_denominator, regrpo_loss, sft_loss, token_denominator
from regrpo_jax.core.metrics import finalize_metrics, segment_sums
from regrpo_jax.core.rewards import trajectory_reward
from regrpo_jax.data.batches import GroupBatch, SftBatch
from regrpo_jax.data.chat import Segment
from regrpo_jax.models.logprobs import TokenScores, token_scores
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.training.train_step import Step, train_step

Array = jax.Array
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RegrpoSettings:
    """The numbers of the ReGRPO objective; see `core` for their equations and `base_config` for their defaults."""

    lambda_exec: float
    eta: float
    lambda_val: float
    beta: float
    kl_estimator: str
    baseline: str
    normalize_advantages: bool
    advantage_clip: float | None
    two_stream_alpha: float | None
    length_normalize: bool
    zero_variance: Literal["skip", "keep_kl"]


def regrpo_settings(rl: ml_collections.ConfigDict) -> RegrpoSettings:
    """The objective's numbers from `config.rl`."""
    return RegrpoSettings(
        lambda_exec=rl.lambda_exec,
        eta=rl.eta,
        lambda_val=rl.lambda_val,
        beta=rl.beta,
        kl_estimator=rl.kl_estimator,
        baseline=rl.baseline,
        normalize_advantages=rl.normalize_advantages,
        advantage_clip=rl.advantage_clip,
        two_stream_alpha=rl.two_stream_alpha,
        length_normalize=rl.length_normalize,
        zero_variance=rl.zero_variance,
    )


def sft_step(
    functions: PolicyFunctions,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    microbatches: int,
    chunk_size: int,
    dropout_key: Array | None = None,
) -> Step:
    """A supervised update on an `SftBatch`; see `train_step`."""

    def loss(trainable: Tree, frozen: Tree, batch: SftBatch, denominator: Array, key: Array | None) -> tuple:
        variables = {**frozen, **trainable}
        hidden, _ = functions.run_prefix(variables, batch.block, batch.images, dropout_key=key)
        reflection, action = _sft_masks(batch)
        scores = token_scores(
            hidden[:, :-1],  # [row, token - 1, hidden]
            functions.head(variables),
            batch.block.tokens[:, 1:],
            reflection | action,
            chunk_size=chunk_size,
            vocab_size=functions.config.vocab_size,
        )  # [row, token - 1]
        value, sums = sft_loss(scores.logprobs, reflection, action, denominator=denominator)
        return value, sums | entropy_sums(scores, reflection, action) | {"loss": value}

    def metrics(batch: SftBatch, sums: dict[str, Array]) -> dict[str, Array]:
        return finalize_metrics(sums) | {"tokens": jnp.sum(batch.block.segment_ids > 0)}

    return train_step(
        loss,
        lambda batch: token_denominator(*_sft_masks(batch)),
        metrics,
        optimizer,
        mesh,
        microbatches=microbatches,
        dropout_key=dropout_key,
    )


def group_logprobs(
    functions: PolicyFunctions,
    variables: Tree,
    batch: GroupBatch,
    *,
    chunk_size: int,
) -> Array:
    """The log-probs of `group_scores` alone, with nothing dropped.  # [group, branch, token]"""
    scores = group_scores(functions, variables, batch, None, chunk_size=chunk_size)
    return scores.logprobs


def group_scores(
    functions: PolicyFunctions,
    variables: Tree,
    batch: GroupBatch,
    dropout_key: Array | None,
    *,
    chunk_size: int,
) -> TokenScores:
    """log pi and entropy of every scored branch token, 0 elsewhere, [group, branch, token]: one prefix per group."""
    prefix_key, branch_key = (None, None) if dropout_key is None else jax.random.split(dropout_key)
    _, cache = functions.run_prefix(variables, batch.prefix, batch.images, dropout_key=prefix_key)
    hidden = functions.run_branches(variables, batch.branches, cache, dropout_key=branch_key)
    return token_scores(
        hidden,  # [group, branch, token, hidden]
        functions.head(variables),
        batch.targets,
        batch.segments > 0,
        chunk_size=chunk_size,
        vocab_size=functions.config.vocab_size,
    )


def regrpo_step(
    functions: PolicyFunctions,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    settings: RegrpoSettings,
    *,
    microbatches: int,
    chunk_size: int,
    dropout_key: Array | None = None,
) -> Step:
    """A ReGRPO update on a `GroupBatch`; see `train_step`."""
    keep_kl = settings.zero_variance == "keep_kl"

    def loss(trainable: Tree, frozen: Tree, rows: tuple, denominator: Array, key: Array | None) -> tuple:
        batch, _, advantages, keep = rows
        variables = {**frozen, **trainable}
        scores = group_scores(functions, variables, batch, key, chunk_size=chunk_size)  # [group, branch, token]
        reflection, action = batch.segments == Segment.REFLECTION, batch.segments == Segment.ACTION
        value, sums = regrpo_loss(
            scores.logprobs,
            batch.reference_logprobs,
            reflection,
            action,
            advantages,
            beta=settings.beta,
            kl_estimator=settings.kl_estimator,
            length_normalize=settings.length_normalize,
            group_keep=keep,
            keep_kl=keep_kl,
            denominator=denominator,
        )
        in_loss = keep[:, None, None] | keep_kl  # [group, 1, 1]
        sums |= entropy_sums(scores, reflection & in_loss, action & in_loss)
        per_branch = {
            "branch/action_logprob_sum": jnp.sum(jnp.where(action, scores.logprobs, 0.0), axis=(0, 2)),
            "branch/action_token_count": jnp.sum(action, axis=(0, 2)).astype(scores.logprobs.dtype),
        }
        return value, sums | {"loss": value} | jax.lax.stop_gradient(per_branch)

    def rows_of(batch: GroupBatch) -> tuple:
        rewards, advantages = rewards_and_advantages(batch, settings)
        return batch, rewards, advantages, ~zero_variance_groups(advantages)

    def denominator(rows: tuple) -> Array:
        _, rewards, _, keep = rows
        return branch_denominator(jnp.ones(rewards.shape, bool), keep, keep_kl=keep_kl)

    def metrics(rows: tuple, sums: dict[str, Array]) -> dict[str, Array]:
        batch, rewards, _, _ = rows
        means = finalize_metrics({name: value for name, value in sums.items() if not name.startswith("branch/")})
        return means | {
            "reward": jnp.mean(rewards),
            "reward_std": jnp.mean(jnp.std(rewards, axis=-1)),
            "tokens": group_tokens(batch),
            "branch/action_logprob": sums["branch/action_logprob_sum"]
            / jnp.maximum(sums["branch/action_token_count"], 1),
        }

    return train_step(
        loss,
        denominator,
        metrics,
        optimizer,
        mesh,
        microbatches=microbatches,
        dropout_key=dropout_key,
        rows_of=rows_of,
    )


def group_tokens(batch: Any) -> Array:
    """Tokens that a batch of prefixes and branches feeds, padding left out."""
    return jnp.sum(batch.prefix.segment_ids > 0) + jnp.sum(batch.branches.segment_ids > 0)


def rewards_and_advantages(batch: GroupBatch, settings: RegrpoSettings) -> tuple[Array, Array]:
    """R and A of a batch's branches, both [group, branch]."""
    reflection_tokens = jnp.sum(batch.segments == Segment.REFLECTION, axis=-1)  # [group, branch]

    def rewards_at(lambda_val: float) -> Array:
        return trajectory_reward(
            batch.success,
            reflection_tokens,
            batch.verifier_value,
            lambda_exec=settings.lambda_exec,
            eta=settings.eta,
            lambda_val=lambda_val,
        )

    rewards = rewards_at(settings.lambda_val)  # [group, branch]
    if settings.two_stream_alpha is not None:
        return rewards, two_stream_advantages(
            rewards_at(0.0),
            settings.lambda_val * batch.verifier_value,
            alpha=settings.two_stream_alpha,
            normalize=settings.normalize_advantages,
            clip_range=settings.advantage_clip,
        )
    return rewards, group_advantages(
        rewards,
        baseline=settings.baseline,
        normalize=settings.normalize_advantages,
        clip_range=settings.advantage_clip,
    )


def _sft_masks(batch: SftBatch) -> tuple[Array, Array]:
    """Reflection and action masks of the predicted tokens, both [row, token - 1]."""
    segments = batch.segments[:, 1:]
    return segments == Segment.REFLECTION, segments == Segment.ACTION


def entropy_sums(scores: TokenScores, reflection: Array, action: Array) -> dict[str, Array]:
    """Watched, never trained: a policy that collapses shows it here first."""
    entropies = jax.lax.stop_gradient(scores.entropies)  # [.., token]
    return segment_sums("reflection", reflection, entropy=entropies) | segment_sums("action", action, entropy=entropies)
