"""Runs with a curriculum: killed and started again they end where an undisturbed one does, and their lines say why.

Seven real starts of `python -m regrpo_jax.main`, as in `test_resume`, which shows the same without a curriculum.
Checkpoints lie in the middle of packed lots of rows: those are of four updates, the checkpoints five apart.
"""

import dataclasses
import json
import os
import random
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

from regrpo_jax.data.curriculum import Curriculum, Pace, advance, count_in_play, first_level, linear_level
from tests.compact_records import MANY

ROOT = Path(__file__).resolve().parents[2]
STEPS = {"sft": 60, "rl": 45}
EVERY = 5  # updates between checkpoints
RECORDS = 36  # of the corpus
WINDOW, THRESHOLD = 3, 0.01
KILLED_IN = {"linear": ("sft",), "success-paced": ("sft", "rl")}
UNREPEATABLE = {"seconds", "tokens_per_second"}


@dataclasses.dataclass(frozen=True)
class Runs:
    """Folders of the undisturbed and the interrupted run of one kind."""

    kind: str
    undisturbed: Path
    interrupted: Path


def start(kind: str, workdir: Path) -> subprocess.Popen[str]:
    overrides = {
        "data.rot": MANY.rot_train,
        "data.clean": MANY.clean_train,
        "data.curriculum": kind,
        "data.curriculum_success": (THRESHOLD, WINDOW),
        "sft.steps": STEPS["sft"],
        "rl.steps": STEPS["rl"],
        "log_every": 1,
        "checkpoint.every": EVERY,
        "compilation_cache": workdir.parent / "compiled",
    }
    arguments = [f"--config={ROOT / 'tests' / 'tiny_config.py'}", f"--workdir={workdir}"]
    arguments += [f"--config.{field}={value}" for field, value in overrides.items()]
    command = [sys.executable, "-m", "regrpo_jax.main", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(kind: str, workdir: Path) -> None:
    process = start(kind, workdir)
    _, told = process.communicate(timeout=900)
    assert process.returncode == 0, told


def kill_in(stage: str, kind: str, workdir: Path) -> None:
    """Starts the run and kills it at a random moment of `stage`, after its first checkpoint."""
    process = start(kind, workdir)
    moment = random.SystemRandom().randrange(EVERY, STEPS[stage] * 2 // 3)
    deadline = time.monotonic() + 900
    while len(lines_of(workdir, stage)) < moment or not has_checkpoint(workdir, stage):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=600)
    assert len(lines_of(workdir, stage)) < STEPS[stage], "the stage was over before it was killed"


def lines_of(workdir: Path, stage: str) -> list[dict[str, Any]]:
    path = workdir / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    lines = [json.loads(line) for line in text.split("\n")[:-1]]  # the last one may be half written
    return [line for line in lines if line["stage"] == stage]


def has_checkpoint(workdir: Path, stage: str) -> bool:
    return any(path.name.isdigit() for path in (workdir / "checkpoints" / stage).glob("*"))


def checkpoint(workdir: Path, stage: str) -> tuple[dict[str, bytes], dict[str, Any]]:
    """All arrays of the last checkpoint, and the position of its data."""
    folder = workdir / "checkpoints" / stage / str(STEPS[stage])
    arrays = ocp.StandardCheckpointer().restore(folder.absolute() / "state")
    flat = {jax.tree_util.keystr(at): np.asarray(x).tobytes() for at, x in jax.tree_util.tree_leaves_with_path(arrays)}
    return flat, json.loads((folder / "data" / "metadata").read_text())["position"]


@pytest.fixture(scope="module", params=KILLED_IN)
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    kind: str = request.param
    folder = tmp_path_factory.mktemp(kind)
    made = Runs(kind, folder / "undisturbed", folder / "interrupted")
    finish(kind, made.undisturbed)
    for stage in KILLED_IN[kind]:
        kill_in(stage, kind, made.interrupted)
    finish(kind, made.interrupted)
    return made


@pytest.mark.parametrize("stage", STEPS)
def test_final_states_are_equal_bit_for_bit(runs: Runs, stage: str) -> None:
    arrays, position = checkpoint(runs.undisturbed, stage)
    assert any("trainable" in name for name in arrays) and position["batches"]["curriculum"]["update"] == STEPS[stage]
    assert checkpoint(runs.interrupted, stage) == (arrays, position)


@pytest.mark.parametrize("stage", STEPS)
def test_lines_are_the_same_and_tell_of_the_curriculum(runs: Runs, stage: str) -> None:
    expected, lines = (
        [{name: value for name, value in line.items() if name not in UNREPEATABLE} for line in lines_of(folder, stage)]
        for folder in (runs.undisturbed, runs.interrupted)
    )
    assert lines == expected and len(lines) == STEPS[stage]
    assert len({line["curriculum/share"] for line in lines}) > 3
    assert all(0 < line["curriculum/complexity"] < 1 for line in lines)
    third = len(lines) // 3
    easy, hard = (np.mean([line["curriculum/complexity"] for line in x]) for x in (lines[:third], lines[-third:]))
    assert easy < hard


@pytest.mark.parametrize("stage", STEPS)
def test_the_share_in_play_follows_from_the_lines_before(runs: Runs, stage: str) -> None:
    """Worked out anew from the measured successes, or from the numbers of the updates."""
    levels, pace = [], Pace(first_level(0.3))
    chosen = Curriculum(runs.kind, 0.3, 0.5, THRESHOLD, WINDOW, STEPS[stage])
    lines = lines_of(runs.undisturbed, stage)
    for line in lines:
        levels.append(linear_level(line["step"], chosen) if runs.kind == "linear" else pace.level)
        success = np.exp(line["reflection/logprob"]) if stage == "sft" else line.get("groups/recovery_first", 0.0)
        if stage == "rl" or line["reflection/token_count"]:
            pace = advance(pace, float(success), threshold=THRESHOLD, window=WINDOW)
    shares = [count_in_play(RECORDS, level) / RECORDS for level in levels]
    assert [line["curriculum/share"] for line in lines] == pytest.approx(shares)
    if runs.kind == "linear":
        assert shares[-1] == 1.0
