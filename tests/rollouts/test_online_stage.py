"""The online stage as a run: the same seed gives the same policy, and a run that is killed ends with it as well."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

from regrpo_jax.data.rollout_buffer import StoredRollouts

ROOT = Path(__file__).parents[2]
UPDATES = 5
OPTIONS = (
    f"--config={ROOT / 'tests' / 'tiny_config.py'}",
    '--config.stages=("sft", "online")',
    "--config.sft.steps=12",
    f"--config.online.steps={UPDATES}",
    "--config.online.tasks=4",
    "--config.online.branches=4",
    '--config.online.families=("moved", "service")',
    "--config.agent.turn_tokens=48",
    "--config.agent.episode_tokens=96",
    "--config.checkpoint.every=1",
    "--config.log_every=1",
)


def command(workdir: Path) -> list[str]:
    return [sys.executable, "-m", "regrpo_jax.main", f"--workdir={workdir}", *OPTIONS]


def run(workdir: Path) -> None:
    done = subprocess.run(command(workdir), capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


def lines(workdir: Path) -> list[dict[str, Any]]:
    """What the online stage wrote, without times."""
    told = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in one.items() if "seconds" not in k} for one in told if one["stage"] == "online"]


def weights(workdir: Path) -> list[np.ndarray]:
    folder = workdir / "checkpoints" / "online" / str(UPDATES) / "state"
    tree = ocp.StandardCheckpointer().restore(folder.absolute())
    flat = ocp.tree.to_flat_dict(tree)
    return [np.asarray(flat[path]) for path in sorted(flat)]


def rollouts(workdir: Path) -> list[dict[str, Any]]:
    return [rollout.to_json() for group in StoredRollouts(workdir / "rollouts") for rollout in group.rollouts]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    run(workdir)
    return workdir


def test_the_first_update_is_on_policy(whole: Path) -> None:
    first = lines(whole)[0]
    assert first["action/ratio"] == pytest.approx(1.0, abs=1e-4)
    assert first["branches/stale_share"] == 0.0
    assert len(lines(whole)) == UPDATES
    assert len(rollouts(whole)) == UPDATES * 16
    assert any(one["gradient_norm"] > 0 for one in lines(whole))  # else nothing below would show anything


def test_killed_and_resumed_it_is_the_same_run(whole: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(command(tmp_path), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    saved = tmp_path / "checkpoints" / "online" / "2"
    while process.poll() is None and not saved.exists():
        time.sleep(0.05)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    run(tmp_path)
    assert lines(tmp_path) == lines(whole)
    assert rollouts(tmp_path) == rollouts(whole)
    for resumed, uninterrupted in zip(weights(tmp_path), weights(whole), strict=True):
        np.testing.assert_array_equal(resumed, uninterrupted)
