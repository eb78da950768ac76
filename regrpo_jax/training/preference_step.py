"""An update by direct preference optimisation, on groups of two branches; see `data.preference_pairs`."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from regrpo_jax.core.metrics import finalize_metrics, segment_sums
from regrpo_jax.core.preference_loss import preference_loss
from regrpo_jax.data.batches import GroupBatch
from regrpo_jax.data.chat import Segment
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.training.parallel import parallel_gradient, weight_axis
from regrpo_jax.training.state import TrainState
from regrpo_jax.training.steps import Step, entropy_sums, group_scores, key_of, updated_state

Array = jax.Array
Tree = dict[str, Any]


def preference_step(
    functions: PolicyFunctions,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    beta: float,
    microbatches: int,
    chunk_size: int,
    dropout_key: Array | None = None,
) -> Step:
    """A jitted update on a `GroupBatch` of pairs, chosen branch first; the state is donated.

    Args:
      beta: of `core.preference_loss`.
      dropout_key: as in `steps.sft_step`.
    """

    def loss(trainable: Tree, frozen: Tree, batch: GroupBatch, denominator: Array, key: Array | None) -> tuple:
        scores = group_scores(
            functions, {**frozen, **trainable}, batch, key, chunk_size=chunk_size, vocabulary_axis=weight_axis(mesh)
        )  # [pair, side, token]
        value, sums = preference_loss(
            scores.logprobs, batch.reference_logprobs, batch.segments > 0, beta=beta, denominator=denominator
        )
        reflection, action = batch.segments == Segment.REFLECTION, batch.segments == Segment.ACTION
        logprobs = jax.lax.stop_gradient(scores.logprobs)  # [pair, side, token]
        sums |= segment_sums("action", action, logprob=logprobs) | entropy_sums(scores, reflection, action)
        return value, sums | {"loss": value}

    gradient_of = parallel_gradient(loss, mesh, microbatches=microbatches)

    def step(state: TrainState, frozen: Tree, batch: GroupBatch) -> tuple[TrainState, dict[str, Array]]:
        pairs = jnp.asarray(batch.targets.shape[0])
        gradient, sums = gradient_of(state.trainable, frozen, batch, pairs, key_of(state, dropout_key))
        tokens = jnp.sum(batch.prefix.segment_ids > 0) + jnp.sum(batch.branches.segment_ids > 0)
        return updated_state(state, gradient, optimizer, finalize_metrics(sums) | {"tokens": tokens}, mesh)

    return jax.jit(step, donate_argnums=0)
