"""Writers that are really killed: what was whole is there afterwards, and an update can be repeated from it."""

import dataclasses
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grain
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.data import rollout_buffer
from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.data.online_batches import OnlineBatch, collate_rollouts, with_images
from regrpo_jax.data.rollout_buffer import GroupKey, RolloutBuffer, StoredRollouts
from regrpo_jax.data.rollout_credit import CreditSettings
from regrpo_jax.errors import UserError
from regrpo_jax.models.config import VisionConfig
from tests.data.rollout_groups import IMAGE, make_group

ROOT = Path(__file__).resolve().parents[2]
BRANCHES = 3
VISION = VisionConfig(depth=1, embed_dim=16, num_heads=1, intermediate_size=64, temporal_patch_size=1)
SETTINGS = ImageSettings(min_pixels=28 * 28, max_pixels=64 * 28 * 28, temporal_patch_size=1)

# Writes groups without end and says, after each rollout, that it is written.
WRITER = """
import sys
from pathlib import Path
from regrpo_jax.data.rollout_buffer import RolloutBuffer
from tests.data.rollout_groups import make_group
buffer = RolloutBuffer(Path(sys.argv[1]))
for number in range(int(sys.argv[2]), 10**6):
    group = make_group(1, number, branches=3, files=(sys.argv[3],))
    buffer.add_group(0, group, planned=3)
    for rollout in group.rollouts:
        buffer.add_rollout(0, rollout)
        print(number, rollout.branch, flush=True)
"""


def same(first: RolloutGroup, second: RolloutGroup) -> bool:
    """Everything but the places of image files, bit for bit."""
    told = [dataclasses.replace(group, image_files=()).to_json() for group in (first, second)]
    return json.dumps(told[0]) == json.dumps(told[1])


def picture(path: Path, seed: int = 0) -> str:
    pixels = np.random.default_rng(seed).integers(0, 256, (28, 56, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return str(path)


def write(folder: Path, groups: list[RolloutGroup], round_number: int = 0) -> None:
    with RolloutBuffer(folder) as buffer:
        for group in groups:
            buffer.add_group(round_number, group, planned=len(group.rollouts))
            for rollout in group.rollouts:
                buffer.add_rollout(round_number, rollout)


def test_killed_writers_lose_nothing_whole(tmp_path: Path) -> None:
    """Five writers, one after another, each killed at a random moment; each goes on where the last one was killed."""
    folder, card = tmp_path / "buffer", picture(tmp_path / "card.png")
    said: set[tuple[int, int]] = set()
    chance = random.SystemRandom()
    for _ in range(5):
        first = max((group for group, _ in said), default=-1) + 1
        command = [sys.executable, "-c", WRITER, str(folder), str(first), card]
        log = tmp_path / "said"
        with log.open("w") as stream:
            process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=subprocess.PIPE, text=True)
            while not log.read_text():  # until it has begun to write
                assert process.poll() is None, process.communicate()
                time.sleep(0.002)
            time.sleep(chance.random() * 0.3)
            os.kill(process.pid, signal.SIGKILL)
            _, told = process.communicate(timeout=600)
        assert process.returncode == -signal.SIGKILL, told
        said |= {tuple(map(int, line.split())) for line in log.read_text().split("\n")[:-1]}
        RolloutBuffer(folder).close()  # drops what is cut
        stored = StoredRollouts(folder)
        found = {}
        for key in (*stored.keys, *stored.unfinished):
            group = stored.group(key)
            found |= {(key.group, rollout.branch): rollout for rollout in group.rollouts}
            made = make_group(1, key.group, branches=BRANCHES)
            assert same(group, dataclasses.replace(made, rollouts=made.rollouts[: len(group.rollouts)]))
            assert Path(group.image_files[0].path).read_bytes() == Path(card).read_bytes()
        assert found.keys() >= said
        assert len(found) - len(said) <= 5  # one that was written and not said, per kill
    assert len(said) > 15
    assert len(list((folder / "images").glob("*.png"))) == 1


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(0, 3000), seed=st.integers(0, 100))
def test_a_cut_end_is_dropped_and_written_over(tmp_path_factory: pytest.TempPathFactory, cut: int, seed: int) -> None:
    folder = tmp_path_factory.mktemp("buffer")
    groups = [make_group(seed, number, branches=2, steps=1) for number in range(3)]
    write(folder, groups)
    path = folder / "rollouts-0000.jsonl"
    data = path.read_bytes()[: -cut or None]
    path.write_bytes(data)
    whole = data.count(b"\n")
    write(folder, [make_group(seed, 7, branches=2)])
    assert path.read_bytes().count(b"\n") == max(whole, 1) + 3
    stored = StoredRollouts(folder)
    assert GroupKey(0, 7) in stored.keys
    for number, group in enumerate(groups):
        if whole >= 4 + 3 * number:  # the header, and three lines for each group
            assert same(stored.group(GroupKey(0, number)), group)
        else:
            assert GroupKey(0, number) not in stored.keys


def test_an_update_from_the_buffer_is_the_one_from_memory(tmp_path: Path) -> None:
    cards = [picture(tmp_path / f"{seed}.png", seed) for seed in range(2)]
    groups = [
        with_images(make_group(2, number, branches=4, images=1, files=(cards[number % 2],)), SETTINGS, VISION)
        for number in range(3)
    ]
    order = [GroupKey(5, 2), GroupKey(5, 0)]
    with RolloutBuffer(tmp_path / "buffer") as buffer:
        for group in groups:
            buffer.add_group(5, group, planned=4)
        for branch in (3, 1, 0, 2):  # as they happen to finish
            for group in groups:
                buffer.add_rollout(5, group.rollouts[branch])
        buffer.add_update(9, order)
    for card in cards:
        Path(card).unlink()
    stored = StoredRollouts(tmp_path / "buffer")
    repeated = [with_images(group, SETTINGS, VISION) for group in stored.update(9)]
    from_buffer, from_memory = collate(repeated), collate([groups[key.group] for key in order])
    check_equal(from_buffer, from_memory)
    with pytest.raises(KeyError):
        stored.update(8)


def collate(groups: list[RolloutGroup]) -> OnlineBatch:
    return collate_rollouts(
        groups,
        rows=3,
        branches=4,
        credit=CreditSettings("step", "shared", normalize=True),
        policy_version=0,
        image_token_id=IMAGE,
        prefix_buckets=(16, 32),
        branch_buckets=(32, 64, 128),
    )


def check_equal(first: Any, second: Any) -> None:
    """Bit for bit, types included."""
    if hasattr(first, "__dataclass_fields__"):
        for name in first.__dataclass_fields__:
            check_equal(getattr(first, name), getattr(second, name))
        return
    first, second = np.asarray(first), np.asarray(second)
    assert (first.dtype, first.shape, first.tobytes()) == (second.dtype, second.shape, second.tobytes())


def test_grain_reads_it_with_threads_and_other_processes_can(tmp_path: Path) -> None:
    groups = [make_group(3, number, branches=2, steps=1) for number in range(8)]
    write(tmp_path, groups)
    stored = StoredRollouts(tmp_path)
    assert len(stored) == 8 and same(stored[-1], groups[-1]) and same(stored[2:4][1], groups[3])
    sent = pickle.loads(pickle.dumps(stored))  # as grain sends it to a worker
    dataset = grain.MapDataset.source(sent).seed(0).shuffle().to_iter_dataset(grain.ReadOptions(num_threads=4))
    read = list(dataset)
    assert sorted(group.group for group in read) == list(range(8))
    assert [group.group for group in read] != list(range(8))
    for group in read:
        assert same(group, groups[group.group])


def test_what_is_written_twice_counts_as_it_was_written_last(tmp_path: Path) -> None:
    first, second = make_group(4, 0, branches=2), make_group(5, 0, branches=2)
    write(tmp_path, [first])
    write(tmp_path, [first], round_number=1)
    write(tmp_path, [second])
    stored = StoredRollouts(tmp_path)
    assert set(stored.keys) == {GroupKey(0, 0), GroupKey(1, 0)}
    assert same(stored.group(GroupKey(0, 0)), second)
    assert same(stored.group(GroupKey(1, 0)), first)


def test_a_round_that_is_played_again_is_not_mixed_with_what_was_there(tmp_path: Path) -> None:
    first = [make_group(4, number, branches=2) for number in range(2)]
    second = [make_group(5, number, branches=2) for number in range(2)]
    write(tmp_path, first, round_number=1)
    write(tmp_path, first, round_number=2)
    with RolloutBuffer(tmp_path) as buffer:
        buffer.add_update(1, [GroupKey(1, 0), GroupKey(1, 1)])
        buffer.add_update(2, [GroupKey(2, 0), GroupKey(2, 1)])
        buffer.add_group(2, second[0], planned=2)
        buffer.add_rollout(2, second[0].rollouts[1])  # and then it was killed again
    stored = StoredRollouts(tmp_path)
    assert stored.updates == {1: (GroupKey(1, 0), GroupKey(1, 1))} and stored.unfinished == (GroupKey(2, 0),)
    assert [rollout.to_json() for rollout in stored.group(GroupKey(2, 0)).rollouts] == [second[0].rollouts[1].to_json()]
    write(tmp_path, second, round_number=2)
    assert all(same(group, other) for group, other in zip(StoredRollouts(tmp_path)[2:], second, strict=True))


def test_groups_without_all_their_rollouts_are_not_read_as_complete(tmp_path: Path) -> None:
    group = make_group(6, 0, branches=2)
    write(tmp_path, [dataclasses.replace(group, rollouts=())])
    with RolloutBuffer(tmp_path) as buffer:
        buffer.add_group(1, group, planned=2)
        buffer.add_rollout(1, group.rollouts[1])
        stored = StoredRollouts(tmp_path)  # a reader beside a live writer
        assert stored.keys == (GroupKey(0, 0),) and stored.unfinished == (GroupKey(1, 0),)
        assert [rollout.branch for rollout in stored.group(GroupKey(1, 0)).rollouts] == [1]


def test_threads_and_processes_keep_out_of_each_others_lines(tmp_path: Path) -> None:
    groups = [make_group(7, number, branches=8) for number in range(6)]
    with RolloutBuffer(tmp_path) as buffer, RolloutBuffer(tmp_path, writer=1) as other:

        def play(group: RolloutGroup) -> None:
            writer = (buffer, other)[group.group % 2]
            writer.add_group(0, group, planned=8)
            for rollout in group.rollouts:
                writer.add_rollout(0, rollout)

        threads = [threading.Thread(target=play, args=(group,)) for group in groups]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with pytest.raises(UserError, match="another process writes to it"):
            RolloutBuffer(tmp_path)
    stored = StoredRollouts(tmp_path)
    assert len(stored) == 6
    for group in groups:
        assert same(stored.group(GroupKey(0, group.group)), group)


def test_a_full_disk_is_told_and_leaves_no_half_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    group = make_group(8, 0, branches=2)
    real = os.write
    with RolloutBuffer(tmp_path) as buffer:
        buffer.add_group(0, group, planned=2)
        buffer.add_rollout(0, group.rollouts[0])

        def half(file: int, data: Any) -> int:
            if len(data) > 100:
                return real(file, bytes(data)[:100])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(rollout_buffer.os, "write", half)
        with pytest.raises(UserError, match="No space left on device"):
            buffer.add_rollout(0, group.rollouts[1])
        monkeypatch.undo()
        buffer.add_rollout(0, group.rollouts[1])
    assert same(StoredRollouts(tmp_path)[0], group)


def test_damage_in_the_middle_other_versions_and_nothing_at_all_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rollouts are stored here"):
        StoredRollouts(tmp_path)
    write(tmp_path, [make_group(9, 0, branches=2)])
    path = tmp_path / "rollouts-0000.jsonl"
    whole = path.read_bytes()
    stored = StoredRollouts(tmp_path)
    path.write_bytes(whole.replace(b'"ledger"', b'"lodger"'))
    with pytest.raises(UserError, match="the line at byte .* is damaged"):
        StoredRollouts(tmp_path)
    with pytest.raises(UserError, match="changed since it was opened"):
        stored.group(GroupKey(0, 0))
    path.write_bytes(rollout_buffer._line(rollout_buffer.HEADER | {"version": 2}))
    with pytest.raises(UserError, match="not regrpo_jax rollouts, version 1"):
        RolloutBuffer(tmp_path)


@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_an_image_that_is_not_what_was_seen_is_told(tmp_path: Path, damage: str) -> None:
    card = picture(tmp_path / "card.png")
    write(tmp_path / "buffer", [make_group(10, 0, files=(card, card))])
    (kept,) = (tmp_path / "buffer" / "images").iterdir()
    stored = StoredRollouts(tmp_path / "buffer")
    assert [image.path for image in stored[0].image_files] == [str(kept)] * 2
    if damage == "changed":
        picture(kept, seed=1)
    else:
        kept.unlink()
    with pytest.raises(UserError, match="not the image that was stored" if damage == "changed" else "cannot be read"):
        stored.group(GroupKey(0, 0))


def test_it_needs_no_jax() -> None:
    code = "import sys, regrpo_jax.data.rollout_buffer; print({'jax', 'flax', 'grain'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.stdout.strip() == "set()", done.stderr
