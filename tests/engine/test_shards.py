"""Shards: every record once, in order, and none of an earlier, longer corpus is left among them."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.engine.shards import write_images, write_shards
from regrpo_jax.suites.toolrepair import make_task


@given(count=st.integers(0, 40), per_shard=st.integers(1, 12), before=st.integers(0, 40))
def test_every_record_is_there_once(tmp_path_factory, count: int, per_shard: int, before: int) -> None:
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, "rot", [{"id": f"old {number}"} for number in range(before)], 3)
    (folder / "rotten.jsonl").write_text("not ours")
    records = [{"id": number, "text": "a\u2028b\nc"} for number in range(count)]
    paths = write_shards(folder, "rot", records, per_shard)
    assert sorted(folder.glob("rot-*.jsonl")) == paths
    assert [json.loads(line) for path in paths for line in path.read_text().split("\n")[:-1]] == records
    assert (folder / "rotten.jsonl").exists()


def test_a_picture_of_two_tasks_is_stored_once(tmp_path: Path) -> None:
    task = next(task for seed in range(50) if (task := make_task("region", "train", seed)).images)
    write_images(tmp_path, [task, task])
    stored = list((tmp_path / "images").iterdir())
    assert [path.read_bytes() for path in stored] == [task.file(task.images[0])]


def test_nobody_sees_half_a_shard(tmp_path: Path) -> None:
    write_shards(tmp_path, "rot", [{"id": "kept"}], 10)

    class Unwritable:
        pass

    with pytest.raises(TypeError):
        write_shards(tmp_path, "rot", [{"id": "new"}, {"id": Unwritable()}], 10)
    assert [json.loads(line)["id"] for line in (tmp_path / "rot-00000-of-00001.jsonl").read_text().splitlines()] == [
        "kept"
    ]
