"""Pictures of episodes on disk: what was seen is there again, byte for byte, or its absence is told by name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from regrpo_jax.agent.rollout import Label, Rollout, RolloutGroup, RolloutTurn, check_rollout
from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.data.online_batches import OnlineBatch, collate_rollouts, image_paths, lacks_images, with_images
from regrpo_jax.data.rollout_buffer import GroupKey, RolloutBuffer, StoredRollouts
from regrpo_jax.data.rollout_credit import CreditSettings
from regrpo_jax.errors import UserError
from regrpo_jax.models.config import VisionConfig
from regrpo_jax.records.types import ImageReference, Status
from tests.data.rollout_groups import IMAGE, make_group
from tests.data.test_rollout_buffer import check_equal

VISION = VisionConfig(depth=1, embed_dim=16, num_heads=1, intermediate_size=64, temporal_patch_size=1)
SETTINGS = ImageSettings(min_pixels=28 * 28, max_pixels=64 * 28 * 28, temporal_patch_size=1)
TOKENS = 2  # of a picture


def picture(folder: Path, seed: int) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (28, 28 * TOKENS, 3), np.uint8)
    path = folder / f"tool {seed}.png"
    Image.fromarray(pixels).save(path)
    return str(path)


def episode(group: int, branch: int, told: list[list[str]], untold: list[str], *, dropped: bool = False) -> Rollout:
    """Turns of three tokens, and between them what was heard with its pictures; those of the last were never told."""
    tokens: list[int] = []
    labels: list[int] = []
    turns, files = [], []
    for number, paths in enumerate([*told, untold]):
        start = len(tokens)
        tokens += [6, 7, 8]
        labels += [Label.THOUGHT, Label.ACTION, Label.ACTION]
        images = tuple(ImageReference(f"<image_{number}{place}>", path) for place, path in enumerate(paths))
        turns.append(RolloutTurn(start, start, len(tokens), "Thought: x", number, Status.OK, "17", images=images))
        if number < len(told):
            files += images
            tokens += [9, *[IMAGE, IMAGE, 10] * len(paths), 11]
            labels += [Label.TEMPLATE, *[Label.OBSERVATION] * 3 * len(paths), Label.TEMPLATE]
    length = len(tokens)
    steps = np.concatenate(
        [np.full(turn.end - begun, turn.step) for turn, begun in zip(turns, [0, *(t.end for t in turns)], strict=False)]
    )
    rollout = Rollout(
        task_id=f"task {group}",
        group=group,
        branch=branch,
        tokens=np.array(tokens, np.int32),
        labels=np.array(labels, np.int8),
        logprobs=np.where(np.array(labels) >= Label.REFLECTION, -0.25 - branch, 0).astype(np.float32),
        steps=steps.astype(np.int16),
        turns=tuple(turns),
        step_success=(True,) * len(turns),
        success=branch == 0,
        outcome="answered",
        dropped=dropped,
        image_files=tuple(files),
    )
    assert len(steps) == length
    check_rollout(rollout)
    return rollout


@pytest.fixture
def group(tmp_path: Path) -> RolloutGroup:
    """The task has a picture; of four branches two share one, one was never told of its last, one was dropped."""
    folder = tmp_path / "made"
    folder.mkdir()
    paths = [picture(folder, seed) for seed in range(6)]
    made = make_group(1, 0, branches=4, images=1, files=paths[:1])
    rollouts = (
        episode(0, 0, [[paths[1]], [], [paths[2], paths[3]]], []),
        episode(0, 1, [[paths[3]], [paths[1], paths[1]]], [paths[4]]),
        episode(0, 2, [[]], []),
        episode(0, 3, [[paths[5]]], [], dropped=True),
    )
    return dataclasses.replace(made, rollouts=rollouts)


def stored(folder: Path, group: RolloutGroup) -> StoredRollouts:
    with RolloutBuffer(folder) as buffer:
        buffer.add_group(0, group, planned=4)
        for rollout in group.rollouts:
            buffer.add_rollout(0, rollout)
    return StoredRollouts(folder)


def collate(group: RolloutGroup) -> OnlineBatch:
    return collate_rollouts(
        [with_images(dataclasses.replace(group, images=None), SETTINGS, VISION)],
        rows=1,
        branches=4,
        credit=CreditSettings("step", "shared", normalize=True),
        policy_version=0,
        image_token_id=IMAGE,
        prefix_buckets=(16,),
        branch_buckets=(64,),
    )


def references(rollout: Rollout) -> list[ImageReference]:
    return [*rollout.image_files, *(image for turn in rollout.turns for image in turn.images)]


def test_pictures_come_back_byte_for_byte(tmp_path: Path, group: RolloutGroup) -> None:
    memory = collate(group)
    contents = {one: Path(one.path).read_bytes() for rollout in group.rollouts for one in references(rollout)}
    kept = stored(tmp_path / "buffer", group)
    names = sorted(path.name for path in (tmp_path / "buffer" / "images").iterdir())
    assert len(names) == 6, "each once, the untold and the dropped ones included"
    for path in (tmp_path / "made").iterdir():
        path.unlink()
    again = kept.group(GroupKey(0, 0))
    for before, after in zip(group.rollouts, again.rollouts, strict=True):
        assert len(references(before)) == len(references(after))
        for one, other in zip(references(before), references(after), strict=True):
            assert one.placeholder == other.placeholder and Path(other.path).read_bytes() == contents[one]
            assert Path(other.path).parent == tmp_path / "buffer" / "images"
        plain = [strip(rollout) for rollout in (before, after)]
        assert json.dumps(plain[0]) == json.dumps(plain[1])
    assert [len(turn.images) for turn in again.rollouts[1].turns] == [1, 2, 1]
    check_equal(collate(again), memory)


def strip(rollout: Rollout) -> object:
    """All but where pictures are."""
    turns = tuple(dataclasses.replace(turn, images=()) for turn in rollout.turns)
    return dataclasses.replace(rollout, turns=turns, image_files=()).to_json()


def test_the_row_holds_each_picture_once_and_branches_point_at_it(group: RolloutGroup) -> None:
    batch, packed = collate(group), with_images(dataclasses.replace(group, images=None), SETTINGS, VISION)
    assert [Path(path).name for path in image_paths(group)] == [f"tool {n}.png" for n in (0, 1, 2, 3)]
    assert packed.images is not None and packed.images.token_counts == (TOKENS,) * 4
    index = batch.branches.image_index[0]
    first, second, third, fourth = (packed.images.features_of([image]).tolist() for image in range(4))
    assert len({*first, *second, *third, *fourth}) == 4 * TOKENS
    shown = [[*second, *third, *fourth], [*fourth, *second, *second], [], []]
    assert [row[row >= 0].tolist() for row in index] == shown
    assert batch.prefix.image_index[batch.prefix.image_index >= 0].tolist() == first
    assert not batch.branches.segment_ids[0, 3].any()
    with pytest.raises(ValueError, match="has images, but the policy is text-only"):
        with_images(dataclasses.replace(group, images=None), None, None)


def test_images_of_the_prefix_alone_are_not_enough(group: RolloutGroup) -> None:
    """As a session leaves a group: only the prefix's pictures are packed."""
    of_prefix = with_images(dataclasses.replace(group, images=None, rollouts=group.rollouts[2:3]), SETTINGS, VISION)
    left = dataclasses.replace(group, images=of_prefix.images)
    check_equal(collate(left), collate(group))
    with pytest.raises(ValueError, match="lacks images of rollouts"):
        collate_rollouts(
            [left],
            rows=1,
            branches=4,
            credit=CreditSettings("step", "shared", normalize=True),
            policy_version=0,
            image_token_id=IMAGE,
            prefix_buckets=(16,),
            branch_buckets=(64,),
        )
    full = with_images(left, SETTINGS, VISION)
    assert lacks_images(dataclasses.replace(full, images=None)) and not lacks_images(full)


@pytest.mark.parametrize("damage", ["changed", "missing"])
@pytest.mark.parametrize("which", [2, 4, 5])
def test_a_picture_that_is_not_what_was_seen_is_told(
    tmp_path: Path, group: RolloutGroup, damage: str, which: int
) -> None:
    """One that was told, one that never was, and one of a dropped episode."""
    content = (tmp_path / "made" / f"tool {which}.png").read_bytes()
    kept = stored(tmp_path / "buffer", group)
    (path,) = (p for p in (tmp_path / "buffer" / "images").iterdir() if p.read_bytes() == content)
    if damage == "changed":
        path.write_bytes(content[:-1] + b"\0")
    else:
        path.unlink()
    words = "not the image that was stored" if damage == "changed" else "cannot be read"
    with pytest.raises(UserError, match=f"{path.name}: .*{words}"):
        kept.group(GroupKey(0, 0))


def test_a_picture_that_is_gone_before_it_is_kept_is_told(tmp_path: Path, group: RolloutGroup) -> None:
    path = Path(group.rollouts[0].image_files[0].path)
    path.unlink()
    with RolloutBuffer(tmp_path / "buffer") as buffer:
        buffer.add_group(0, group, planned=4)
        with pytest.raises(UserError, match=f"{path.name}: cannot be kept"):
            buffer.add_rollout(0, group.rollouts[0])
        buffer.add_rollout(0, group.rollouts[2])
    assert StoredRollouts(tmp_path / "buffer").unfinished == (GroupKey(0, 0),)


def test_what_was_written_before_there_were_pictures_is_read(group: RolloutGroup) -> None:
    told = group.rollouts[2].to_json()
    del told["image_files"]
    for turn in told["turns"]:
        del turn["images"]
    again = Rollout.from_json(told)
    assert again.image_files == () and again.turns == group.rollouts[2].turns


def test_books_with_pictures_survive_json(group: RolloutGroup) -> None:
    for rollout in group.rollouts:
        again = Rollout.from_json(json.loads(json.dumps(rollout.to_json())))
        assert references(again) == references(rollout) and again.turns == rollout.turns
        assert again.shown_paths == rollout.shown_paths
    paths = [Path(path).name for path in group.rollouts[1].shown_paths]
    assert paths == ["tool 3.png", "tool 1.png", "tool 4.png"]
