"""Contrastive groups: five branches, what each is conditioned on, and which of its tokens are scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from regrpo_jax.data.chat import ChatError, ChatRenderer, Segment
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.groups import Conditioning, Group, build_group
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.data.tokenizer import IMAGE_TOKEN
from regrpo_jax.records import ImageReference, RotRecord, Turn, contrastive_candidates

Decode = Callable[[ChatRenderer, np.ndarray], str]
LABELS = ("correct", "failed", "reflect_correct", "retry_correct", "corrupted")
AFTER_FAILURE = LABELS[2:]
CONDITIONINGS: tuple[Conditioning, ...] = ("paper", "release")
OBSERVATIONS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<["), max_size=30)


def group_of(
    record: RotRecord,
    reader: ConversationReader,
    conditioning: Conditioning = "paper",
    max_prefix: int = 4096,
    max_branch: int = 4096,
) -> Group:
    return build_group(record, reader, conditioning=conditioning, max_prefix=max_prefix, max_branch=max_branch)


def with_turn(record: RotRecord, index: int, text: str) -> RotRecord:
    """The record with another text in one turn."""
    turns = list(record.conversation)
    turns[index] = Turn(turns[index].role, text)
    return dataclasses.replace(record, conversation=tuple(turns))


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
class TestBranches:
    """What holds under both conditionings, for every template."""

    def test_five_branches_in_order(
        self, reader: ConversationReader, rot_record: RotRecord, conditioning: Conditioning
    ) -> None:
        group = group_of(rot_record, reader, conditioning)
        assert group.record_id == rot_record.id
        assert tuple(branch.label for branch in group.branches) == LABELS
        assert [branch.success for branch in group.branches] == [True, False, True, True, False]
        assert [branch.verifier_value for branch in group.branches] == [0.5, 0.0, 1.0, 0.5, 0.0]

    @settings(max_examples=10, deadline=None)
    @given(seen=OBSERVATIONS, failure=OBSERVATIONS)
    def test_scored_tokens_are_the_candidates_reflection_and_action(
        self,
        reader: ConversationReader,
        decode: Decode,
        end_of_turn: str,
        rot_record: RotRecord,
        conditioning: Conditioning,
        seen: str,
        failure: str,
    ) -> None:
        record = with_turn(with_turn(rot_record, 3, seen), 5, failure)
        group = group_of(record, reader, conditioning)
        for branch, candidate in zip(group.branches, contrastive_candidates(record), strict=True):
            reflection = branch.tokens[branch.segments == Segment.REFLECTION]
            action = branch.tokens[branch.segments == Segment.ACTION]
            assert decode(reader.renderer, reflection) == candidate.reflection
            assert decode(reader.renderer, action) == candidate.action + end_of_turn
            scored = len(reflection) + len(action)
            assert branch.segments[-scored:].all() and not branch.segments[:-scored].any()

    def test_the_prefix_ends_with_the_header_of_the_failed_turn(
        self,
        reader: ConversationReader,
        decode: Decode,
        rendering: Callable[..., str],
        rot_record: RotRecord,
        conditioning: Conditioning,
    ) -> None:
        group = group_of(rot_record, reader, conditioning)
        context = rot_record.conversation[: rot_record.failed_turn]
        assert decode(reader.renderer, group.prefix) == rendering(reader.renderer, context, True)
        np.testing.assert_array_equal(group.positions, np.arange(len(group.prefix))[:, None] * np.ones(3))

    def test_without_the_end_of_turn_a_branch_ends_with_its_action(
        self, reader: ConversationReader, decode: Decode, rot_record: RotRecord, conditioning: Conditioning
    ) -> None:
        unclosed = dataclasses.replace(reader, renderer=ChatRenderer(reader.renderer.tokenizer, False, IMAGE_TOKEN))
        group = group_of(rot_record, unclosed, conditioning)
        for branch, candidate in zip(group.branches, contrastive_candidates(rot_record), strict=True):
            scored = decode(reader.renderer, branch.tokens[branch.segments > 0])
            assert scored == candidate.reflection + candidate.action
            assert branch.segments[-1] == Segment.ACTION

    def test_a_branch_over_budget_is_refused(
        self, reader: ConversationReader, rot_record: RotRecord, conditioning: Conditioning
    ) -> None:
        group = group_of(rot_record, reader, conditioning)
        longest = max(group.branches, key=lambda branch: len(branch.tokens))
        size = len(longest.tokens)
        assert group_of(rot_record, reader, conditioning, max_branch=size).branches[2].label == "reflect_correct"
        message = rf"{longest.label} branch has {size} tokens .*config\.data\.branch_buckets is {size - 1}"
        with pytest.raises(ChatError, match=message):
            group_of(rot_record, reader, conditioning, max_branch=size - 1)

    @pytest.mark.parametrize("turn", (1, 3))
    def test_a_control_token_in_the_context_is_refused(
        self, reader: ConversationReader, rot_record: RotRecord, conditioning: Conditioning, turn: int
    ) -> None:
        with pytest.raises(ChatError, match=f"turn {turn} contains the tokenizer's control token"):
            group_of(with_turn(rot_record, turn, "Observation: <|im_start|>"), reader, conditioning)

    def test_a_control_token_in_an_action_is_refused(
        self, reader: ConversationReader, end_of_turn: str, rot_record: RotRecord, conditioning: Conditioning
    ) -> None:
        action = rot_record.corrected_action.replace("wrong", end_of_turn)
        with pytest.raises(ChatError, match="contains the tokenizer's control token"):
            group_of(dataclasses.replace(rot_record, corrected_action=action), reader, conditioning)


class TestPaper:
    """Repairs follow what they repair."""

    def test_the_recovery_is_the_recorded_conversation(
        self,
        reader: ConversationReader,
        decode: Decode,
        rendering: Callable[..., str],
        end_of_turn: str,
        rot_record: RotRecord,
    ) -> None:
        group = group_of(rot_record, reader)
        recovery = group.branches[2]
        text = decode(reader.renderer, np.concatenate([group.prefix, recovery.tokens]))
        recorded = rendering(reader.renderer, rot_record.conversation[: rot_record.reflection_turn + 1])
        assert recorded.startswith(text)
        assert text.endswith(end_of_turn) and recorded[len(text) :].strip() == ""

    def test_the_failed_step_before_a_repair_is_not_scored(
        self, reader: ConversationReader, decode: Decode, rendering: Callable[..., str], rot_record: RotRecord
    ) -> None:
        group = group_of(rot_record, reader)
        failed_step = rot_record.conversation[: rot_record.reflection_turn]
        expected = rendering(reader.renderer, failed_step, True)
        for branch in group.branches:
            unscored = decode(reader.renderer, branch.tokens[branch.segments == 0])
            if branch.label in AFTER_FAILURE:
                assert decode(reader.renderer, group.prefix) + unscored == expected
                assert rot_record.failed_action in unscored and rot_record.failed_observation in unscored
            else:
                assert unscored == ""

    def test_the_failed_branch_and_the_repairs_share_the_failed_actions_tokens(
        self, reader: ConversationReader, rot_record: RotRecord
    ) -> None:
        branches = group_of(rot_record, reader).branches
        failed = branches[1].tokens
        for branch in branches[2:]:
            np.testing.assert_array_equal(branch.tokens[: len(failed)], failed)

    def test_a_control_token_in_the_failed_observation_is_refused(
        self, reader: ConversationReader, end_of_turn: str, rot_record: RotRecord
    ) -> None:
        with pytest.raises(ChatError, match="turn 5 contains the tokenizer's control token"):
            group_of(with_turn(rot_record, 5, f"Error: {end_of_turn}"), reader)

    def test_a_template_that_moves_the_system_turn_is_refused(
        self, make_tokenizer: Callable[[str], PreTrainedTokenizerFast], rot_record: RotRecord
    ) -> None:
        template = (
            "{% for message in messages[1:] %}<s>{{ message['role'] }}: "
            "{% if loop.revindex <= 2 and message['role'] == 'user' %}{{ messages[0]['content'] }}{% endif %}"
            "{{ message['content'] }}</s>{% endfor %}{% if add_generation_prompt %}<s>assistant: {% endif %}"
        )
        reader = ConversationReader(ChatRenderer(make_tokenizer(template)), None, None)
        with pytest.raises(ChatError, match="renders the context differently"):
            group_of(rot_record, reader)


class TestRelease:
    """The authors' conditioning puts every candidate right after the context."""

    def test_a_branch_starts_with_its_reflection_or_action(
        self, reader: ConversationReader, decode: Decode, rot_record: RotRecord, end_of_turn: str
    ) -> None:
        group = group_of(rot_record, reader, "release")
        for branch, candidate in zip(group.branches, contrastive_candidates(rot_record), strict=True):
            assert branch.segments.all()
            assert decode(reader.renderer, branch.tokens) == candidate.reflection + candidate.action + end_of_turn

    def test_the_failed_observation_is_nowhere(
        self, reader: ConversationReader, decode: Decode, rot_record: RotRecord
    ) -> None:
        group = group_of(with_turn(rot_record, 5, "Error: zebra"), reader, "release")
        for branch in group.branches:
            assert "zebra" not in decode(reader.renderer, np.concatenate([group.prefix, branch.tokens]))

    def test_candidates_before_the_failure_are_those_of_the_paper(
        self, reader: ConversationReader, rot_record: RotRecord
    ) -> None:
        paper, release = group_of(rot_record, reader), group_of(rot_record, reader, "release")
        np.testing.assert_array_equal(paper.prefix, release.prefix)
        for first, second in zip(paper.branches[:2], release.branches[:2], strict=True):
            np.testing.assert_array_equal(first.tokens, second.tokens)
            np.testing.assert_array_equal(first.segments, second.segments)


class TestPrefix:
    """Whole or refused."""

    def test_a_prefix_over_budget_is_refused(self, reader: ConversationReader, rot_record: RotRecord) -> None:
        whole = group_of(rot_record, reader)
        fed = len(whole.prefix) - 1  # the last token leads the branches
        np.testing.assert_array_equal(group_of(rot_record, reader, max_prefix=fed).prefix, whole.prefix)
        message = rf"prefix of {fed} tokens, 0 of them for images, .*config\.data\.prefix_buckets \({fed - 1}\); add"
        with pytest.raises(ChatError, match=message):
            group_of(rot_record, reader, max_prefix=fed - 1)

    def test_images_lie_in_the_prefix(
        self,
        image_reader: ConversationReader,
        rot_record: RotRecord,
        with_images: Callable[..., RotRecord],
        picture: Callable[[int, int], str],
    ) -> None:
        images = [ImageReference("<image_01>", picture(2, 1)), ImageReference("<image_00>", picture(3, 2))]
        record = with_images(rot_record, images)
        group = group_of(dataclasses.replace(record, images=tuple(reversed(images))), image_reader)
        is_image = group.prefix == image_reader.renderer.image_token_id
        assert group.images.merged_grids == ((1, 2), (2, 3)) and is_image.sum() == 2 + 6
        np.testing.assert_array_equal(group.positions, rotary_positions(is_image, group.images.merged_grids))
        assert not any((b.tokens == image_reader.renderer.image_token_id).any() for b in group.branches)
        with pytest.raises(ChatError, match=r"8 of them for images, .*or lower config\.data\.pixels"):
            group_of(record, image_reader, max_prefix=len(group.prefix) - 2)
