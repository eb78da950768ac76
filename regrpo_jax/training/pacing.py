"""What a curriculum sees of training: how well the policy does at each update, which decides what it learns from next.

sft: how sure the policy is of the recorded reflections, the geometric mean of their tokens' probabilities. The actions
are left out, because most of them belong to clean examples, which no curriculum orders.

rl: the share of groups in which the policy holds the best recovery to be likelier than everything that fails. This is
measured before the update and with nothing dropped, which costs one more pass over the batch without a gradient.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from regrpo_jax.data.batches import GroupBatch
from regrpo_jax.data.curriculum import Curriculum, Pacer
from regrpo_jax.records.candidates import GROUP_LABELS
from regrpo_jax.training.state import TrainState
from regrpo_jax.training.steps import RegrpoSettings, rewards_and_advantages
from regrpo_jax.training.train_step import Step

Array = jax.Array
Tree = dict[str, Any]
RECOVERIES = ("reflect_correct", "retry_correct")


def stage_pacer(data: ml_collections.ConfigDict, *, updates: int) -> Pacer | None:
    """What decides how much of a stage's data is in play; None where all of it always is."""
    if data.curriculum == "none":
        return None
    (start, full), (threshold, window) = data.curriculum_pace, data.curriculum_success
    return Pacer(
        Curriculum(
            kind=data.curriculum,
            start=start,
            full=full,
            threshold=threshold,
            window=window,
            updates=updates,
        )
    )


def paced(step: Step, pacer: Pacer, success: Callable[[dict[str, Any]], tuple[Any, Any]] | None) -> Step:
    """The step, with the pacer's metrics of the batch; the pacer is told of the update's success, if it asks for it.

    Args:
      success: a step's metrics -> (mean success, number of things it is the mean of), both scalars.
    """

    def run(state: TrainState, frozen: Tree, batch: Any) -> tuple[TrainState, dict[str, Any]]:
        state, metrics = step(state, frozen, batch)
        if success is not None:
            pacer.observe(*success(metrics))
        return state, metrics | pacer.metrics

    return run


def reflection_confidence(metrics: dict[str, Any]) -> tuple[Array, Array]:
    """Success of a supervised update, and the reflection tokens that it was measured on."""
    return jnp.exp(metrics["reflection/logprob"]), metrics["reflection/token_count"]


def ranking(step: Step, score: Callable[[Tree, GroupBatch], Array], settings: RegrpoSettings) -> Step:
    """The step, with the metric "groups/recovery_first": the share of groups that are ranked right before it.

    Args:
      score: (variables, batch) -> log-probs of the branches' tokens.  # [group, branch, token]
    """

    @jax.jit
    def share(logprobs: Array, batch: GroupBatch) -> Array:
        rewards, _ = rewards_and_advantages(batch, settings)
        return jnp.mean(recovery_first(logprobs, batch, rewards))

    def run(state: TrainState, frozen: Tree, batch: GroupBatch) -> tuple[TrainState, dict[str, Any]]:
        measured = share(score({**frozen, **state.trainable}, batch), batch)  # before `step` takes the state's memory
        state, metrics = step(state, frozen, batch)
        return state, metrics | {"groups/recovery_first": measured}

    return run


def recovery_first(logprobs: Array, batch: GroupBatch, rewards: Array) -> Array:
    """Whether the best-rewarded recovery has a higher mean token log-prob than every branch that fails.

    Args:
      logprobs: log pi, 0 at unscored tokens.  # [group, branch, token]
      batch: branches in the order of `GROUP_LABELS`.
      rewards: R.  # [group, branch]
    Returns:
      bool, false for a group without a recovery that succeeds.  # [group]
    """
    means = jnp.sum(logprobs, axis=-1) / jnp.maximum(jnp.sum(batch.segments > 0, axis=-1), 1)  # [group, branch]
    recovers = jnp.array([label in RECOVERIES for label in GROUP_LABELS]) & batch.success  # [group, branch]
    best = jnp.argmax(jnp.where(recovers, rewards, -jnp.inf), axis=-1)  # [group]
    chosen = jnp.take_along_axis(means, best[:, None], axis=-1)[:, 0]  # [group]
    failing = jnp.max(jnp.where(batch.success, -jnp.inf, means), axis=-1)  # [group]
    return jnp.any(recovers, axis=-1) & (chosen > failing)
