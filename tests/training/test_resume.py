"""A run that is killed and started again ends where an uninterrupted one does, bit for bit.

Real starts of `python -m regrpo_jax.main`: one that nothing disturbs and one on top of it; one that is killed in the
middle of the supervised stage, one that goes on and is killed in the middle of the RL stage, one that finishes; and
three that are told to end in the same places, and finish.
"""

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest

from regrpo_jax.errors import UserError
from regrpo_jax.main import main

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"sft": 100, "rl": 75}
EVERY = 25  # updates between checkpoints
UNREPEATABLE = {"seconds", "tokens_per_second", "flops_per_second", "memory/host_peak_bytes"}


@dataclasses.dataclass(frozen=True)
class Runs:
    """Folders of the undisturbed and the interrupted run, and what each start said on standard output."""

    undisturbed: Path
    interrupted: Path
    told: Path
    said: dict[str, str]
    metrics_before_last_start: bytes


def arguments(workdir: Path) -> list[str]:
    overrides = {
        "sft.steps": STEPS["sft"],
        "rl.steps": STEPS["rl"],
        "log_every": 5,
        "checkpoint.every": EVERY,
        "compilation_cache": workdir.parent / "compiled",
    }
    return [
        f"--config={ROOT / 'tests' / 'tiny_config.py'}",
        f"--workdir={workdir}",
        *(f"--config.{field}={value}" for field, value in overrides.items()),
    ]


def start(workdir: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "regrpo_jax.main", *arguments(workdir)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(workdir: Path) -> str:
    process = start(workdir)
    said, told = process.communicate(timeout=900)
    assert process.returncode == 0, told
    return said


def kill_in(stage: str, workdir: Path, how: signal.Signals = signal.SIGKILL) -> str:
    """Starts the run and kills it at a random moment of `stage`, after its first checkpoint."""
    process = start(workdir)
    moment = random.SystemRandom().randrange(EVERY, STEPS[stage] * 2 // 3)
    deadline = time.monotonic() + 900
    while last_step(workdir, stage) < moment or not has_checkpoint(workdir, stage):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)
    time.sleep(random.SystemRandom().random() * 0.05)
    os.kill(process.pid, how)
    said, told = process.communicate(timeout=600)
    assert process.returncode == (0 if how == signal.SIGTERM else -how), told
    assert last_step(workdir, stage) < STEPS[stage], "the run was over before it was killed"
    return said


def lines_of(workdir: Path) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.split("\n")[:-1]]  # the last one may be half written


def last_step(workdir: Path, stage: str) -> int:
    return max((line["step"] for line in lines_of(workdir) if line["stage"] == stage), default=0)


def has_checkpoint(workdir: Path, stage: str) -> bool:
    """Whether there is a complete one: one under way has a longer name."""
    return any(path.name.isdigit() for path in (workdir / "checkpoints" / stage).glob("*"))


def checkpoint(workdir: Path, stage: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All arrays of the last checkpoint, and the position of its data."""
    folder = workdir / "checkpoints" / stage / str(STEPS[stage])
    arrays = ocp.StandardCheckpointer().restore(folder.absolute() / "state")
    flat = {jax.tree_util.keystr(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path(arrays)}
    return flat, json.loads((folder / "data" / "metadata").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    undisturbed, interrupted, told = folder / "undisturbed", folder / "interrupted", folder / "told"
    said = {
        "undisturbed": finish(undisturbed),
        "killed in sft": kill_in("sft", interrupted),
        "killed in rl": kill_in("rl", interrupted),
        "finished": finish(interrupted),
        "told to end in sft": kill_in("sft", told, signal.SIGTERM),
        "told to end in rl": kill_in("rl", told, signal.SIGTERM),
        "finished after that": finish(told),
    }
    before = (undisturbed / "metrics.jsonl").read_bytes()
    said["on top"] = finish(undisturbed)
    return Runs(undisturbed, interrupted, told, said, before)


@pytest.mark.parametrize("stage", STEPS)
@pytest.mark.parametrize("end", ["interrupted", "told"])
def test_final_states_are_equal_bit_for_bit(runs: Runs, stage: str, end: str) -> None:
    expected, position = checkpoint(runs.undisturbed, stage)
    arrays, interrupted_position = checkpoint(getattr(runs, end), stage)
    assert arrays.keys() == expected.keys()
    assert any("trainable" in name for name in arrays) and any("optimizer_state" in name for name in arrays)
    for name, array in arrays.items():
        assert array.dtype == expected[name].dtype
        assert array.tobytes() == expected[name].tobytes(), name
    assert interrupted_position == position


def test_who_is_told_to_end_keeps_every_update(runs: Runs) -> None:
    for stage, start in (("sft", "told to end in sft"), ("rl", "told to end in rl")):
        (kept,) = re.findall(
            rf"^{stage}: told to end; (\d+) of {STEPS[stage]} updates are kept$", runs.said[start], re.MULTILINE
        )
        after = runs.said["told to end in rl" if stage == "sft" else "finished after that"]
        assert f"{stage}: resuming at step {kept} of {STEPS[stage]}" in after


def test_exported_adapters_are_equal(runs: Runs) -> None:
    adapters = [folder / "adapter" / "adapter_model.safetensors" for folder in (runs.undisturbed, runs.interrupted)]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def test_lines_are_the_same_and_none_is_there_twice(runs: Runs) -> None:
    lines = {folder: lines_of(folder) for folder in (runs.undisturbed, runs.interrupted)}
    for folder, entries in lines.items():
        assert [(entry["stage"], entry["step"]) for entry in entries] == [
            (stage, step) for stage, steps in STEPS.items() for step in range(5, steps + 1, 5)
        ], folder
        assert all(entry.keys() >= UNREPEATABLE for entry in entries)
    repeatable = [[{k: v for k, v in entry.items() if k not in UNREPEATABLE} for entry in x] for x in lines.values()]
    assert repeatable[0] == repeatable[1]


def test_every_start_says_where_it_goes_on(runs: Runs) -> None:
    assert "resuming" not in runs.said["undisturbed"] and "complete" not in runs.said["undisturbed"]
    (resumed,) = re.findall(r"^sft: resuming at step (\d+) of 100$", runs.said["killed in rl"], re.MULTILINE)
    assert int(resumed) % EVERY == 0 and 0 < int(resumed) < STEPS["sft"]
    (resumed,) = re.findall(r"^rl: resuming at step (\d+) of 75$", runs.said["finished"], re.MULTILINE)
    assert int(resumed) % EVERY == 0 and 0 < int(resumed) < STEPS["rl"]
    assert "sft: complete at step 100" in runs.said["finished"]


def test_second_start_of_a_finished_run_trains_nothing_and_says_so(runs: Runs) -> None:
    assert "sft: complete at step 100" in runs.said["on top"]
    assert "rl: complete at step 75" in runs.said["on top"]
    assert (runs.undisturbed / "metrics.jsonl").read_bytes() == runs.metrics_before_last_start


def test_a_stage_never_goes_on_from_another_policy_than_it_began_with(runs: Runs) -> None:
    with pytest.raises(UserError) as error:
        main([*arguments(runs.interrupted), "--config.stages=rl", "--config.compilation_cache="])
    assert "this rl began after other updates (100 of sft) than config.stages and their steps ask for now (none)" in (
        str(error.value)
    )
