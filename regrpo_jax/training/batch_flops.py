"""Floating-point operations of an update, counted on the host from what its batch holds; padding counts for nothing."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np

from regrpo_jax.data.batches import SftBatch
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.flops import Trained, Work, forward_flops, pictures, training_flops
from regrpo_jax.models.inputs import ImagePatches

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Passes:
    """How often an update runs its batch.

    Attributes:
      trained: with a backward pass.
      scored: without one, for the log-probs of references.
    """

    trained: int = 1
    scored: int = 0


ONE_PASS = Passes()


def trained_parts(trainable: Tree) -> Trained:
    """What `state.split_variables` trains, in numbers."""
    adapter = trainable.get("lora", {})
    numbers = {part: sum(array.size for array in jax.tree.leaves(arrays)) for part, arrays in adapter.items()}
    return Trained("params" in trainable, numbers.get("layers", 0), numbers.get("vision", 0))


def update_flops(batch: Any, config: PolicyConfig, trained: Trained, passes: Passes) -> dict[str, float]:
    """ "flops/rows" of an `SftBatch`, "flops/prefix" (its pictures included) and "flops/branches" of groups.

    Args:
      batch: on the host.
    """
    found = {}
    for part, work in batch_work(batch).items():
        forward = forward_flops(config, work, trained)
        flops = passes.trained * training_flops(forward, trained) + passes.scored * forward.total
        found[f"flops/{part}"] = float(flops)
    return found


def batch_work(batch: Any) -> dict[str, Work]:
    """What a pass visits of the rows of an `SftBatch`, or of prefixes and branches; rows that only fill are nothing."""
    if isinstance(batch, SftBatch):
        return {"rows": _rows(batch)}
    lengths = np.count_nonzero(batch.branches.segment_ids, axis=-1)  # [group, branch]
    real = np.any(lengths > 0, axis=-1)  # [group]
    prefixes = np.count_nonzero(batch.prefix.segment_ids, axis=-1) * real  # [group]
    pairs = np.sum(lengths * prefixes[:, None] + _causal(lengths))
    branches = Work(int(lengths.sum()), int(pairs), int(np.count_nonzero(batch.segments)))
    prefix = Work(int(prefixes.sum()), int(_causal(prefixes).sum()))
    return {"prefix": prefix + _pictures(batch.images, real), "branches": branches}


def _rows(batch: SftBatch) -> Work:
    sizes = _segment_sizes(batch.block.segment_ids)
    scored = int(np.count_nonzero(batch.segments[:, 1:]))
    every = np.ones(len(batch.segments), bool)
    return Work(int(sizes.sum()), int(_causal(sizes).sum()), scored) + _pictures(batch.images, every)


def _pictures(images: ImagePatches | None, rows: np.ndarray) -> Work:
    if images is None:
        return Work()
    return pictures(*(_segment_sizes(ids[rows]).tolist() for ids in (images.segment_ids, images.window_ids)))


def _segment_sizes(segment_ids: np.ndarray) -> np.ndarray:
    """How many members each segment of each row has; 0 is padding.  # [segment]"""
    rows = np.arange(len(segment_ids))[:, None] * (int(segment_ids.max(initial=0)) + 1)  # [row, 1]
    return np.unique((rows + segment_ids)[segment_ids > 0], return_counts=True)[1].astype(np.int64)


def _causal(sizes: np.ndarray) -> np.ndarray:
    """Pairs of a token and one that it attends to in sequences of their own."""
    return sizes * (sizes + 1) // 2
