"""Floating-point operations that a policy asks for, from its sizes and from what a pass visits; needs no jax.

Only matrix products are counted, two operations for a multiplication and an addition: norms, softmax and activations
are a few per cent beside them on a small policy and less on a large one. `Work` says what a pass visits. The tokens and
pairs that a batch really holds give the *model's* operations, of which MFU is made (Chowdhery et al. 2022, arXiv
2204.02311, appendix B); what a program visits beside them (padding, pairs that a mask removes) and what its backward
pass computes again, `recomputed`, the hardware does on top.

    parts = forward_flops(config, sequence(999) + branch(80, prefix=999, scored=40))
    parts.total, training_flops(parts, trained)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from regrpo_jax.models.config import PolicyConfig, VisionConfig


@dataclasses.dataclass(frozen=True)
class Work:
    """What a pass visits; works add up.

    Attributes:
      tokens: that run through the decoder.
      pairs: of a token and one that it attends to, itself included.
      scored: tokens that meet the vocabulary.
      patches: that run through the vision tower.
      patch_pairs: of patches of the same image.
      window_pairs: of patches of the same attention window; those of the image in a tower without windows.
    """

    tokens: int = 0
    pairs: int = 0
    scored: int = 0
    patches: int = 0
    patch_pairs: int = 0
    window_pairs: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclasses.dataclass(frozen=True)
class Trained:
    """What an update trains.

    Attributes:
      weights: all of the policy's own, not an adapter.
      adapter: numbers in the decoder's adapter; of all layers.
      tower_adapter: likewise of the vision tower.
    """

    weights: bool = True
    adapter: int = 0
    tower_adapter: int = 0


@dataclasses.dataclass(frozen=True)
class ForwardFlops:
    """Of one forward pass, apart where a backward pass treats them apart.

    Attributes:
      mixing: of preceding tokens into embeddings (tiny preset).
      layers, attention, adapter: of the decoder: products with kernels, of activations, with the adapter.
      head: scored tokens with the vocabulary.
      patches: the projection of flattened patches.
      blocks, tower_attention, tower_adapter: of the vision tower, as of the decoder.
      mergers: patches to features.
    """

    mixing: int
    layers: int
    attention: int
    adapter: int
    head: int
    patches: int
    blocks: int
    tower_attention: int
    tower_adapter: int
    mergers: int

    @property
    def total(self) -> int:
        """All of them."""
        return sum(dataclasses.astuple(self))


def sequence(tokens: int, *, scored: int = 0) -> Work:
    """A sequence, or a prefix: each token attends to those before it and to itself."""
    return branch(tokens, prefix=0, scored=scored)


def branch(tokens: int, *, prefix: int, scored: int = 0) -> Work:
    """A branch against a prefix that is run elsewhere; one token is a decoded one, with `prefix` tokens before it."""
    return Work(tokens, tokens * prefix + tokens * (tokens + 1) // 2, scored)


def pictures(image_sizes: Iterable[int], window_sizes: Iterable[int] | None = None) -> Work:
    """Images by how many patches each has; window_sizes: likewise their windows, None in a tower without."""
    images = list(image_sizes)
    pairs = sum(size**2 for size in images)
    windows = pairs if window_sizes is None else sum(size**2 for size in window_sizes)
    return Work(patches=sum(images), patch_pairs=pairs, window_pairs=windows)


def forward_flops(config: PolicyConfig, work: Work, trained: Trained = Trained()) -> ForwardFlops:
    """Of a forward pass of the policy, with the adapter of `trained` if it has one."""
    hidden, inner = config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    layer = 2 * hidden * (queries + keys) + 3 * hidden * inner  # q and o, k and v; gate, up and down
    tower = _tower_flops(config.vision, config.hidden_size, work) if config.vision else (0, 0, 0, 0)
    patches, blocks, tower_attention, mergers = tower
    return ForwardFlops(
        mixing=2 * work.tokens * config.token_mixing_width * hidden**2,
        layers=2 * work.tokens * config.num_layers * layer,
        attention=4 * work.pairs * config.num_layers * queries,  # q k and p v
        adapter=2 * work.tokens * trained.adapter,
        head=2 * work.scored * hidden * config.vocab_size,
        patches=patches,
        blocks=blocks,
        tower_attention=tower_attention,
        tower_adapter=2 * work.patches * trained.tower_adapter,
        mergers=mergers,
    )


def training_flops(forward: ForwardFlops, trained: Trained) -> int:
    """Of a forward pass and its backward pass, without what is computed again.

    y = x W costs as much again for dx and for dW. A product of two activations has both gradients. Frozen weights have
    dx alone, and what lies below everything that is trained has neither.
    """
    backward = 2 * (forward.attention + forward.adapter)
    if trained.weights:
        products = forward.mixing + forward.layers + forward.head + forward.blocks + forward.mergers
        backward += 2 * (products + forward.tower_attention) + forward.patches  # pixels need no gradient
    else:
        backward += forward.layers + forward.head
        if trained.tower_adapter:
            backward += forward.blocks + forward.mergers + 2 * (forward.tower_attention + forward.tower_adapter)
    return forward.total + backward


def recomputed_flops(config: PolicyConfig, work: Work, trained: Trained) -> int:
    """What the backward pass computes again: the logits always, more as `config.remat` says.

    Of a layer all but the MLP's last product, whose result no gradient needs.
    """
    forward = forward_flops(config, work, trained)
    if config.remat == "none":
        return forward.head
    vision = config.vision if trained.weights or trained.tower_adapter else None  # else no gradient comes by
    again = forward.head + forward.attention + (forward.tower_attention if vision else 0)
    if config.remat == "full":
        again += forward.layers + forward.adapter
        again -= 2 * work.tokens * config.num_layers * config.hidden_size * config.intermediate_size
        if vision:
            again += forward.blocks + forward.tower_adapter
            again -= 2 * work.patches * vision.depth * vision.embed_dim * vision.intermediate_size
    return again


def _tower_flops(config: VisionConfig, hidden: int, work: Work) -> tuple[int, int, int, int]:
    """(patch projection, kernels of the blocks, attention, mergers)."""
    width, inner = config.embed_dim, config.intermediate_size
    block = 4 * width**2 + (3 if config.gated else 2) * width * inner  # qkv and proj; the MLP
    windowed = config.depth - len(config.full_attention_blocks) if config.window_size else 0
    pairs = windowed * work.window_pairs + (config.depth - windowed) * work.patch_pairs
    merged = width * config.spatial_merge_size**2
    merger = (1 + len(config.deepstack_blocks)) * (merged**2 + merged * hidden)
    return (
        2 * work.patches * config.patch_dim * width,
        2 * work.patches * config.depth * block,
        4 * pairs * width,
        2 * (work.patches // config.spatial_merge_size**2) * merger,
    )
