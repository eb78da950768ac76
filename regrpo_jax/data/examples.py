"""Supervised examples: which tokens of a conversation a warm start trains on.

A clean trajectory trains every assistant turn; a Reflection-of-Thought record trains only the turn that reflects and
corrects, so that the failed action is context and never a target.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from regrpo_jax.data.chat import ChatError, ChatRenderer, RenderedChat
from regrpo_jax.data.image_parts import image_order, images_before
from regrpo_jax.data.images import PackedImages, PatchedImage, load_image, pack_images
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.config import VisionConfig
from regrpo_jax.records.types import ImageReference, RotRecord, Trajectory, Turn


@dataclasses.dataclass(frozen=True)
class Example:
    """One conversation for supervised fine-tuning.

    Attributes:
      record_id: where it comes from.
      tokens: int32.  # [token]
      segments: int8 `Segment`, nonzero exactly where the loss is taken.  # [token]
      positions: int32.  # [token, 3]
      images: its images.
    """

    record_id: str
    tokens: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    images: PackedImages


@dataclasses.dataclass(frozen=True)
class ConversationReader:
    """Turns and image files to tokens and patches, for one tokenizer and one vision tower."""

    renderer: ChatRenderer
    vision: VisionConfig | None
    max_pixels: int

    def read(
        self, turns: Sequence[Turn], images: Sequence[ImageReference]
    ) -> tuple[RenderedChat, np.ndarray, PackedImages]:
        """The rendered conversation, its rotary positions [token, 3] and its images.

        Raises:
          ChatError: the conversation does not fit the template, or has images and the policy cannot see.
          UserError: an image file cannot be read.
        """
        packed = self.read_images(turns, images)
        chat = self.renderer.render(turns, images, _token_counts(packed))
        return chat, self.positions(chat.tokens, packed), packed

    def read_prompt(
        self, turns: Sequence[Turn], images: Sequence[ImageReference]
    ) -> tuple[np.ndarray, np.ndarray, PackedImages]:
        """Tokens up to and including the header of the next assistant turn, positions, images."""
        packed = self.read_images(turns, images)
        tokens = self.renderer.render_prompt(turns, images, _token_counts(packed))
        return tokens, self.positions(tokens, packed), packed

    def positions(self, tokens: np.ndarray, images: PackedImages) -> np.ndarray:
        """Rotary positions.  # [token, 3]"""
        return rotary_positions(tokens == self.renderer.image_token_id, images.merged_grids)

    def read_images(self, turns: Sequence[Turn], images: Sequence[ImageReference]) -> PackedImages:
        """Patches of all images, in the order of their tokens."""
        if images and self.vision is None:
            raise ChatError("the conversation has images, but config.model.images is off (a text-only policy)")
        ordered = [_cached_image(image.path, self.vision, self.max_pixels) for image in image_order(turns, images)]
        return pack_images(ordered, self.vision)


def clean_example(record: Trajectory, reader: ConversationReader, *, max_length: int) -> Example:
    """All assistant turns of a successful trajectory.

    Raises:
      ChatError: a trained token would have to be cut, or see `ConversationReader.read`.
    """
    chat, positions, images = reader.read(record.conversation, record.images)
    example = Example(record.id, chat.tokens, chat.segments, positions, images)
    return cut_left(example, max_length, reader.renderer.image_token_id)


def rot_example(record: RotRecord, reader: ConversationReader, *, max_length: int) -> Example:
    """Only the turn that reflects and corrects; what follows it is left out.

    Raises:
      ChatError: a trained token would have to be cut, or see `ConversationReader.read`.
    """
    turns = record.conversation[: record.reflection_turn + 1]
    visible = images_before(record.conversation, len(turns), record.images)
    chat, positions, images = reader.read(turns, visible)
    start, _ = chat.span_of(record.reflection_turn)
    segments = np.where(np.arange(len(chat.tokens)) >= start, chat.segments, 0).astype(np.int8)
    example = Example(record.id, chat.tokens, segments, positions, images)
    return cut_left(example, max_length, reader.renderer.image_token_id)


def cut_left(example: Example, max_length: int, image_token_id: int) -> Example:
    """Drops untrained tokens on the left until the example fits.

    Raises:
      ChatError: that would drop a trained token or part of an image.
    """
    excess = len(example.tokens) - max_length
    if excess <= 0:
        return example
    if example.segments[:excess].any():
        needed = len(example.tokens) - int(np.argmax(example.segments > 0))
        raise ChatError(
            f"the trained tokens need a length of {needed} but config.data.max_length is {max_length}; raise it"
        )
    if (example.tokens[:excess] == image_token_id).any():
        raise ChatError(
            f"{len(example.tokens)} tokens exceed config.data.max_length={max_length} and cutting on the left would "
            "cut an image; raise it or lower config.data.max_pixels"
        )
    return dataclasses.replace(
        example,
        tokens=example.tokens[excess:],
        segments=example.segments[excess:],
        positions=example.positions[excess:],
    )


@functools.lru_cache(maxsize=1024)
def _cached_image(path: str, config: VisionConfig, max_pixels: int) -> PatchedImage:
    return load_image(path, config, max_pixels=max_pixels)


def _token_counts(images: PackedImages) -> list[int]:
    return [rows * columns for rows, columns in images.merged_grids]
