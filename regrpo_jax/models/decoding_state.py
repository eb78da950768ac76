"""What decoding starts from, keeps between two turns and returns; see `sampler` for the three functions on it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from regrpo_jax.models.inputs import Array, BranchCache, ImagePatches, PrefixLayers, TokenBlock
from regrpo_jax.models.play_sharding import rows_apart

APART: Any = None  # stands where an argument of its own was taken out: one that is donated, or constant in a loop


@struct.dataclass
class Prompt:
    """Where decoding starts.

    Attributes:
      prefix: without its last token.  # [group, prefix]
      images: patches of the prefixes, or None.
      last_token: int32, the last prompt token, which every branch is fed first.  # [group]
      next_position: int32 rotary position of the first new token.  # [group]
      draw_ids: int32, what tells a group's random draws from those of others with the same key, so that they do not
        depend on the batch that the group is in.  # [group]
    """

    prefix: TokenBlock
    images: ImagePatches | None
    last_token: Array
    next_position: Array
    draw_ids: Array


@struct.dataclass
class Decoding:
    """Branches between two turns. `append` and `generate` use up the branch cache of the one that they are given.

    Attributes:
      prefix: shared by the branches of a group.
      cache: what each branch holds so far, its last token excepted.
      fed: int32, the last token of each branch, which is run next.  # [group, branch]
      fed_image: int32, which image feature `fed` stands for, -1 for text.  # [group, branch]
      position: int32 rotary position of `fed` (time, row, column).  # [group, branch, 3]
      done: bool, whether the branch drew a stop sequence and nothing was appended since.  # [group, branch]
      keys: random keys, one a branch.  # [group, branch]
    """

    prefix: PrefixLayers
    cache: BranchCache
    fed: Array
    fed_image: Array
    position: Array
    done: Array
    keys: Array


def with_row_axes(function: Callable[[Any, int], Any], decoding: Decoding) -> Decoding:
    """function(array, axis of rows) of every array: 1 of keys and values, whose first axis is the layers', else 0."""

    def of_layers(held: Any) -> Any:
        runs = {name: tuple(function(run, 1) for run in getattr(held, name)) for name in ("keys", "values")}
        rest = jax.tree.map(lambda array: function(array, 0), dataclasses.replace(held, keys=(), values=()))
        return dataclasses.replace(rest, **runs)

    rest = dataclasses.replace(decoding, prefix=APART, cache=APART)
    rest = jax.tree.map(lambda array: function(array, 0), rest)
    return dataclasses.replace(rest, prefix=of_layers(decoding.prefix), cache=of_layers(decoding.cache))


def on_their_rows(decoding: Decoding) -> Decoding:
    """Every array of a program on the devices of its rows."""
    return with_row_axes(rows_apart, decoding)


@struct.dataclass
class Pictures:
    """The images among tokens that are appended; a branch may have none.

    Attributes:
      features: of all of them, each image once, as the vision tower gives them.  # [feature, width]
      image_index: int32 index into the features, -1 for text.  # [group, branch, token]
      positions: int32 rotary positions (time, row, column) of the tokens.  # [group, branch, token, 3]
    """

    features: Array
    image_index: Array
    positions: Array


@struct.dataclass
class Samples:
    """What was drawn.

    Attributes:
      tokens: int32, 0 after the end.  # [group, branch, token]
      logprobs: float, log pi of each token at temperature 1 with nothing banned or filtered, as a scoring pass gives
        it; 0 after the end.  # [group, branch, token]
      lengths: int32 number of tokens, a stop sequence included.  # [group, branch]
      stopped: bool, whether a stop sequence was drawn within the budget.  # [group, branch]
    """

    tokens: Array
    logprobs: Array
    lengths: Array
    stopped: Array


@struct.dataclass
class Turn:
    """A turn while it is drawn.

    Attributes:
      time: int32 scalar, tokens that each running branch has drawn.
      budget: int32, tokens that a branch may draw.  # [group, branch]
      samples: so far; `tokens` has room in front for the comparison with stop sequences.
    """

    time: Array
    budget: Array
    samples: Samples


def check_room(decoding: Decoding, slots: int, doing: str) -> None:
    """Raises ValueError where `slots` more tokens do not fit: a write beyond the end would move to another place."""
    capacity, used = decoding.cache.valid.shape[-1], int(decoding.cache.length)
    if used + slots > capacity:
        raise ValueError(
            f"{doing} up to {slots} tokens after the {used} slots in use exceeds the capacity of {capacity} slots "
            "that decoding was started with; start it with more"
        )


def last_place(position: Array) -> Array:
    """The largest of a token's three positions: text goes on after it, behind an image too.  # [..]"""
    return jnp.max(position, axis=-1)
