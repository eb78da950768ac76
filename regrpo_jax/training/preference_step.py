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
from regrpo_jax.training.steps import entropy_sums, group_scores, group_tokens
from regrpo_jax.training.train_step import Step, train_step

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
    """An update on a `GroupBatch` of pairs, chosen branch first; `beta` of `core.preference_loss`. See `train_step`."""

    def loss(trainable: Tree, frozen: Tree, batch: GroupBatch, denominator: Array, key: Array | None) -> tuple:
        scores = group_scores(
            functions, {**frozen, **trainable}, batch, key, chunk_size=chunk_size
        )  # [pair, side, token]
        value, sums = preference_loss(
            scores.logprobs, batch.reference_logprobs, batch.segments > 0, beta=beta, denominator=denominator
        )
        reflection, action = batch.segments == Segment.REFLECTION, batch.segments == Segment.ACTION
        logprobs = jax.lax.stop_gradient(scores.logprobs)  # [pair, side, token]
        sums |= segment_sums("action", action, logprob=logprobs) | entropy_sums(scores, reflection, action)
        return value, sums | {"loss": value}

    return train_step(
        loss,
        lambda batch: jnp.asarray(batch.targets.shape[0]),
        lambda batch, sums: finalize_metrics(sums) | {"tokens": group_tokens(batch)},
        optimizer,
        mesh,
        microbatches=microbatches,
        dropout_key=dropout_key,
    )
