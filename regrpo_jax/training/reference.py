"""Log-probs of the policy as a stage received it: offline they are constants, so they are computed once."""

import hashlib
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from regrpo_jax.data.batches import collate_groups, padded_shape
from regrpo_jax.data.groups import Group
from regrpo_jax.hosts.agreement import all_hold, told_by_first
from regrpo_jax.hosts.role import role
from regrpo_jax.models.process_arrays import fetched
from regrpo_jax.training.digest import digest_of
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.metrics import StageProgress
from regrpo_jax.training.parallel import row_shards, rows_here, shard_batch
from regrpo_jax.training.scoring import Scorer, logprob_scorer
from regrpo_jax.training.stored_reference import StoredReference, group_digest

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
    scored = dict(_scored(context, variables, groups, at_once, microbatches))
    return [scored[index] for index in range(len(groups))]


def kept_reference_logprobs(
    context: RunContext, stage: str, variables: Tree, groups: Sequence[Group], *, at_once: int, microbatches: int
) -> list[np.ndarray]:
    """The same, read from the run's folder where an earlier start computed them; what is computed now is kept there.

    Args:
      stage: whose reference it is.
    """
    settings = (context.functions.config, context.image_token_id, sorted(_buckets(context).items()))
    words = hashlib.sha256(repr(settings).encode()).hexdigest()
    stored = StoredReference(context.workdir / "reference" / f"{stage}.npz", f"{digest_of(variables)}-{words}")
    known, digests = stored.read(), [group_digest(group) for group in groups]
    known = _known_to_all(stage, known)
    missing = {digest: group for digest, group in zip(digests, groups, strict=True) if digest not in known}
    names, written = list(missing), time.monotonic()
    try:
        for index, logprobs in _scored(context, variables, list(missing.values()), at_once, microbatches):
            known[names[index]] = logprobs
            if role().writes and time.monotonic() - written > 60 * context.config.checkpoint.minutes:
                stored.write(known)
                written = time.monotonic()
    finally:  # also when the process is told to end
        if missing and role().writes:
            stored.write(known)
    return [known[digest] for digest in digests]


def _known_to_all(stage: str, known: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What was read; nothing where not all processes have read the same, because they compute the rest together."""
    names = hashlib.sha256("".join(sorted(known)).encode()).hexdigest()
    same = told_by_first(f"reference of {stage}", names) == names
    return known if all_hold(f"reference of {stage}", same) else {}


def _buckets(context: RunContext) -> dict[str, Sequence[int]]:
    return {name: context.config.data[name] for name in ("prefix_buckets", "branch_buckets")}


def _scored(
    context: RunContext, variables: Tree, groups: Sequence[Group], at_once: int, microbatches: int
) -> Iterator[tuple[int, np.ndarray]]:
    """(index of a group, its log-probs [branch, token]), in the order of the passes."""
    if not groups:
        return
    buckets = _buckets(context)
    score = scorer(context, microbatches)
    share = row_shards(context.mesh) * microbatches
    rows = -(-at_once // share) * share
    here = rows_here(context.mesh, rows)
    shapes = [padded_shape(group, **buckets) for group in groups]
    with StageProgress("reference", len(groups)) as progress:
        for chosen in _alike(shapes, rows):
            padded = (chosen * rows)[:rows]
            batch = collate_groups(
                [groups[index] for index in padded],
                [np.zeros((len(groups[index].branches), 0), np.float32) for index in padded],
                image_token_id=context.image_token_id,
                rows=here,
                **buckets,
            )
            logprobs = fetched(score(variables, shard_batch(batch, context.mesh)))
            for row, index in enumerate(chosen):
                longest = max(len(branch.tokens) for branch in groups[index].branches)
                yield index, logprobs[row, :, :longest]
            progress.advance(len(chosen), "log-probs of the frozen reference")


def _alike(shapes: Sequence[tuple[int, ...]], most: int) -> Iterator[list[int]]:
    """The indices of equal shapes, at most so many at a time."""
    order = sorted(range(len(shapes)), key=lambda index: shapes[index])
    for _, members in itertools.groupby(order, key=lambda index: shapes[index]):
        together = list(members)
        yield from (together[start : start + most] for start in range(0, len(together), most))


def scorer(context: RunContext, microbatches: int) -> Scorer:
    """Log-probs of groups under the policy, on the devices of the run."""
    return logprob_scorer(context.functions, context.mesh, microbatches=microbatches, chunk_size=context.logprob_chunk)
