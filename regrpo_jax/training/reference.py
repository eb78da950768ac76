"""Log-probs of the policy as a stage received it: offline they are constants, so they are computed once."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from regrpo_jax.data.batches import collate_groups, padded_shape
from regrpo_jax.data.groups import Group
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.metrics import StageProgress
from regrpo_jax.training.parallel import row_shards, shard_batch
from regrpo_jax.training.scoring import Scorer, logprob_scorer

Tree = dict[str, Any]


def reference_logprobs(
    context: RunContext, variables: Tree, groups: Sequence[Group], *, at_once: int, microbatches: int
) -> list[np.ndarray]:
    """log pi_ref of every group, computed once: offline they are constants.  # per group [branch, token]

    Only groups that are padded alike share a pass. So a group's log-probs do not depend on which others there are, and
    a stage that is given more updates goes on with the numbers that it had.

    Args:
      at_once: groups of a pass, or a few more where the devices and microbatches want it.
      microbatches: parts that each device visits one after another, as the stage's updates do.
    """
    buckets = {name: context.config.data[name] for name in ("prefix_buckets", "branch_buckets")}
    score = scorer(context, microbatches)
    share = row_shards(context.mesh) * microbatches
    rows = -(-at_once // share) * share
    shapes = [padded_shape(group, **buckets) for group in groups]
    scored: list[np.ndarray] = [np.zeros((0, 0))] * len(groups)
    with StageProgress("reference", len(groups)) as progress:
        for chosen in _alike(shapes, rows):
            padded = (chosen * rows)[:rows]
            batch = collate_groups(
                [groups[index] for index in padded],
                [np.zeros((len(groups[index].branches), 0), np.float32) for index in padded],
                image_token_id=context.image_token_id,
                **buckets,
            )
            logprobs = np.asarray(score(variables, shard_batch(batch, context.mesh)))
            for row, index in enumerate(chosen):
                longest = max(len(branch.tokens) for branch in groups[index].branches)
                scored[index] = logprobs[row, :, :longest]
            progress.advance(len(chosen), "log-probs of the frozen reference")
    return scored


def _alike(shapes: Sequence[tuple[int, ...]], most: int) -> Iterator[list[int]]:
    """The indices of equal shapes, at most so many at a time."""
    order = sorted(range(len(shapes)), key=lambda index: shapes[index])
    for _, members in itertools.groupby(order, key=lambda index: shapes[index]):
        together = list(members)
        yield from (together[start : start + most] for start in range(0, len(together), most))


def scorer(context: RunContext, microbatches: int) -> Scorer:
    """Log-probs of groups under the policy, on the devices of the run."""
    return logprob_scorer(context.functions, context.mesh, microbatches=microbatches, chunk_size=context.logprob_chunk)
