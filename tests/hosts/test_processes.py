"""A run that four processes begin and two end, told to end once and killed once, is the run of one process.

The processes meet over this machine's own address; each has simulated devices of its own. All of it in float64.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from regrpo_jax.data.rollout_buffer import StoredRollouts
from tests.hosts.processes import HANGS, ROOT, begin, ended

CONFIG = f"--config={ROOT / 'tests' / 'hosts' / 'small_config.py'}"
LEFT_OUT = ("stage", "second", "memory", "mfu")


def start(workdir: Path, processes: int) -> list[subprocess.Popen[str]]:
    arguments = [CONFIG, f"--workdir={workdir}"]
    devices = 4 // processes
    return begin(arguments, processes=processes, devices=devices, module="tests.hosts.one_process", float64=True)


def lines(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for_lines(workdir: Path, count: int, started: list[subprocess.Popen[str]]) -> None:
    last = time.monotonic() + HANGS
    while len(lines(workdir)) < count:
        assert time.monotonic() < last and all(process.poll() is None for process in started), ended(started)
        time.sleep(0.2)


def below(process: subprocess.Popen[str]) -> int:
    """The process that trains, below the one that has the last word."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


def kept(workdir: Path, stage: str) -> list[int]:
    return sorted(int(folder.name) for folder in (workdir / "checkpoints" / stage).iterdir() if folder.name.isdigit())


def arrays(workdir: Path, stage: str) -> dict[tuple[str, ...], np.ndarray]:
    folder, reader = workdir / "checkpoints" / stage / str(kept(workdir, stage)[-1]) / "state", ocp.PyTreeCheckpointer()
    tree = reader.metadata(folder.absolute()).item_metadata.tree
    wanted = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    return ocp.tree.to_flat_dict(reader.restore(folder.absolute(), args=ocp.args.PyTreeRestore(restore_args=wanted)))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("alone")
    (end,) = ended(start(workdir, 1))
    assert end.status == 0, end
    return workdir


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Begun by four, told to end, gone on with by two, one of which is killed, ended by two."""
    workdir = tmp_path_factory.mktemp("several")
    four = start(workdir, 4)
    wait_for_lines(workdir, 3, four)
    four[3].send_signal(signal.SIGTERM)
    ends = ended(four)
    assert [end.status for end in ends] == [0] * 4, ends
    assert all(end.words.splitlines()[-1].startswith("told to end; start again") for end in ends), ends
    done = len(lines(workdir))
    assert kept(workdir, "sft")[-1] == done  # all ended before the same update, and what was learnt is kept
    assert f"sft: told to end; {done} of 8 updates are kept" in ends[0].out

    two = start(workdir, 2)
    wait_for_lines(workdir, done + 1, two)
    os.kill(below(two[1]), signal.SIGKILL)
    ends = ended(two)
    assert [end.status for end in ends] == [2, 2], ends
    for end in ends:
        words = end.words.splitlines()[-1]
        assert words.startswith("error: process 1 of 2") and "is gone: it was ended by SIGKILL" in words, end
        assert words.endswith("start again with the same --workdir to go on"), end
        assert "Traceback" not in end.words and "check failure" not in end.words.lower(), end
    assert done <= kept(workdir, "sft")[-1] < 8

    ends = ended(start(workdir, 2))
    assert [end.status for end in ends] == [0, 0], ends
    assert "sft: resuming at step" in ends[0].out and "sft" not in ends[1].out  # one tells what all would
    return workdir


def test_losses_and_all_else_that_is_told_are_those_of_one_process(alone: Path, several: Path) -> None:
    told, other = lines(alone), lines(several)
    assert [(one["stage"], one["step"]) for one in told] == [(one["stage"], one["step"]) for one in other]
    assert {one["stage"] for one in told} == {"sft", "rl", "online"}
    for one, another in zip(told, other, strict=True):
        assert one.keys() == another.keys()
        for name, value in one.items():
            if not any(word in name for word in LEFT_OUT):
                close = (
                    1e-6 if name == "reward" else 1e-10
                )  # a mean of float32 rewards, whatever the policy computes in
                assert another[name] == pytest.approx(value, rel=close, abs=close), (one["stage"], one["step"], name)
    assert all(one["gradient_norm"] > 0 for one in told)


@pytest.mark.parametrize("stage", ["sft", "rl", "online"])
def test_the_weights_are_those_of_one_process(alone: Path, several: Path, stage: str) -> None:
    one, other = arrays(alone, stage), arrays(several, stage)
    assert one.keys() == other.keys() and any(array.dtype == np.float64 for array in one.values())
    for name, array in one.items():
        np.testing.assert_allclose(other[name], array, rtol=1e-10, atol=1e-10, err_msg=str(name))


def test_what_was_played_by_two_is_what_one_plays(alone: Path, several: Path) -> None:
    one, other = (StoredRollouts(workdir / "rollouts") for workdir in (alone, several))
    assert sorted(one.keys) == sorted(other.keys) and one.updates == other.updates and len(one) >= 4
    for key in one.keys:
        assert [played.to_json() for played in one.group(key).rollouts] == [
            played.to_json() for played in other.group(key).rollouts
        ]


def test_one_process_writes_what_there_is_one_of(several: Path) -> None:
    steps = [(one["stage"], one["step"]) for one in lines(several)]
    assert len(steps) == len(set(steps))
    assert (several / "report.html").exists() and not list(several.glob(".writable*"))


def test_a_process_that_nobody_meets_says_so(tmp_path: Path) -> None:
    one, other = begin([CONFIG, f"--workdir={tmp_path}", "--config.hosts.wait=3"], processes=2, devices=1)
    one.kill()
    ends = ended([one, other])
    assert ends[1].status == 2 and "not all processes met" in ends[1].words.splitlines()[-1], ends


def test_a_process_with_another_configuration_is_refused_by_all(tmp_path: Path) -> None:
    ends = ended(begin([CONFIG, f"--workdir={tmp_path}"], processes=2, devices=1, last=["--config.seed=4"]))
    assert [end.status for end in ends] == [2, 2], ends
    assert "process 1 of 2 differs from process 0 in the configuration" in ends[1].words.splitlines()[-1]
    assert "is gone: process 1 of 2 differs from process 0" in ends[0].words.splitlines()[-1]
