"""Supervised examples: which tokens of a conversation a warm start trains on.

A clean trajectory trains its assistant turns, and `config.data.failed_turns` says what becomes of those that failed; a
Reflection-of-Thought record trains only the turn that reflects and corrects, so that the failed action is context and
never a target.
"""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np

from regrpo_jax.agent.policy import Heard, Told
from regrpo_jax.data.chat import ChatError, ChatRenderer, RenderedChat
from regrpo_jax.data.image_parts import image_order, images_before
from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.data.images import FilePatches, PackedImages, PatchedImage, cached_image, pack_images
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.config import VisionConfig
from regrpo_jax.records.complexity import record_complexity
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
      complexity: of the failure it recovers from, in [0, 1]; None for a clean trajectory.
    """

    record_id: str
    tokens: np.ndarray
    segments: np.ndarray
    positions: np.ndarray
    images: PackedImages
    complexity: float | None = None


@dataclasses.dataclass(frozen=True)
class ConversationReader:
    """Turns and image files to tokens and patches, for one tokenizer and one vision tower.

    Attributes:
      renderer: knows the tokenizer and its chat template.
      vision: the tower, None for a text-only policy.
      settings: how its patches are made of pictures, None for a text-only policy.
    """

    renderer: ChatRenderer
    vision: VisionConfig | None
    settings: ImageSettings | None

    def read(
        self, turns: Sequence[Turn], images: Sequence[ImageReference]
    ) -> tuple[RenderedChat, np.ndarray, PackedImages]:
        """The rendered conversation, its rotary positions [token, 3] and its images.

        Raises:
          ChatError: the conversation does not fit the template, has images and the policy cannot see, or the
            template gives it another number of image tokens than it has images.
          ImageError: an image file cannot be read.
        """
        packed = self.read_images(turns, images)
        chat = self.renderer.render(turns, images, packed.token_counts)
        return chat, self.positions(chat.tokens, packed), packed

    def read_prompt(
        self, turns: Sequence[Turn], images: Sequence[ImageReference]
    ) -> tuple[np.ndarray, np.ndarray, PackedImages]:
        """Tokens up to and including the header of the next assistant turn, positions, images."""
        packed = self.read_images(turns, images)
        tokens = self.renderer.render_prompt(turns, images, packed.token_counts)
        return tokens, self.positions(tokens, packed), packed

    def read_told(self, told: Told) -> tuple[Heard, list[PatchedImage]]:
        """A user turn of a conversation that goes on, and its images in the order of their tokens.

        Raises:
          ChatError, ImageError: see `read`.
        """
        turn = Turn("user", told.text)
        images = self._patched([turn], told.images)
        lengths = [image.num_tokens for image in images]
        return Heard(*self.renderer.continuation(turn, told.images, lengths)), images

    def positions(self, tokens: np.ndarray, images: PackedImages) -> np.ndarray:
        """Rotary positions.  # [token, 3]"""
        return rotary_positions(tokens == self.renderer.image_token_id, images.merged_grids)

    def read_images(self, turns: Sequence[Turn], images: Sequence[ImageReference]) -> PackedImages:
        """All images, in the order of their tokens; their patches are made anew when they are needed."""
        packed = pack_images(self._patched(turns, images), self.vision)
        if self.settings is None or not packed.merged_grids:
            return packed
        files = tuple(image.path for image in image_order(turns, images))
        made = FilePatches(files, self.settings, (len(packed.patches), packed.patches.shape[1]))
        return dataclasses.replace(packed, patches=made)

    def _patched(self, turns: Sequence[Turn], images: Sequence[ImageReference]) -> list[PatchedImage]:
        if images and self.settings is None:
            raise ChatError("the conversation has images, but the policy is text-only (config.model.images is off)")
        settings = self.settings
        return [cached_image(image.path, settings) for image in image_order(turns, images) if settings is not None]


def clean_example(record: Trajectory, reader: ConversationReader, context: Collection[int] = ()) -> Example:
    """The assistant turns of a successful trajectory, but for those that are said not to be trained.

    Args:
      context: further turns that are shown and not trained, by their index in the conversation.
    Raises:
      ChatError, ImageError: see `ConversationReader.read`.
    """
    chat, positions, images = reader.read(record.conversation, record.images)
    segments = chat.segments.copy()
    for index in chat.turn_indices:
        if index in context or not record.conversation[index].trained:
            start, end = chat.span_of(index)
            segments[start : end + 1] = 0  # with the token that ends the turn
    return Example(record.id, chat.tokens, segments, positions, images)


def rot_example(record: RotRecord, reader: ConversationReader) -> Example:
    """Only the turn that reflects and corrects; what follows it is left out.

    Raises:
      ChatError, ImageError: see `ConversationReader.read`.
    """
    turns = record.conversation[: record.reflection_turn + 1]
    visible = images_before(record.conversation, len(turns), record.images)
    chat, positions, images = reader.read(turns, visible)
    start, _ = chat.span_of(record.reflection_turn)
    segments = np.where(np.arange(len(chat.tokens)) >= start, chat.segments, 0).astype(np.int8)
    return Example(record.id, chat.tokens, segments, positions, images, record_complexity(record).score)
