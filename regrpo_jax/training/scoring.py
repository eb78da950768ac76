"""Log-probs of a batch under a policy, with nothing dropped and no gradient: of references, and of stale rollouts."""

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.sharding import fsdp_specs
from regrpo_jax.training.parallel import ROWS, over_rows
from regrpo_jax.training.steps import group_logprobs

Array = jax.Array
Tree = dict[str, Any]
Scorer = Callable[[Tree, Any], Array]


def logprob_scorer(functions: PolicyFunctions, mesh: Mesh, *, microbatches: int, chunk_size: int) -> Scorer:
    """Jitted (variables, `GroupBatch` or `OnlineBatch` on the devices) -> log pi of every scored token.

    Args:
      microbatches: each device's groups are visited in this many parts, as an update visits them, so that what can be
        trained on can be scored.
    Returns:
      the scorer; its log-probs are 0 at other tokens.  # [group, branch, token]
    """

    def of_shard(variables: Tree, batch: Any) -> Array:
        def of_part(part: Any) -> Array:
            return group_logprobs(functions, variables, part, chunk_size=chunk_size)

        parts = jax.tree.map(lambda x: x.reshape(microbatches, -1, *x.shape[1:]), batch)
        logprobs = jax.lax.map(of_part, parts)  # [part, group, branch, token]
        return logprobs.reshape(batch.segments.shape)

    def score(variables: Tree, batch: Any) -> Array:
        split = over_rows(of_shard, mesh, in_specs=(fsdp_specs(variables, mesh), ROWS), out_specs=ROWS)
        return split(variables, batch)

    return jax.jit(score)
