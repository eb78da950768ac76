"""Where tokens of prefix and branches stand, against `get_rope_index` of the whole conversation in one sequence."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from regrpo_jax.data.batches import collate_groups
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import PackedImages
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.rollouts.waiting_tokens import waiting_tokens
from tests.parity.conftest import IMAGE_TOKEN, MERGE, make_image

LAYOUTS = 300
Grid = tuple[int, int]
Piece = int | Grid


def made_up(chance: random.Random, images: int) -> list[Piece]:
    """Text and so many images in turn; templates put at least a token between two images."""
    pieces: list[Piece] = [chance.randint(1, 9)]
    for _ in range(images):
        pieces += [(chance.randint(1, 6), chance.randint(1, 6)), chance.randint(1, 9)]
    return pieces


def tokens_of(pieces: Sequence[Piece]) -> np.ndarray:
    parts = [
        np.full(piece[0] * piece[1], IMAGE_TOKEN) if isinstance(piece, tuple) else np.full(piece, 7) for piece in pieces
    ]
    return np.concatenate(parts).astype(np.int32)


def grids_of(pieces: Sequence[Piece]) -> list[Grid]:
    return [piece for piece in pieces if isinstance(piece, tuple)]


def packed(grids: Sequence[Grid]) -> PackedImages:
    """Images of one number a patch; only where they stand matters."""
    counts = [MERGE**2 * rows * columns for rows, columns in grids]
    owner = np.repeat(np.arange(1, len(grids) + 1, dtype=np.int32), counts)
    places = np.zeros((sum(counts), 2), np.int32)
    return PackedImages(np.zeros((sum(counts), 1), np.float32), places, owner, owner, tuple(grids))


def theirs(model: Any, tokens: np.ndarray, grids: Sequence[Grid]) -> tuple[np.ndarray, int]:
    """Positions of the whole sequence [token, 3], and of the token that comes after it."""
    ids = torch.tensor(tokens[None], dtype=torch.long)
    thw = torch.tensor([(1, MERGE * rows, MERGE * columns) for rows, columns in grids]) if grids else None
    places, delta = model.get_rope_index(ids, (ids == IMAGE_TOKEN).int(), image_grid_thw=thw)
    return places[:, 0].T.numpy(), len(tokens) + int(delta[0, 0])


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_positions_are_those_of_the_whole_sequence(twins: Callable[..., Any], family: str) -> None:
    model = twins(family).theirs.model
    seen = {"no image in the prefix": 0, "no image in a branch": 0, "several": 0, "cut before its image": 0}
    for number in range(LAYOUTS):
        chance = random.Random(f"{family}/{number}")
        # One conversation cut somewhere in a text, then other branches after the same prefix.
        whole = made_up(chance, chance.randint(0, 5))
        cut = 2 * chance.randrange(len(whole) // 2 + 1)
        length = whole[cut]
        assert isinstance(length, int)
        first = chance.randint(1, length)
        prefix = [*whole[:cut], first]
        rest: list[Piece] = [*([length - first] if length > first else []), *whole[cut + 1 :]]
        branches = [rest or [1], *(made_up(chance, chance.randint(0, 4)) for _ in range(2))]
        seen["no image in the prefix"] += not grids_of(prefix)
        seen["no image in a branch"] += any(not grids_of(branch) for branch in branches)
        seen["several"] += any(len(grids_of(branch)) > 1 for branch in branches)
        seen["cut before its image"] += isinstance(branches[0][0], tuple)
        check_group(chance, model, prefix, branches)
    assert min(seen.values()) > LAYOUTS // 20, seen


def check_group(chance: random.Random, model: Any, prefix: list[Piece], branches: list[list[Piece]]) -> None:
    asked = grids_of(prefix)
    others = list(dict.fromkeys(grid for branch in branches for grid in grids_of(branch)))  # equal ones are one picture
    chance.shuffle(others)
    images = packed([*asked, *others])
    begins = [len(asked) + others.index(grid) for branch in branches for grid in grids_of(branch)]
    which = iter(begins)
    made = []
    for branch in branches:
        tokens = tokens_of(branch)
        pictures = tuple(next(which) for _ in grids_of(branch))
        made.append(Branch("b", tokens, np.zeros(len(tokens), np.int8), True, 0.0, pictures))
    head = tokens_of(prefix)
    places = rotary_positions(head == IMAGE_TOKEN, asked)
    group = Group("group", head, places, images, tuple(made), prefix_images=len(asked))
    batch = collate_groups(
        [group],
        [np.zeros((len(made), 1), np.float32)],
        image_token_id=IMAGE_TOKEN,
        prefix_buckets=(256,),
        branch_buckets=(256,),
    )
    body = batch.prefix.positions[0][batch.prefix.segment_ids[0] > 0]
    every = images.features_of(range(len(images.merged_grids)))
    assert len(set(every.tolist())) == sum(images.token_counts), "no two images share a feature"
    for column, branch in enumerate(branches):
        tokens = np.concatenate([head, made[column].tokens])
        wanted, after = theirs(model, tokens, [*asked, *grids_of(branch)])
        real = batch.branches.segment_ids[0, column] > 0
        found = np.concatenate([body, batch.branches.positions[0, column][real]])
        np.testing.assert_array_equal(found, wanted[:-1])
        index = np.full(len(made[column].tokens), -1)
        index[made[column].tokens == IMAGE_TOKEN] = images.features_of(made[column].pictures)
        np.testing.assert_array_equal(batch.branches.image_index[0, column][real], [-1, *index[:-1]])
        check_live(made[column].tokens, grids_of(branch), int(places[-1].max()) + 1, wanted[len(head) :], after)


def check_live(tokens: np.ndarray, grids: list[Grid], first: int, wanted: np.ndarray, after: int) -> None:
    """The same tokens as a live branch is fed them, and where it goes on."""
    pictures = {str(grid): make_image(grid, np.random.default_rng(0)) for grid in grids}
    said = waiting_tokens(tokens.tolist(), pictures, [str(grid) for grid in grids], first, IMAGE_TOKEN)
    np.testing.assert_array_equal([one.position for one in said], wanted)
    assert 1 + max(said[-1].position) == after
