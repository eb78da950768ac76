"""grain pipelines: shuffled, mixed, packed, batched, and resumable to the very next batch.

The iterators' `get_state` / `set_state` are plain JSON and are stored in every checkpoint.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grain
import numpy as np

from regrpo_jax.data.batches import GroupBatch, SftBatch, check_image_tokens, collate_groups, image_indices
from regrpo_jax.data.curriculum import Pacer
from regrpo_jax.data.examples import Example
from regrpo_jax.data.groups import Group
from regrpo_jax.data.paced_batches import Deal, Deck, PacedBatches
from regrpo_jax.errors import UserError
from regrpo_jax.models.inputs import ImagePatches, TokenBlock

READ_OPTIONS = grain.ReadOptions(num_threads=1, prefetch_buffer_size=64)


class Batches(Protocol):
    """An endless iterator of batches that can be stored and resumed."""

    def __next__(self) -> Any: ...

    def get_state(self) -> dict[str, Any]:
        """Plain JSON."""

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on with the batch that would have come next."""


def sft_batches(
    clean: Sequence[Example],
    rot: Sequence[Example],
    *,
    clean_ratio: float,
    batch_rows: int,
    row_length: int,
    row_patches: int,
    image_token_id: int,
    seed: int,
    pacer: Pacer | None = None,
    rows: Sequence[int] | None = None,
) -> Batches:
    """Endless `SftBatch`es; clean and RoT examples are drawn at `clean_ratio` and packed first-fit into rows.

    Args:
      row_length: tokens in a row.
      row_patches: image patches in a row, 0 for a policy without images.
      pacer: decides how many of the RoT examples are in play, of which there must be some; None always plays all.
      rows: of a batch, those that arrays are made of, and patches of pictures; None for all. Which examples they hold
        does not depend on it.
    Raises:
      UserError: a source that `clean_ratio` asks for is empty, an example has more tokens or patches than a row, or
        its image tokens and features disagree.
    """
    sources = _mixed_sources(clean, rot, clean_ratio)
    for example in (example for source, _ in sources for example in source):
        if reason := row_overflow(example, row_length=row_length, row_patches=row_patches):
            raise UserError(f"{example.record_id}: {reason}")
        # Rows are made of whole examples, so what holds of each of them holds of every row.
        check_image_tokens(example.record_id, example.tokens, sum(example.images.token_counts), image_token_id)
    features = _features if rows is None else _PatchesLater([source for source, _ in sources])
    datasets = [
        grain.MapDataset.source(source).seed(seed + index).shuffle().repeat().map(features)
        for index, (source, _) in enumerate(sources)
    ]
    deck = None if pacer is None else Deck([example.complexity or 0.0 for example in rot], pacer)
    if deck is not None:
        datasets[-1] = deck.deals(seed + len(sources) - 1)  # the RoT examples are the last source
    mixed = grain.MapDataset.mix(datasets, weights=[weight for _, weight in sources]).to_iter_dataset(READ_OPTIONS)
    if deck is not None:
        mixed = mixed.map(_resolver(rot, deck, features))
    lengths = {name: row_length for name in ("tokens", "segments", "positions", "complexity")}
    lengths |= {name: row_patches for name in ("patches", "patch_positions", "patch_images", "patch_windows")}
    packed = grain.experimental.FirstFitPackIterDataset(
        mixed, length_struct=lengths, num_packing_bins=4 * batch_rows, shuffle_bins=False
    ).batch(batch_rows)

    def made(batch: dict[str, Any]) -> SftBatch:
        if isinstance(features, _PatchesLater):
            return _sft_batch(features.made(batch, rows or ()), image_token_id)
        return _sft_batch(batch, image_token_id)

    if deck is None:
        return iter(packed.map(made))
    return PacedBatches(iter(packed.map(lambda batch: (made(batch), _complexities(batch)))), deck)


def row_overflow(example: Example, *, row_length: int, row_patches: int) -> str:
    """Why a packed row cannot hold an example; "" when it can."""
    tokens, patches = len(example.tokens), len(example.images.patches)
    if tokens > row_length:
        return f"{tokens} tokens exceed config.sft.row_length={row_length}; raise it"
    if patches > row_patches:
        limit = f"config.sft.row_patches={row_patches}"
        return f"{patches} image patches exceed {limit}; raise it or lower config.data.pixels"
    return ""


def group_batches(
    groups: Sequence[Group],
    reference_logprobs: Sequence[np.ndarray],
    *,
    groups_per_batch: int,
    image_token_id: int,
    prefix_buckets: Sequence[int],
    branch_buckets: Sequence[int],
    seed: int,
    pacer: Pacer | None = None,
    rows: Sequence[int] | None = None,
) -> Batches:
    """Endless `GroupBatch`es, each group with its reference log-probs [branch, token].

    Args:
      groups: in the order of the first pass; later passes are shuffled. A stage that never gets further than a part
        of them needs only that part, and sees the same batches (`corpus.groups_to_visit`).
      pacer: decides how many of the groups are in play, and shuffles them from the first pass on; None always plays
        all.
      rows: of a batch, those that arrays are made of; None for all.
    Raises:
      UserError: there are no groups.
    """
    if not groups:
        raise UserError("there are no groups to train on; config.data.rot must hold at least one usable record")

    def collate(indices: Sequence[int]) -> GroupBatch:
        return collate_groups(
            [groups[index] for index in indices],
            [reference_logprobs[index] for index in indices],
            image_token_id=image_token_id,
            prefix_buckets=prefix_buckets,
            branch_buckets=branch_buckets,
            rows=rows,
        )

    if pacer is None:
        visits = _visits(len(groups), seed).to_iter_dataset(READ_OPTIONS)
        return iter(visits.batch(groups_per_batch, batch_fn=collate))

    def collate_paced(indices: Sequence[int]) -> tuple[GroupBatch, np.ndarray]:
        return collate(indices), np.array([groups[index].complexity for index in indices])

    deck = Deck([group.complexity for group in groups], pacer)
    dealt = deck.deals(seed).to_iter_dataset(READ_OPTIONS).map(deck.record)
    return PacedBatches(iter(dealt.batch(groups_per_batch, batch_fn=collate_paced)), deck)


def _visits(count: int, seed: int) -> grain.MapDataset:
    """Endless passes over 0 .. count - 1: the first in order, every later one shuffled anew."""

    @functools.lru_cache(maxsize=2)
    def order(number: int) -> np.ndarray:
        return np.random.default_rng((seed, number)).permutation(count)

    def visit(draw: int, index: int) -> int:
        return int(order(draw // count)[index]) if draw >= count else index

    return grain.MapDataset.range(count).repeat().map_with_index(visit)


def _mixed_sources(
    clean: Sequence[Example], rot: Sequence[Example], clean_ratio: float
) -> list[tuple[Sequence[Example], float]]:
    sources = [(clean, clean_ratio, "data.clean"), (rot, 1.0 - clean_ratio, "data.rot")]
    for source, weight, name in sources:
        if weight > 0 and not source:
            raise UserError(
                f"config.sft.clean_ratio={clean_ratio} needs examples from config.{name}, but there are none"
            )
    return [(source, weight) for source, weight, _ in sources if weight > 0]


def _features(example: Example) -> dict[str, np.ndarray]:
    return {
        "tokens": example.tokens,
        "segments": example.segments,
        "positions": example.positions,
        "complexity": np.full(int(example.complexity is not None), example.complexity or 0.0),
        "patches": np.asarray(example.images.patches),
        "patch_positions": example.images.positions,
        "patch_images": example.images.segment_ids,
        "patch_windows": example.images.window_ids,
    }


class _PatchesLater:
    """`_features` with the place of each patch among those of all examples; patches are made of the rows that stay."""

    def __init__(self, sources: Sequence[Sequence[Example]]) -> None:
        self._examples = [example for source in sources for example in source]
        counts = [len(example.images.patches) for example in self._examples]
        self._starts = np.cumsum([0, *counts])  # [example + 1]
        self._place = {id(example): place for place, example in enumerate(self._examples)}

    def __call__(self, example: Example) -> dict[str, np.ndarray]:
        start, end = self._starts[self._place[id(example)] :][:2]
        later = dataclasses.replace(example.images, patches=np.arange(start, end))
        return _features(dataclasses.replace(example, images=later))

    def made(self, packed: dict[str, Any], rows: Sequence[int]) -> dict[str, Any]:
        """The packed batch with the patches of these rows, and nothing of others."""
        found = {name: array[list(rows)] for name, array in packed.items()}
        places = found["patches"]  # [row, patch]
        patches = np.zeros((*places.shape, self._examples[0].images.patches.shape[-1]), np.float32)
        real = found["patches_segment_ids"] > 0
        for number in np.unique(np.searchsorted(self._starts, places[real], side="right") - 1):
            start, end = self._starts[number : number + 2]
            of_example = real & (places >= start) & (places < end)
            patches[of_example] = np.asarray(self._examples[number].images.patches)[places[of_example] - start]
        return found | {"patches": patches}


def _resolver(
    rot: Sequence[Example], deck: Deck, features: Callable[[Example], dict[str, np.ndarray]]
) -> Callable[[Any], dict[str, np.ndarray]]:
    """Turns deals into the features of the RoT examples that they stand for."""

    def resolve(drawn: Deal | dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return features(rot[deck.record(drawn)]) if isinstance(drawn, Deal) else drawn

    return resolve


def _complexities(packed: dict[str, Any]) -> np.ndarray:
    """Of the RoT examples in packed rows.  # [example]"""
    return packed["complexity"][packed["complexity_segment_ids"] > 0]


def _sft_batch(packed: dict[str, Any], image_token_id: int) -> SftBatch:
    conversation = packed["tokens_segment_ids"]  # [row, token]
    is_image = (packed["tokens"] == image_token_id) & (conversation > 0)
    block = TokenBlock(packed["tokens"], conversation, packed["positions"], image_indices(is_image))
    images = None
    if packed["patches"].shape[1]:
        owner = packed["patches_segment_ids"]  # [row, patch]
        images = ImagePatches(
            packed["patches"],
            _told_apart(owner, packed["patch_images"]),
            packed["patch_positions"],
            _told_apart(owner, packed["patch_windows"]),
        )
    return SftBatch(block, packed["segments"], images)


def _told_apart(conversation: np.ndarray, ids: np.ndarray) -> np.ndarray:
    """Ids that count from 1 within a conversation, made different between those of a row; 0 at padding."""
    return np.where(conversation > 0, conversation * (1 + ids.max()) + ids, 0).astype(np.int32)
