"""The one update that every stage takes; what they differ in is their loss, and what it is divided by."""

from collections.abc import Callable
from typing import Any

import jax
import optax
from jax.sharding import Mesh

from regrpo_jax.models.sharding import param_shardings
from regrpo_jax.training.parallel import Loss, parallel_gradient
from regrpo_jax.training.state import TrainState

Array = jax.Array
Tree = dict[str, Any]
Step = Callable[[TrainState, Tree, Any], tuple[TrainState, dict[str, Array]]]


def train_step(
    loss: Loss,
    denominator: Callable[[Any], Array],
    metrics: Callable[[Any, dict[str, Array]], dict[str, Array]],
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    microbatches: int,
    dropout_key: Array | None = None,
    rows_of: Callable[[Any], Any] = lambda batch: batch,
) -> Step:
    """A jitted update; the state is donated.

    Args:
      loss: see `parallel.Loss`; it is given a part of the rows and the denominator of all of them.
      denominator: the rows of a whole batch -> what their loss is divided by, a scalar.
      metrics: (rows of a whole batch, sums that the loss returned) -> metrics.
      microbatches: parts that the rows of a device are visited in.
      dropout_key: of the stage; each update derives its own from it. None drops nothing.
      rows_of: a batch -> its rows, with what has to be known of the whole batch beside them.
    """
    gradient_of = parallel_gradient(loss, mesh, microbatches=microbatches)

    def step(state: TrainState, frozen: Tree, batch: Any) -> tuple[TrainState, dict[str, Array]]:
        rows = rows_of(batch)
        # A function of the update's number, so that a resumed run drops the same.
        key = None if dropout_key is None else jax.random.fold_in(dropout_key, state.step)
        gradient, sums = gradient_of(state.trainable, frozen, rows, denominator(rows), key)
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.trainable)
        updated = TrainState(state.step + 1, optax.apply_updates(state.trainable, updates), optimizer_state)
        updated = jax.lax.with_sharding_constraint(updated, param_shardings(updated, mesh))
        return updated, metrics(rows, sums) | {"gradient_norm": optax.global_norm(gradient)}

    return jax.jit(step, donate_argnums=0)
