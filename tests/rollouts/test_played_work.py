"""What playing a group asked of the policy."""

import dataclasses

import numpy as np

from regrpo_jax.agent.rollout import Label, Rollout, RolloutGroup
from regrpo_jax.models.config import tiny
from regrpo_jax.models.flops import Trained, Work, branch, forward_flops, pictures, sequence
from regrpo_jax.rollouts.played_work import PlayedWork, play_flops, played_work


def rollout(labels: list[Label], number: int, *, dropped: bool = False) -> Rollout:
    count = len(labels)
    return Rollout(
        task_id="task",
        group=0,
        branch=number,
        tokens=np.ones(count, np.int32),
        labels=np.array(labels, np.int8),
        logprobs=np.zeros(count, np.float32),
        steps=np.zeros(count, np.int16),
        turns=(),
        step_success=(),
        success=False,
        outcome="",
        dropped=dropped,
    )


@dataclasses.dataclass(frozen=True)
class Packed:
    """What is read of `PackedImages`: one image of 16 patches in windows of 4."""

    merged_grids: tuple[tuple[int, int], ...] = ((2, 2),)
    patch_counts: tuple[int, ...] = (16,)
    window_ids: np.ndarray = dataclasses.field(default_factory=lambda: np.repeat([1, 2, 3, 4], 4))


def group(images: Packed | None) -> RolloutGroup:
    sampled, told = [Label.ACTION] * 5, [Label.OBSERVATION] * 3
    rollouts = (rollout([*sampled, *told, *sampled], 0), rollout([Label.OPENING, *sampled], 1, dropped=True))
    return RolloutGroup(
        0, "task", "", "", np.ones(21, np.int32), np.zeros((21, 3), np.int32), images, (), rollouts
    )  # fmt: skip


def test_a_prefix_runs_once_and_each_token_of_a_branch_once() -> None:
    found = played_work([group(None), group(Packed())])
    decode = branch(13, prefix=20, scored=10) + branch(6, prefix=20, scored=5)
    assert found.prefill == sequence(20) + sequence(20) + pictures([16], [4] * 4)
    assert found.decode == decode + decode
    config = tiny(40)
    assert play_flops(found, config, Trained()) == {
        "flops/prefill": forward_flops(config, found.prefill).total,
        "flops/decode": forward_flops(config, found.decode).total,
    }


def test_nothing_played_is_no_work() -> None:
    assert played_work([]) == PlayedWork(Work(), Work())
