"""Pictures in observations against transformers: it runs a conversation as one sequence, we a prefix and branches."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from regrpo_jax.data.batches import GroupBatch, collate_groups, collate_prefixes
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import PatchedImage, pack_images
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.decoding_state import Decoding
from regrpo_jax.models.huggingface import load_policy
from regrpo_jax.models.sampler import Prompt, append, generate, start
from regrpo_jax.models.token_choice import sampling_controls
from regrpo_jax.rollouts.waiting_tokens import FeatureTable, pictures_of, waiting_tokens
from tests.parity.conftest import IMAGE_TOKEN, MERGE, PAD, make_image

TOLERANCE = 2e-4
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
NEW_TOKENS, CHUNK = 10, 16
# Pictures by name; "a" and "z" are the tasks', the others come from tools. Odd sides, strips, one of several windows.
GRIDS = {"a": (2, 3), "z": (3, 2), "b": (1, 4), "c": (5, 3), "d": (3, 1), "e": (2, 2)}
Pieces = tuple[int | str, ...]  # so many text tokens, or a picture
# The first branch of the first group has two pictures in one observation; the second none at first, then one of the
# first's; the third only text; the fourth three observations, among them the task's own picture once more.
CONVERSATIONS: tuple[tuple[Pieces, tuple[Pieces, ...]], ...] = (
    (
        (4, "a", 1, "z", 5),
        ((6, "b", 1, "c", 4), (9, "c", 5), (12,), (3, "d", 4, "a", 2, "e", 3)),
    ),
    ((7,), ((5, "e", 4), (2, "b", 1, "b", 2, "d", 3), (4, "c", 6, "e", 1), (1,))),
    ((3, "z", 4), ((8,), (2,), (11,), (5,))),  # no tool of this group made a picture
)


@dataclasses.dataclass(frozen=True)
class Case:
    """Groups, and each branch as the one sequence that transformers runs, with the names of its pictures."""

    groups: list[Group]
    batch: GroupBatch
    sequences: dict[tuple[int, int], tuple[np.ndarray, list[str]]]
    pictures: dict[str, PatchedImage]

    def theirs(self, place: tuple[int, int]) -> dict[str, torch.Tensor]:
        tokens, names = self.sequences[place]
        ids = torch.tensor(tokens[None], dtype=torch.long)
        arguments = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        arguments["mm_token_type_ids"] = (ids == IMAGE_TOKEN).int()
        if names:
            arguments["pixel_values"] = torch.tensor(np.concatenate([self.pictures[name].patches for name in names]))
            grids = [(1, MERGE * GRIDS[name][0], MERGE * GRIDS[name][1]) for name in names]
            arguments["image_grid_thw"] = torch.tensor(grids)
        return arguments

    def scored(self, place: tuple[int, int]) -> tuple[int, np.ndarray]:
        """Length of the branch, and which of its tokens are text.  # [token]"""
        branch = self.groups[place[0]].branches[place[1]]
        return len(branch.tokens), branch.tokens != IMAGE_TOKEN


def make_case(pair: Any) -> Case:
    random = np.random.default_rng(11)
    pictures = {name: make_image(grid, random) for name, grid in GRIDS.items()}

    def said(pieces: Pieces) -> np.ndarray:
        parts = [
            np.full(pictures[piece].num_tokens, IMAGE_TOKEN)
            if isinstance(piece, str)
            else random.integers(1, IMAGE_TOKEN, piece)
            for piece in pieces
        ]
        return np.concatenate(parts).astype(np.int32)

    groups, sequences = [], {}
    for row, (prompt, branches) in enumerate(CONVERSATIONS):
        asked = named(prompt)
        shown = [name for name in dict.fromkeys(sum(map(named, branches), [])) if name not in asked]
        kept = [*asked, *shown]  # each picture once in the row
        images = pack_images([pictures[name] for name in kept], pair.config.vision)
        prefix = said(prompt)
        made = []
        for column, pieces in enumerate(branches):
            tokens = said(pieces)
            segments = np.where(tokens == IMAGE_TOKEN, 0, 2).astype(np.int8)
            which = tuple(kept.index(name) for name in named(pieces))
            made.append(Branch(f"branch {column}", tokens, segments, True, 1.0, which))
            sequences[row, column] = (np.concatenate([prefix, tokens]), asked + named(pieces))
        grids = [GRIDS[name] for name in asked]
        positions = rotary_positions(prefix == IMAGE_TOKEN, grids)
        groups.append(Group(f"group {row}", prefix, positions, images, tuple(made), prefix_images=len(asked)))
    nothing = [np.zeros((4, 1), np.float32) for _ in groups]
    batch = collate_groups(
        groups, nothing, image_token_id=IMAGE_TOKEN, prefix_buckets=(32,), branch_buckets=(40,)
    )  # the longest prefix has 22 tokens, the longest branch 31
    return Case(groups, batch, sequences, pictures)


def named(pieces: Pieces) -> list[str]:
    return [piece for piece in pieces if isinstance(piece, str)]


@pytest.fixture(scope="module", params=FAMILIES)
def case(request: pytest.FixtureRequest, twins: Callable[..., Any]) -> tuple[Any, Case]:
    """A model in both frameworks, and conversations."""
    pair = twins(request.param)
    return pair, make_case(pair)


def test_logits_and_gradients_agree(case: tuple[Any, Case], tmp_path: Path) -> None:
    pair, made = case
    batch = made.batch

    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(variables: dict[str, Any], batch: GroupBatch) -> tuple[jax.Array, jax.Array]:
        _, cache = pair.functions.run_prefix(variables, batch.prefix, batch.images)
        hidden = pair.functions.run_branches(variables, batch.branches, cache)
        logits = hidden @ pair.functions.head(variables).T  # [group, branch, token, vocab]
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), batch.targets[..., None], axis=-1)[..., 0]
        is_scored = batch.segments > 0
        return -jnp.sum(jnp.where(is_scored, chosen, 0)) / jnp.sum(is_scored), logits

    (value, logits), gradient = jax.jit(loss)(pair.variables, batch)
    pair.theirs.zero_grad()
    total = 0.0
    for place in made.sequences:
        size, is_text = made.scored(place)
        theirs = pair.theirs(**made.theirs(place)).logits[0, -size - 1 : -1]  # [token, vocab]
        tokens = torch.tensor(made.sequences[place][0][-size:], dtype=torch.long)
        chosen = torch.log_softmax(theirs, dim=-1).gather(-1, tokens[:, None])[:, 0]
        part = -chosen[torch.tensor(is_text)].sum() / np.count_nonzero(batch.segments)
        part.backward()
        total += part.item()
        np.testing.assert_allclose(logits[place][:size], theirs.detach().numpy(), atol=TOLERANCE)
        assert np.std(logits[place][:size]) > 0.3
    np.testing.assert_allclose(value, total, atol=TOLERANCE)

    # The gradient has the weights' names, so it can be written and loaded like a model.
    save_file(
        {name: weight.grad.clone() for name, weight in pair.theirs.named_parameters()}, tmp_path / "model.safetensors"
    )
    (tmp_path / "config.json").write_text((pair.folder / "config.json").read_text())
    _, wanted = load_policy(tmp_path, remat="none")
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=TOLERANCE), gradient["params"], wanted)
    assert all(float(np.max(np.abs(leaf))) > 1e-3 for leaf in jax.tree.leaves(wanted)), "vision tower included"


def test_pictures_are_seen_and_kept_once(case: tuple[Any, Case]) -> None:
    """Another picture in one branch changes that branch from there on, and nothing else."""
    pair, made = case
    kept = [group.images.merged_grids for group in made.groups]
    assert [len(grids) for grids in kept] == [6, 4, 1], "branches share pictures"

    @jax.jit
    def hidden(variables: dict[str, Any], batch: GroupBatch) -> jax.Array:
        _, cache = pair.functions.run_prefix(variables, batch.prefix, batch.images)
        return pair.functions.run_branches(variables, batch.branches, cache)

    before = np.asarray(hidden(pair.variables, made.batch))
    owner = made.batch.images.segment_ids[0]
    patches = made.batch.images.patches.copy()
    patches[0, owner == 3] *= -1  # "b", which only the first branch of the first group is shown
    changed = dataclasses.replace(made.batch, images=dataclasses.replace(made.batch.images, patches=patches))
    differs = np.any(np.abs(hidden(pair.variables, changed) - before) > 1e-4, axis=-1)  # [group, branch, token]
    place = 1 + 6  # the last of the prefix, then text; the fed tokens
    wanted = np.zeros_like(differs)
    wanted[0, 0, place : len(made.groups[0].branches[0].tokens)] = True
    real = made.batch.branches.segment_ids > 0
    np.testing.assert_array_equal(differs & real, wanted)


def test_greedy_tokens_after_observed_pictures_are_the_same(case: tuple[Any, Case]) -> None:
    """Fed as a live conversation is, in chunks that cut images, then drawn, against `generate` on the whole."""
    pair, made = case
    decoding = begin(pair, made, capacity=4 * CHUNK + NEW_TOKENS)
    table = FeatureTable(pair.functions, pair.variables, made.pictures, [*GRIDS])
    waiting = {}
    for (row, column), (_, names) in made.sequences.items():
        group = made.groups[row]
        branch = group.branches[column]
        shown = names[group.prefix_images :]
        first = int(group.positions[-1].max()) + 1
        waiting[row, column] = waiting_tokens(branch.tokens.tolist(), made.pictures, shown, first, IMAGE_TOKEN)
    for first in range(0, max(map(len, waiting.values())), CHUNK):
        shape = (len(made.groups), 4, CHUNK)
        tokens, lengths = np.zeros(shape, np.int32), np.zeros(shape[:2], np.int32)
        chunks = {place: said[first : first + CHUNK] for place, said in waiting.items()}
        for place, chunk in chunks.items():
            tokens[place][: len(chunk)], lengths[place] = [one.token for one in chunk], len(chunk)
        pictures = pictures_of(chunks, {place: place for place in chunks}, shape, table)
        decoding, _ = append(pair.functions, pair.variables, decoding, tokens, lengths, pictures)
    greedy = sampling_controls(max_tokens=NEW_TOKENS, stops=(), temperature=0.0)
    drawn, _ = generate(pair.functions, pair.variables, decoding, greedy)
    different = set()
    for place, (tokens, _) in made.sequences.items():
        theirs = pair.theirs.generate(
            **made.theirs(place), do_sample=False, max_new_tokens=NEW_TOKENS, pad_token_id=PAD
        )
        expected = theirs[0, len(tokens) :].tolist()
        assert drawn.tokens[place].tolist() == expected, place
        different.add(tuple(expected))
    assert len(different) > 8


def begin(pair: Any, made: Case, *, capacity: int) -> Decoding:
    """A session over the prefixes alone."""
    groups = made.groups
    prefixes, images = prefix_only(pair, groups, made)
    prompt = Prompt(
        prefix=prefixes,
        images=images,
        last_token=np.array([group.prefix[-1] for group in groups], np.int32),
        next_position=np.array([group.positions[-1].max() + 1 for group in groups], np.int32),
        draw_ids=np.arange(len(groups), dtype=np.int32),
    )
    return start(pair.functions, pair.variables, prompt, jax.random.key(0), branches=4, capacity=capacity)


def prefix_only(pair: Any, groups: Sequence[Group], made: Case) -> tuple[Any, Any]:
    """Prefixes with their own pictures, as a session begins that nobody has told of those to come."""
    alone = [
        dataclasses.replace(
            group,
            branches=(),
            prefix_images=None,
            images=pack_images([made.pictures[name] for name in named(prompt)], pair.config.vision),
        )
        for group, (prompt, _) in zip(groups, CONVERSATIONS, strict=True)
    ]
    return collate_prefixes(alone, image_token_id=IMAGE_TOKEN, buckets=(32,))
