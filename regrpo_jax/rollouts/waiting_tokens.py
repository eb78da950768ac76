"""Tokens that live branches wait to be fed, images among them, and the arrays that a chunk of them becomes."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from regrpo_jax.agent.policy import Branch
from regrpo_jax.data.batches import collate_images
from regrpo_jax.data.images import PatchedImage, pack_images
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.decoding_state import Pictures
from regrpo_jax.models.inputs import Array, ImagePatches
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.sampler import Variables, encode_images

ENCODED_AT_ONCE = 8  # images whose patches are in memory together


class WaitingToken(NamedTuple):
    """position: rotary (time, row, column). feature: which image's it stands for, and which of its features."""

    token: int
    position: tuple[int, int, int]
    feature: tuple[str, int] | None


def waiting_tokens(
    tokens: Sequence[int], images: Mapping[str, PatchedImage], shown: Sequence[str], start: int, image_token_id: int
) -> list[WaitingToken]:
    """Tokens that begin at a rotary position.

    Args:
      images: by path.
      shown: paths of the images among the tokens, in order; as many features as image tokens.
    """
    is_image = np.array(tokens) == image_token_id
    places = start + rotary_positions(is_image, [images[path].merged_grid for path in shown])
    features = iter([(path, index) for path in shown for index in range(images[path].num_tokens)])
    return [
        WaitingToken(token, (int(time), int(row), int(column)), next(features) if image else None)
        for token, (time, row, column), image in zip(tokens, places, is_image, strict=True)
    ]


class FeatureTable:
    """The features of images in one array, each image once, however many branches wait for it."""

    def __init__(
        self, functions: PolicyFunctions, variables: Variables, images: Mapping[str, PatchedImage], paths: Iterable[str]
    ) -> None:
        self._rows = {path: row for row, path in enumerate(dict.fromkeys(paths))}
        packed = [pack_images([images[path]], functions.config.vision) for path in self._rows]
        packed += packed[:1] * ((1 << (len(packed) - 1).bit_length()) - len(packed))  # few shapes are compiled
        longest = max(packed, key=lambda image: len(image.patches))
        parts = []
        for first in range(0, len(packed), ENCODED_AT_ONCE):
            part = packed[first : first + ENCODED_AT_ONCE]
            patches = collate_images([*part, longest])  # all parts are padded alike
            assert patches is not None
            parts.append(encode_images(functions, variables, _first_rows(patches, len(part))))
        features = jnp.concatenate(parts)  # [image, feature, hidden]
        self._width = features.shape[1]
        self.features: Array = features.reshape(-1, features.shape[-1])  # [feature, width]

    def index(self, feature: tuple[str, int] | None) -> int:
        """Where a feature is in the table; -1 of text."""
        return -1 if feature is None else self._rows[feature[0]] * self._width + feature[1]


def _first_rows(patches: ImagePatches, count: int) -> ImagePatches:
    return jax.tree.map(lambda array: array[:count], patches)


def pictures_of(
    chunks: Mapping[Branch, Sequence[WaitingToken]],
    places: Mapping[Branch, tuple[int, int]],
    shape: tuple[int, int, int],
    table: FeatureTable,
) -> Pictures:
    """Where the images of a chunk are.

    Args:
      places: row and lane of each branch.
      shape: rows, lanes, tokens.
    """
    image_index, positions = np.full(shape, -1, np.int32), np.zeros((*shape, 3), np.int32)
    for branch, chunk in chunks.items():
        if chunk:
            image_index[places[branch]][: len(chunk)] = [table.index(one.feature) for one in chunk]
            positions[places[branch]][: len(chunk)] = [one.position for one in chunk]
    return Pictures(table.features, image_index, positions)
