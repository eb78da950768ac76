"""What is decided without another process: whose rows, whose states, which address, and what the process above says."""

import io
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config
from regrpo_jax.config.checks import check_config
from regrpo_jax.data.batches import collate_groups
from regrpo_jax.data.examples import Example
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import PackedImages
from regrpo_jax.data.loader import sft_batches
from regrpo_jax.errors import UserError
from regrpo_jax.hosts import supervisor
from regrpo_jax.hosts.connection import _address
from regrpo_jax.hosts.notes import Notes
from regrpo_jax.hosts.role import Role
from regrpo_jax.rollouts.parted_play import part_of

IMAGE = 7


@given(st.integers(0, 300), st.integers(1, 40))
def test_every_state_is_played_by_one_process(states: int, processes: int) -> None:
    parts = [part_of(states, Role(index, processes)) for index in range(processes)]
    assert [state for part in parts for state in part] == list(range(states))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def hosts(**values: Any) -> ConfigDict:
    config = base_config().hosts
    config.update(values)
    return config


@given(st.integers(1, 64), st.data())
def test_an_address_is_what_is_set_before_what_the_environment_says(processes: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, processes - 1))
    said = {"JAX_COORDINATOR_ADDRESS": "10.0.0.2:8476", "JAX_NUM_PROCESSES": str(processes), "JAX_PROCESS_ID": "0"}
    found = _address(hosts(index=index), said)
    assert found == {"coordinator_address": "10.0.0.2:8476", "num_processes": processes, "process_id": index}


@given(st.text(max_size=20), st.text(max_size=4), st.text(max_size=4))
def test_no_text_of_the_environment_ends_in_a_traceback(address: str, processes: str, index: str) -> None:
    said = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": processes, "JAX_PROCESS_ID": index}
    try:
        found = _address(hosts(), said)
    except UserError:
        return
    assert 0 <= found["process_id"] < found["num_processes"] and ":" in found["coordinator_address"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"coordinator": "here"}, "config.hosts.coordinator is 'here'"),
        ({"coordinator": "h:1", "processes": 2}, "config.hosts.index is not set, and JAX_PROCESS_ID is ''"),
        ({"coordinator": "h:1", "index": 0}, "config.hosts.processes is not set"),
        ({"coordinator": "h:1", "processes": 2, "index": 2}, "number them from 0 to 1"),
    ],
)
def test_an_address_that_is_none_is_refused(values: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words.replace("(", r"\(")):
        _address(hosts(**values), {})


@pytest.mark.parametrize(("field", "value"), [("stages", ("plan",)), ("online.staleness", 1)])
def test_what_several_processes_cannot_do_is_refused(field: str, value: Any) -> None:
    config = base_config()
    config.hosts.kind = "detect"
    config.stages = ("online",)
    config.online.weight_cap = 2.0
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match="choose '?(one|0)"):
        check_config(config)


def packed(rng: np.random.Generator, count: int) -> PackedImages:
    """So many pictures of one token each."""
    places = np.tile(np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.int32), (count, 1))
    ids = np.repeat(np.arange(1, count + 1, dtype=np.int32), 4)
    return PackedImages(rng.random((4 * count, 6), np.float32), places, ids, ids, ((1, 1),) * count)


def group(rng: np.random.Generator, number: int) -> Group:
    images = packed(rng, number % 3)
    prefix = np.array([IMAGE] * (number % 3) + [1] * (3 + number), np.int32)
    positions = np.repeat(np.arange(len(prefix), dtype=np.int32)[:, None], 3, axis=1)

    def branch(label: str, size: int) -> Branch:
        return Branch(label, np.arange(2, 2 + size, dtype=np.int32) % 6, np.ones(size, np.int8), True, 0.5)

    branches = (branch("correct", 3 + number), branch("failed", 4 + number))
    return Group(str(number), prefix, positions, images, branches)


def test_a_process_s_rows_of_groups_are_those_of_the_whole_batch() -> None:
    rng = np.random.default_rng(0)
    groups = [group(rng, number) for number in range(6)]
    reference = [rng.random((2, 4)).astype(np.float32) for _ in groups]
    options: dict[str, Any] = {"image_token_id": IMAGE, "prefix_buckets": (8, 16), "branch_buckets": (8, 16)}
    whole = collate_groups(groups, reference, **options)
    for rows in ([0, 1], [4], [2, 5]):
        part = collate_groups(groups, reference, rows=rows, **options)
        jax.tree.map(np.testing.assert_array_equal, part, jax.tree.map(lambda array: array[rows], whole))  # noqa: B023


def test_a_process_s_rows_of_packed_examples_are_those_of_the_whole_batch() -> None:
    rng = np.random.default_rng(1)

    def example(number: int) -> Example:
        images = packed(rng, number % 3)
        tokens = np.array([IMAGE] * (number % 3) + [number % 6] * (4 + number % 5), np.int32)
        positions = np.repeat(np.arange(len(tokens), dtype=np.int32)[:, None], 3, axis=1)
        return Example(str(number), tokens, np.ones(len(tokens), np.int8), positions, images)

    clean, rot = [example(number) for number in range(9)], [example(number) for number in range(9, 20)]
    options: dict[str, Any] = {
        "clean_ratio": 0.5, "batch_rows": 4, "row_length": 24, "row_patches": 16, "image_token_id": IMAGE, "seed": 3,
    }  # fmt: skip
    whole, part = sft_batches(clean, rot, **options), sft_batches(clean, rot, rows=[1, 2], **options)
    seen = 0
    for _ in range(5):
        batch, own = next(whole), next(part)
        seen += int(np.count_nonzero(batch.images.patches))
        wanted = jax.tree.map(lambda array: array[[1, 2]], batch)
        for name in ("block", "segments"):
            jax.tree.map(np.testing.assert_array_equal, getattr(own, name), getattr(wanted, name))
        np.testing.assert_array_equal(own.images.patches, wanted.images.patches)
        np.testing.assert_array_equal(own.images.positions, wanted.images.positions)
        for row, other in zip(own.images.segment_ids, wanted.images.segment_ids, strict=True):
            assert np.array_equal(row[:, None] == row, other[:, None] == other)  # the same patches belong together
    assert seen


def test_notes_are_of_one_start_and_of_other_processes(tmp_path: Path) -> None:
    earlier, now = Notes(tmp_path, "a"), Notes(tmp_path, "b")
    earlier.begin()
    earlier.ended(1, "it was ended by SIGKILL")
    now.begin()
    assert now.others(0) == [] and not earlier.folder.exists()
    now.ended(1, "no space")
    now.told_to_end(0)
    assert [note.words for note in now.others(0)] == ["no space"] and now.others(1) == []
    assert [note.index for note in now.told(1)] == [0]
    (now.folder / "ended-2").write_text("{")  # half of one
    assert len(now.others(0)) == 1


JAX_SAYS = b"""\
E1130 19:25:10.345307   30846 coordination_service.cc:1549] [85] Use error polling to propagate: UNAVAILABLE: The \
following tasks are unhealthy (stopped sending heartbeats):
3
The tasks have crashed.
F1130 19:25:10.345753   30857 client.h:80] Terminating process because the JAX distributed service detected errors.
"""


def test_what_jax_says_of_a_death_is_held_back_and_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(written))
    relay = supervisor._Relay(
        io.BytesIO(b"sft 3/9  1 s\nerror: no space; " + supervisor.AGAIN.encode() + b"\n" + JAX_SAYS)
    )
    relay.run()
    assert written.getvalue().count(b"\n") == 2 and relay.held == JAX_SAYS
    assert relay.last_words == "no space" and supervisor._gone(relay.held) == [3]
    assert supervisor._gone(b"Failed to send RPC to coordination service. Either the leader task was preempted") == [0]
    assert supervisor._gone(b"F0101 client.h:80] something else") == []
