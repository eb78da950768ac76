"""Operations of an update are those of what its batch really holds."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from regrpo_jax.data.batches import GroupBatch, SftBatch
from regrpo_jax.models.flops import Trained, Work
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.training.batch_flops import ONE_PASS, Passes, batch_work, trained_parts, update_flops


def pairs_of(query: np.ndarray, source: np.ndarray, offset: int = 0) -> int:
    """Pairs of the mask that attention builds: same segment, no padding, not later."""
    order = np.arange(len(source)) <= np.arange(len(query))[:, None] + offset
    return int(np.sum((query[:, None] == source) & (query[:, None] > 0) & order))


def padded(block: TokenBlock, width: int, *, left: bool) -> TokenBlock:
    def pad(array: np.ndarray) -> np.ndarray:
        axis = block.tokens.ndim - 1
        sides = [((width, 0) if left else (0, width)) if number == axis else (0, 0) for number in range(array.ndim)]
        return np.pad(array, sides)

    return TokenBlock(*(pad(array) for array in (block.tokens, block.segment_ids, block.positions, block.image_index)))


def test_of_packed_rows(sft_batch: Callable[..., SftBatch]) -> None:
    batch = sft_batch(0, 4)
    ids = batch.block.segment_ids
    expected = Work(
        int(np.sum(ids > 0)), sum(pairs_of(row, row) for row in ids), int(np.sum(batch.segments[:, 1:] > 0))
    )
    assert batch_work(batch) == {"rows": expected}


@pytest.mark.parametrize("images", [False, True])
def test_of_groups(group_batch: Callable[..., GroupBatch], images: bool) -> None:
    batch = group_batch(1, 3, images=images)
    found = batch_work(batch)
    prefixes, branches = batch.prefix.segment_ids, batch.branches.segment_ids
    seen = sum(
        pairs_of(branch, np.concatenate([prefix, branch]), len(prefix))
        for prefix, group in zip(prefixes, branches, strict=True)
        for branch in group
    )
    assert found["branches"] == Work(int(np.sum(branches)), seen, int(np.sum(batch.segments > 0)))
    patches = (3 * 8, 3 * 64, 3 * 64) if images else (0, 0, 0)
    expected = Work(int(np.sum(prefixes)), sum(pairs_of(prefix, prefix) for prefix in prefixes), 0, *patches)
    assert found["prefix"] == expected


def test_padding_and_rows_that_only_fill_are_nothing(group_batch: Callable[..., GroupBatch]) -> None:
    batch = group_batch(1, 3)
    wider = dataclasses.replace(
        batch, prefix=padded(batch.prefix, 7, left=True), branches=padded(batch.branches, 5, left=False)
    )
    assert batch_work(wider) == batch_work(batch)
    first = dataclasses.replace(
        batch,
        branches=dataclasses.replace(batch.branches, segment_ids=batch.branches.segment_ids * [[[1]], [[0]], [[0]]]),
        segments=batch.segments * [[[1]], [[0]], [[0]]],
    )
    alone = TokenBlock(*(array[:1] for array in dataclasses.astuple(batch.prefix)))
    branches = TokenBlock(*(array[:1] for array in dataclasses.astuple(batch.branches)))
    of_one = dataclasses.replace(batch, prefix=alone, branches=branches, segments=batch.segments[:1])
    assert batch_work(first) == batch_work(of_one)


def test_passes_without_gradient_cost_a_third(
    group_batch: Callable[..., GroupBatch], functions: PolicyFunctions
) -> None:
    batch, config = group_batch(1, 3), functions.config
    once = update_flops(batch, config, Trained(), ONE_PASS)
    thrice = update_flops(batch, config, Trained(), Passes(trained=2, scored=3))
    assert set(once) == {"flops/prefix", "flops/branches"}
    assert thrice == {name: pytest.approx(3 * value) for name, value in once.items()}


def test_what_is_trained_is_read_from_the_arrays(variables: dict[str, Any]) -> None:
    assert trained_parts(variables) == Trained(weights=True)
    adapter = {"layers": {"q_proj": {"down": np.zeros((2, 8, 4)), "up": np.zeros((2, 4, 8))}}}
    tower = {"vision": {"blocks": {"qkv": {"down": np.zeros((1, 6, 2))}}}}
    assert trained_parts({"lora": adapter | tower}) == Trained(False, 128, 12)
