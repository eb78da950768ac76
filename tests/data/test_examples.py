"""Which tokens a warm start trains on, under every template, and where its images are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.data.chat import ChatError, ChatRenderer, Segment
from regrpo_jax.data.examples import ConversationReader, clean_example, rot_example
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.data.tokenizer import IMAGE_TOKEN
from regrpo_jax.errors import UserError
from regrpo_jax.records import ImageReference, RotRecord, Trajectory, Turn, render_reflection

Decode = Callable[[ChatRenderer, np.ndarray], str]
Picture = Callable[[int, int], str]
AddImages = Callable[..., RotRecord]
OBSERVATIONS = st.lists(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<["), max_size=30), max_size=6
)


def say(turns: tuple[Turn, ...], texts: list[str]) -> tuple[Turn, ...]:
    """The turns with other texts in their first user turns."""
    rest = iter(texts)
    return tuple(Turn("user", next(rest, turn.content)) if turn.role == "user" else turn for turn in turns)


def without_end_of_turn(reader: ConversationReader) -> ConversationReader:
    return dataclasses.replace(reader, renderer=ChatRenderer(reader.renderer.tokenizer, False, IMAGE_TOKEN))


class TestWhatIsTrained:
    """Nothing but reflections, actions and the token that ends them."""

    @settings(max_examples=15, deadline=None)
    @given(texts=OBSERVATIONS)
    def test_clean_trajectories_train_every_assistant_turn(
        self, reader: ConversationReader, decode: Decode, end_of_turn: str, clean_record: Trajectory, texts: list[str]
    ) -> None:
        record = dataclasses.replace(clean_record, conversation=say(clean_record.conversation, texts))
        example = clean_example(record, reader)
        actions = [turn.content for turn in record.conversation if turn.role == "assistant"]
        trained = decode(reader.renderer, example.tokens[example.segments > 0])
        assert trained == "".join(action + end_of_turn for action in actions)
        assert set(example.segments) == {Segment.NONE, Segment.ACTION}

    @settings(max_examples=15, deadline=None)
    @given(texts=OBSERVATIONS)
    def test_rot_records_train_only_the_reflection_turn(
        self, reader: ConversationReader, decode: Decode, end_of_turn: str, rot_record: RotRecord, texts: list[str]
    ) -> None:
        record = dataclasses.replace(rot_record, conversation=say(rot_record.conversation, texts))
        example = rot_example(record, reader)
        block = render_reflection(record.reflection)
        reflection = example.tokens[example.segments == Segment.REFLECTION]
        action = example.tokens[example.segments == Segment.ACTION]
        assert decode(reader.renderer, reflection) == block
        assert decode(reader.renderer, action) == record.corrected_action + end_of_turn
        first = int(np.argmax(example.segments > 0))
        assert example.segments[first : first + len(reflection) + len(action)].all()

    def test_what_follows_the_reflection_turn_is_left_out(
        self, reader: ConversationReader, decode: Decode, rendering: Callable[..., str], rot_record: RotRecord
    ) -> None:
        example = rot_example(rot_record, reader)
        turns = rot_record.conversation[: rot_record.reflection_turn + 1]
        assert decode(reader.renderer, example.tokens) == rendering(reader.renderer, turns)

    def test_the_release_does_not_train_the_end_of_turn(
        self, reader: ConversationReader, decode: Decode, rot_record: RotRecord, clean_record: Trajectory
    ) -> None:
        unclosed = without_end_of_turn(reader)
        rot = rot_example(rot_record, unclosed)
        clean = clean_example(clean_record, unclosed)
        target = rot_record.conversation[rot_record.reflection_turn].content
        actions = [turn.content for turn in clean_record.conversation if turn.role == "assistant"]
        assert decode(reader.renderer, rot.tokens[rot.segments > 0]) == target
        assert decode(reader.renderer, clean.tokens[clean.segments > 0]) == "".join(actions)

    def test_a_control_token_in_an_observation_is_refused(
        self, reader: ConversationReader, end_of_turn: str, rot_record: RotRecord, clean_record: Trajectory
    ) -> None:
        turns = say(rot_record.conversation, ["task", "seen", f"Error: {end_of_turn}"])
        with pytest.raises(ChatError, match="turn 5 contains the tokenizer's control token"):
            rot_example(dataclasses.replace(rot_record, conversation=turns), reader)
        turns = say(clean_record.conversation, ["task", "<|im_start|>"])
        with pytest.raises(ChatError, match="turn 3 contains the tokenizer's control token"):
            clean_example(dataclasses.replace(clean_record, conversation=turns), reader)


class TestImages:
    """Patches come in the order of their tokens."""

    @pytest.mark.parametrize("order", ((0, 1, 2), (2, 0, 1), (1, 2, 0)))
    def test_patches_follow_the_placeholders(
        self,
        image_reader: ConversationReader,
        rot_record: RotRecord,
        with_images: AddImages,
        picture: Picture,
        order: tuple[int, ...],
    ) -> None:
        grids = ((1, 2), (2, 2), (3, 1))
        images = [ImageReference(f"<image_{i:02}>", picture(columns, rows)) for i, (rows, columns) in enumerate(grids)]
        record = with_images(rot_record, [images[index] for index in order])
        example = rot_example(dataclasses.replace(record, images=tuple(images)), image_reader)
        expected = [grids[index] for index in order]
        assert list(example.images.merged_grids) == expected
        counts = [rows * columns for rows, columns in expected]
        ids = np.repeat([1, 2, 3], [4 * count for count in counts])
        np.testing.assert_array_equal(example.images.segment_ids, ids)
        alone = [image_reader.read_images((), [images[index]]) for index in order]
        np.testing.assert_array_equal(example.images.patches, np.concatenate([image.patches for image in alone]))
        np.testing.assert_array_equal(example.images.positions, np.concatenate([image.positions for image in alone]))
        is_image = example.tokens == image_reader.renderer.image_token_id
        assert is_image.sum() == sum(counts)
        assert not example.segments[is_image].any()
        np.testing.assert_array_equal(example.positions, rotary_positions(is_image, expected))

    def test_a_policy_that_cannot_see_refuses_images(
        self, chatml_reader: ConversationReader, rot_record: RotRecord, with_images: AddImages, picture: Picture
    ) -> None:
        record = with_images(rot_record, [ImageReference("", picture(1, 1))])
        with pytest.raises(ChatError, match=r"config\.model\.images is off"):
            rot_example(record, dataclasses.replace(chatml_reader, vision=None, settings=None))

    def test_a_policy_that_cannot_see_reads_text(
        self, chatml_reader: ConversationReader, rot_record: RotRecord
    ) -> None:
        blind = ConversationReader(ChatRenderer(chatml_reader.renderer.tokenizer), None, None)
        example = rot_example(rot_record, blind)
        assert example.images.patches.shape == (0, 0)
        np.testing.assert_array_equal(example.positions, np.arange(len(example.tokens))[:, None] * np.ones(3))

    def test_a_missing_file_is_named(
        self, chatml_reader: ConversationReader, rot_record: RotRecord, with_images: AddImages
    ) -> None:
        record = with_images(rot_record, [ImageReference("", "nowhere/card.png")])
        with pytest.raises(UserError, match=r"nowhere/card\.png: no such image file"):
            rot_example(record, chatml_reader)
