"""What playing episodes asks of the policy: the prefix of a group once, then the tokens of its branches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np

from regrpo_jax.agent.rollout import Label, Rollout, RolloutGroup
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.flops import Trained, Work, branch, forward_flops, pictures, sequence


@dataclasses.dataclass(frozen=True)
class PlayedWork:
    """prefill: of the groups' prefixes and their pictures. decode: of all that came after them, told or sampled; of
    the pictures of observations only the tokens."""

    prefill: Work = Work()
    decode: Work = Work()

    def __add__(self, other: PlayedWork) -> PlayedWork:
        return PlayedWork(self.prefill + other.prefill, self.decode + other.decode)


def played_work(groups: Iterable[RolloutGroup]) -> PlayedWork:
    """Of all episodes of the groups, dropped ones included; an action that was tried again is counted once."""
    found = PlayedWork()
    for group in groups:
        prefix = len(group.prefix) - 1  # its last token leads each branch
        branches = sum((_branch(rollout, prefix) for rollout in group.rollouts), Work())
        found = PlayedWork(found.prefill + sequence(prefix) + _pictures(group), found.decode + branches)
    return found


def play_flops(work: PlayedWork, config: PolicyConfig, trained: Trained) -> dict[str, float]:
    """ "flops/prefill" and "flops/decode" of an update's episodes."""
    parts = {"prefill": work.prefill, "decode": work.decode}
    return {f"flops/{name}": float(forward_flops(config, part, trained).total) for name, part in parts.items()}


def _branch(rollout: Rollout, prefix: int) -> Work:
    sampled = int(np.count_nonzero(rollout.labels >= Label.REFLECTION))
    return branch(len(rollout.tokens), prefix=prefix, scored=sampled)


def _pictures(group: RolloutGroup) -> Work:
    if group.images is None or not group.images.merged_grids:
        return Work()
    windows = np.bincount(group.images.window_ids)[1:]  # from 1
    return pictures(group.images.patch_counts, windows.tolist())
