"""Offline groups whose failed observation holds pictures: they stand in the branches of its repairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from regrpo_jax.data.batches import collate_groups
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.groups import Group, build_group
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ImageReference, RotRecord, Turn

REPAIRS = {"reflect_correct", "retry_correct", "corrupted"}


@pytest.fixture
def record(rot_record: RotRecord, picture: Callable[[int, int], str]) -> RotRecord:
    """A picture of the task, two in the failed observation, one after the repair, which no branch sees."""
    turns = list(rot_record.conversation)
    said = {1: " <image_00>", 5: "\na.png: <image_01>\nb.png: <image_02>", 7: "\nc.png: <image_03>"}
    for index, words in said.items():
        turns[index] = Turn("user", turns[index].content + words)
    sizes = ((2, 1), (3, 2), (1, 1), (2, 2))
    images = tuple(ImageReference(f"<image_{n:02d}>", picture(*size)) for n, size in enumerate(sizes))
    return dataclasses.replace(rot_record, images=images, conversation=tuple(turns))


def built(record: RotRecord, reader: ConversationReader, conditioning: str) -> Group:
    return build_group(record, reader, conditioning=conditioning, max_prefix=400, max_branch=400)  # type: ignore[arg-type]


def test_repairs_see_what_failed(record: RotRecord, image_reader: ConversationReader) -> None:
    group = built(record, image_reader, "paper")
    assert group.prefix_images == 1 and group.images.merged_grids == ((1, 2), (2, 3), (1, 1))
    image = image_reader.renderer.image_token_id
    for branch in group.branches:
        assert branch.pictures == ((1, 2) if branch.label in REPAIRS else ())
        is_image = branch.tokens == image
        assert np.count_nonzero(is_image) == (7 if branch.label in REPAIRS else 0)
        assert not branch.segments[is_image].any()


def test_the_corrected_branch_is_the_recorded_conversation(record: RotRecord, image_reader: ConversationReader) -> None:
    group = built(record, image_reader, "paper")
    (branch,) = (one for one in group.branches if one.label == "reflect_correct")
    chat, positions, images = image_reader.read(record.conversation[:7], record.images[:3])
    whole = np.concatenate([group.prefix, branch.tokens])
    np.testing.assert_array_equal(whole, chat.tokens[: len(whole)])
    np.testing.assert_array_equal(group.images.patches, images.patches)
    nothing = [np.zeros((5, 1), np.float32)]
    batch = collate_groups(
        [group],
        nothing,
        image_token_id=image_reader.renderer.image_token_id,
        prefix_buckets=(400,),
        branch_buckets=(400,),
    )
    column = group.branches.index(branch)
    real = batch.branches.segment_ids[0, column] > 0
    np.testing.assert_array_equal(
        batch.branches.positions[0, column][real], positions[len(group.prefix) - 1 : len(whole) - 1]
    )
    index = batch.branches.image_index[0, column]
    assert (
        index[index >= 0].tolist() == group.images.features_of(branch.pictures).tolist() and len(branch.pictures) == 2
    )


def test_the_releases_conditioning_has_pictures_of_the_context_alone(
    record: RotRecord, image_reader: ConversationReader
) -> None:
    group = built(record, image_reader, "release")
    assert group.images.merged_grids == ((1, 2),) and not any(branch.pictures for branch in group.branches)


def test_a_branch_without_its_feature_is_refused_by_name(record: RotRecord, image_reader: ConversationReader) -> None:
    group = built(record, image_reader, "paper")
    branches = [dataclasses.replace(one, pictures=one.pictures[:1]) for one in group.branches]
    with pytest.raises(UserError, match=f"{record.id}, .*: 7 image tokens for 6 image features"):
        collate_groups(
            [dataclasses.replace(group, branches=tuple(branches))],
            [np.zeros((5, 1), np.float32)],
            image_token_id=image_reader.renderer.image_token_id,
            prefix_buckets=(400,),
            branch_buckets=(400,),
        )
