"""The two train steps, pure functions of (state, frozen weights, batch): supervised warm start and ReGRPO."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from regrpo_jax.core.advantages import group_advantages, two_stream_advantages, zero_variance_groups
from regrpo_jax.core.losses import branch_denominator, regrpo_loss, sft_loss, token_denominator
from regrpo_jax.core.metrics import finalize_metrics
from regrpo_jax.core.rewards import trajectory_reward
from regrpo_jax.data.batches import GroupBatch, SftBatch
from regrpo_jax.data.chat import Segment
from regrpo_jax.models.logprobs import token_logprobs
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.training.parallel import parallel_gradient
from regrpo_jax.training.state import TrainState

Array = jax.Array
Tree = dict[str, Any]
Step = Callable[[TrainState, Tree, Any], tuple[TrainState, dict[str, Array]]]


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


def sft_step(
    functions: PolicyFunctions,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    microbatches: int,
    chunk_size: int,
) -> Step:
    """A jitted supervised update on an `SftBatch`; the state is donated."""

    def loss(trainable: Tree, frozen: Tree, batch: SftBatch, denominator: Array) -> tuple[Array, dict]:
        variables = {**frozen, **trainable}
        hidden, _ = functions.run_prefix(variables, batch.block, batch.images)  # [row, token, hidden]
        reflection, action = _sft_masks(batch)
        logprobs = token_logprobs(
            hidden[:, :-1],
            functions.head(variables),
            batch.block.tokens[:, 1:],
            reflection | action,
            chunk_size=chunk_size,
        )
        value, sums = sft_loss(logprobs, reflection, action, denominator=denominator)
        return value, sums | {"loss": value}

    gradient_of = parallel_gradient(loss, mesh, microbatches=microbatches)

    def step(state: TrainState, frozen: Tree, batch: SftBatch) -> tuple[TrainState, dict[str, Array]]:
        denominator = token_denominator(*_sft_masks(batch))
        gradient, sums = gradient_of(state.trainable, frozen, batch, denominator)
        metrics = finalize_metrics(sums) | {"tokens": jnp.sum(batch.block.segment_ids > 0)}
        return _updated(state, gradient, optimizer, metrics)

    return jax.jit(step, donate_argnums=0)


def group_logprobs(functions: PolicyFunctions, variables: Tree, batch: GroupBatch, *, chunk_size: int) -> Array:
    """log pi of every scored branch token, 0 elsewhere: the prefix is run once per group.  # [group, branch, token]"""
    _, cache = functions.run_prefix(variables, batch.prefix, batch.images)
    hidden = functions.run_branches(variables, batch.branches, cache)  # [group, branch, token, hidden]
    return token_logprobs(hidden, functions.head(variables), batch.targets, batch.segments > 0, chunk_size=chunk_size)


def regrpo_step(
    functions: PolicyFunctions,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    settings: RegrpoSettings,
    *,
    microbatches: int,
    chunk_size: int,
) -> Step:
    """A jitted ReGRPO update on a `GroupBatch`; the state is donated."""

    def loss(trainable: Tree, frozen: Tree, rows: tuple, denominator: Array) -> tuple[Array, dict]:
        batch, advantages, keep = rows
        logprobs = group_logprobs(functions, {**frozen, **trainable}, batch, chunk_size=chunk_size)
        value, sums = regrpo_loss(
            logprobs,
            batch.reference_logprobs,
            batch.segments == Segment.REFLECTION,
            batch.segments == Segment.ACTION,
            advantages,
            beta=settings.beta,
            kl_estimator=settings.kl_estimator,
            length_normalize=settings.length_normalize,
            group_keep=keep,
            keep_kl=settings.zero_variance == "keep_kl",
            denominator=denominator,
        )
        action = batch.segments == Segment.ACTION
        per_branch = {
            "branch/action_logprob_sum": jnp.sum(jnp.where(action, logprobs, 0.0), axis=(0, 2)),
            "branch/action_token_count": jnp.sum(action, axis=(0, 2)).astype(logprobs.dtype),
        }
        return value, sums | {"loss": value} | jax.lax.stop_gradient(per_branch)

    gradient_of = parallel_gradient(loss, mesh, microbatches=microbatches)

    def step(state: TrainState, frozen: Tree, batch: GroupBatch) -> tuple[TrainState, dict[str, Array]]:
        rewards, advantages = rewards_and_advantages(batch, settings)
        keep = ~zero_variance_groups(advantages)
        denominator = branch_denominator(
            jnp.ones(rewards.shape, bool), keep, keep_kl=settings.zero_variance == "keep_kl"
        )
        gradient, sums = gradient_of(state.trainable, frozen, (batch, advantages, keep), denominator)
        metrics = finalize_metrics({name: value for name, value in sums.items() if not name.startswith("branch/")})
        metrics |= {
            "reward": jnp.mean(rewards),
            "reward_std": jnp.mean(jnp.std(rewards, axis=-1)),
            "tokens": jnp.sum(batch.prefix.segment_ids > 0) + jnp.sum(batch.branches.segment_ids > 0),
            "branch/action_logprob": sums["branch/action_logprob_sum"]
            / jnp.maximum(sums["branch/action_token_count"], 1),
        }
        return _updated(state, gradient, optimizer, metrics)

    return jax.jit(step, donate_argnums=0)


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


def _updated(
    state: TrainState, gradient: Tree, optimizer: optax.GradientTransformation, metrics: dict[str, Array]
) -> tuple[TrainState, dict[str, Array]]:
    updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    metrics["gradient_norm"] = optax.global_norm(gradient)
    return TrainState(state.step + 1, trainable, optimizer_state), metrics
