"""The recovery stage as a run: what it plays it keeps, plays once, and hands to the data engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.environments.task import read_tasks
from regrpo_jax.evaluation.compare import read_rows
from regrpo_jax.evaluation.recovery_metrics import row_of
from regrpo_jax.records import load_rot

ROOT = Path(__file__).parents[2]
POLICIES = ("before", "before-bare-retry", "after-sft", "after-sft-bare-retry")
OPTIONS = (
    f"--config={ROOT / 'tests' / 'tiny_config.py'}",
    '--config.stages=("recovery", "sft", "recovery")',
    "--config.sft.steps=12",
    '--config.online.families=("moved", "service")',
    "--config.agent.turn_tokens=32",
    "--config.agent.episode_tokens=64",
    "--config.recovery.tasks=6",
    "--config.recovery.tasks_at_once=4",
    "--config.recovery.bare_control=True",
)


def run(workdir: Path) -> str:
    return main(f"--workdir={workdir}", *OPTIONS)


def main(*arguments: str) -> str:
    command = [sys.executable, "-m", "regrpo_jax.main", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recovery")
    (folder / "printed.txt").write_text(run(folder))
    return folder


def test_every_policy_is_played_and_kept(workdir: Path) -> None:
    numbers = json.loads((workdir / "recovery.json").read_text())
    assert list(numbers) == ["before", "before, bare retry", "after SFT", "after SFT, bare retry"]
    for policy in POLICIES:
        folder = workdir / "recovery" / policy
        groups = [
            RolloutGroup.from_json(json.loads(line)) for line in (folder / "groups.jsonl").read_text().splitlines()
        ]
        assert [row_of(group) for group in groups] == read_rows(folder)
        assert [group.task_id for group in groups] == [task.id for task in read_tasks(folder / "tasks")]
        assert len(groups) == 6 and all(len(group.rollouts) == 2 for group in groups)
        if "bare" in policy:
            assert not any(turn.gate and turn.gate.open for g in groups for r in g.rollouts for turn in r.turns)


def test_the_same_tasks_before_and_after(workdir: Path) -> None:
    first, *others = ([row["task"] for row in read_rows(workdir / "recovery" / policy)] for policy in POLICIES)
    assert all(other == first for other in others)


def test_a_table_is_printed(workdir: Path) -> None:
    printed = (workdir / "printed.txt").read_text()
    assert "after SFT, bare retry" in printed and "success after a failure" in printed


def test_a_second_start_plays_nothing_again(workdir: Path) -> None:
    kept = {path: path.read_bytes() for path in (workdir / "recovery").rglob("*.jsonl")}
    printed = run(workdir)
    assert "recovery: 6 test tasks" not in printed
    assert {path: path.read_bytes() for path in (workdir / "recovery").rglob("*.jsonl")} == kept


def test_the_data_engine_takes_the_failures_of_the_policy_that_ships(tmp_path: Path) -> None:
    """Its own failures, played again by the engine, become records that say that they are the policy's."""
    played, made = tmp_path / "played", tmp_path / "made"
    small = ("--config.recovery.tasks=12", "--config.recovery.episodes=1", '--config.stages=("recovery",)')
    main(f"--config={ROOT / 'configs' / 'recovery.py'}", f"--workdir={played}", *small)
    rows = read_rows(played / "recovery" / "before")
    assert sum(row["success"][0] for row in rows) >= 3  # it can do something ..
    assert any(row["recovery"][0] is not None for row in rows)  # .. and not everything
    source = (f"--config.data.source={played / 'recovery' / 'before'}", "--config.engine.failures_only=True")
    main(f"--config={ROOT / 'configs' / 'build_rot.py'}", f"--workdir={made}", *source, "--config.engine.records=2")
    records = load_rot(made / "corpus" / "rot-*.jsonl", on_bad_record="fatal")
    assert records and all(record.execution and record.execution.source == "policy" for record in records)
