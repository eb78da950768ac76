"""The online stage as a run: a seed decides it, in turn, played ahead, killed between two episodes, or replayed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp
import pytest

from regrpo_jax.data.rollout_buffer import StoredRollouts

ROOT = Path(__file__).parents[2]
UPDATES = 5
OPTIONS = [
    f"--config={ROOT / 'tests' / 'tiny_config.py'}",
    '--config.stages=("sft", "online")',
    "--config.sft.steps=12",
    f"--config.online.steps={UPDATES}",
    "--config.online.tasks=4",
    "--config.online.branches=4",
    '--config.suite.families=("moved", "service")',
    "--config.agent.turn_tokens=48",
    "--config.agent.episode_tokens=96",
    "--config.checkpoint.every=1",
    "--config.log_every=1",
]


@pytest.fixture(scope="module", autouse=True)
def programs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What is compiled, kept between the runs of this file."""
    OPTIONS.append(f"--config.compilation_cache={tmp_path_factory.mktemp('programs')}")


def command(workdir: Path) -> list[str]:
    return [sys.executable, "-m", "regrpo_jax.main", f"--workdir={workdir}", *OPTIONS]


def run(workdir: Path, *options: str) -> None:
    program = [*command(workdir), *options]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr


def lines(workdir: Path) -> list[dict[str, Any]]:
    """What the online stage wrote, without times and sizes of the process."""
    told = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [
        {k: v for k, v in one.items() if "second" not in k and "memory" not in k}
        for one in told
        if one["stage"] == "online"
    ]


def weights(workdir: Path) -> list[np.ndarray]:
    folder = workdir / "checkpoints" / "online" / str(UPDATES) / "state"
    tree = ocp.StandardCheckpointer().restore(folder.absolute())
    flat = ocp.tree.to_flat_dict(tree)
    return [np.asarray(flat[path]) for path in sorted(flat)]


def check_same_weights(workdir: Path, other: Path) -> None:
    for one, another in zip(weights(workdir), weights(other), strict=True):
        np.testing.assert_array_equal(one, another)


def rollouts(workdir: Path) -> list[dict[str, Any]]:
    stored = StoredRollouts(workdir / "rollouts")  # updates that are played at once stand mixed in the file
    return [rollout.to_json() for key in sorted(stored.keys) for rollout in stored.group(key).rollouts]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    run(workdir)
    return workdir


def ratios(told: list[dict[str, Any]]) -> list[float]:
    """Of the kinds of token that each update trained; a kind without tokens has none."""
    kinds = ("action", "reflection")
    return [one[f"{kind}/ratio"] for one in told for kind in kinds if one[f"{kind}/policy_token_count"]]


def test_played_in_turn_every_update_is_on_policy(whole: Path) -> None:
    told = lines(whole)
    assert len(told) == UPDATES and len(rollouts(whole)) == UPDATES * 16
    assert any(one["gradient_norm"] > 0 for one in told)  # else nothing below would show anything
    assert ratios(told) and ratios(told) == pytest.approx([1.0] * len(ratios(told)), abs=1e-4)
    assert all(one["branches/stale_share"] == 0.0 for one in told)


# The program, which is killed when it has written so many rollouts.
KILLED = """
import os, signal, sys
from regrpo_jax.data.rollout_buffer import RolloutBuffer
from regrpo_jax.main import main

left, add = [int(sys.argv[1])], RolloutBuffer.add_rollout

def add_or_die(*arguments):
    add(*arguments)
    left[0] -= 1
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)

RolloutBuffer.add_rollout = add_or_die
main(sys.argv[2:])
"""


def run_killed(workdir: Path, kill_after: int, *options: str) -> None:
    program = [sys.executable, "-c", KILLED, str(kill_after), *command(workdir)[3:], *options]
    killed = subprocess.run(program, cwd=ROOT, stdout=subprocess.DEVNULL, timeout=900)
    assert killed.returncode == -signal.SIGKILL


def test_killed_between_two_rollouts_and_resumed_it_is_the_same_run(whole: Path, tmp_path: Path) -> None:
    kill_after = 2 * 16 + 7  # in update 3
    run_killed(tmp_path, kill_after)
    left = StoredRollouts(tmp_path / "rollouts")
    survived = [left.group(key) for key in (*left.keys, *left.unfinished)]
    assert sum(len(group.rollouts) for group in survived) == kill_after and set(left.updates) == {1, 2}
    run(tmp_path)
    assert lines(tmp_path) == lines(whole)
    assert rollouts(tmp_path) == rollouts(whole)
    check_same_weights(tmp_path, whole)


def test_updates_are_repeated_from_the_rollouts_of_a_run(whole: Path, tmp_path: Path) -> None:
    run(tmp_path, f"--config.online.replay={whole}")
    of_play = {"flops/prefill", "flops/decode"}
    assert not any(of_play & line.keys() for line in lines(tmp_path))
    assert lines(tmp_path) == [{k: v for k, v in line.items() if k not in of_play} for line in lines(whole)]
    check_same_weights(tmp_path, whole)
    assert not (tmp_path / "rollouts").exists(), "nothing is played"


AHEAD = ("--config.online.staleness=2", "--config.online.weight_cap=2.0")


def test_played_ahead_the_lag_is_fixed_and_a_seed_decides_it_all(whole: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    run(first, *AHEAD)
    run(second, *AHEAD)
    stored = StoredRollouts(first / "rollouts")
    versions = {n: {r.policy_version for group in stored.update(n) for r in group.rollouts} for n in stored.updates}
    assert versions == {1: {0}, 2: {0}, 3: {0}, 4: {1}, 5: {2}}
    told = lines(first)
    assert [one["branches/stale_share"] for one in told] == [0.0, 1.0, 1.0, 1.0, 1.0]
    assert ratios(told[:1]) == pytest.approx([1.0] * len(ratios(told[:1])), abs=1e-4)
    assert lines(second) == told and rollouts(second) == rollouts(first)
    check_same_weights(second, first)
    differ = [not np.array_equal(one, other) for one, other in zip(weights(first), weights(whole), strict=True)]
    assert any(differ), "else what an older policy played would be what the present one plays"


def test_killed_while_it_plays_ahead_it_goes_on_with_the_policy_that_was_kept(tmp_path: Path) -> None:
    run_killed(tmp_path, 4 * 16 + 7, *AHEAD)  # while update 5 is played, which needs the policy after update 2
    folder = tmp_path / "checkpoints" / "online"
    kept = max(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    run(tmp_path, *AHEAD)
    assert 1 <= kept < UPDATES and [one["step"] for one in lines(tmp_path)] == list(range(1, UPDATES + 1))
    stored = StoredRollouts(tmp_path / "rollouts")
    for number in range(kept + 1, UPDATES + 1):
        groups = stored.update(number)
        versions = {rollout.policy_version for group in groups for rollout in group.rollouts}
        assert versions == {max(kept, number - 3)} and sum(len(group.rollouts) for group in groups) == 16
