"""The recovery stage as a run: what it plays it keeps, plays once, and hands to the data engine."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.environments.task import read_tasks
from regrpo_jax.evaluation.compare import read_rows
from regrpo_jax.records import load_rot
from regrpo_jax.stages import recovery as recovery_stage
from regrpo_jax.stages.online import collect_settings
from regrpo_jax.stages.recovery import comparable, played_digest, rows_of
from regrpo_jax.suites.toolrepair import make_suite
from tests.tiny_config import get_config

ROOT = Path(__file__).parents[2]
POLICIES_BY_FOLDER = {
    "before": "before",
    "before-bare-retry": "before, bare retry",
    "after-sft": "after SFT",
    "after-sft-bare-retry": "after SFT, bare retry",
}
POLICIES = tuple(POLICIES_BY_FOLDER)
OPTIONS = (
    f"--config={ROOT / 'tests' / 'tiny_config.py'}",
    '--config.stages=("recovery", "sft", "recovery")',
    "--config.sft.steps=12",
    '--config.suite.families=("moved", "service")',
    "--config.agent.turn_tokens=32",
    "--config.agent.episode_tokens=64",
    "--config.recovery.tasks=6",
    "--config.played_at_once=4",
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
        tasks = read_tasks(folder / "tasks")
        assert rows_of(tasks, groups, 2) == read_rows(folder)
        assert [group.task_id for group in groups] == [task.id for task in tasks]
        assert numbers[POLICIES_BY_FOLDER[policy]]["metrics"]["dropped"] == 0
        assert len(groups) == 6 and all(len(group.rollouts) == 2 for group in groups)
        if "bare" in policy:
            assert not any(turn.gate and turn.gate.open for g in groups for r in g.rollouts for turn in r.turns)


def test_a_task_that_could_not_begin_is_counted(workdir: Path) -> None:
    folder = workdir / "recovery" / "before"
    lines = (folder / "groups.jsonl").read_text().splitlines()
    groups, tasks = [RolloutGroup.from_json(json.loads(line)) for line in lines], read_tasks(folder / "tasks")
    found = rows_of(tasks, groups[1:], 2)
    assert found[1:] == read_rows(folder)[1:] and found[0]["dropped"] == 2 and found[0]["success"] == []
    assert found[0]["task"] == tasks[0].id and found[0]["content"] == read_rows(folder)[0]["content"]


def digest(**changes: Any) -> str:
    """Of what a run of `changes` to the tiny configuration plays."""
    config = get_config()
    config.recovery.tasks = 18  # the second nine have another difficulty
    config.update_from_flattened_dict(changes)
    tasks = make_suite(
        config.recovery.splits[0], config.recovery.tasks, config.recovery.seed, config.suite.profile,
        surprises=config.suite.surprises, difficulties=config.suite.difficulties, chosen=config.suite.families,
    )  # fmt: skip
    return played_digest(config, tasks, collect_settings(config, Path("."), None, branches=config.recovery.episodes))


@pytest.mark.parametrize(
    "changes",
    [
        {"suite.profile": "full"},
        {"suite.families": ("moved",)},
        {"suite.difficulties": (1,)},
        {"suite.surprises": 1.0},
        {"recovery.splits": ("held_out",)},
        {"recovery.temperature": 0.5},
        {"recovery.episodes": 3},
        {"agent.gate": "never"},
        {"agent.max_steps": 3},
        {"environment.wall_seconds": 1.0},
        {"player.server": "http://localhost:1/v1 m"},
    ],
)
def test_numbers_of_another_suite_or_setting_are_not_taken(changes: dict[str, Any]) -> None:
    assert digest(**changes) != digest()


def test_numbers_are_taken_again_where_nothing_that_was_played_changed() -> None:
    free = {"played_at_once": 3, "requests.at_once": 1, "environment.workers": 5, "objective.eta": 0.5}
    assert digest(**free) == digest() == digest()
    served, with_a_key = ({"player.server": f"http://localhost:1/v1 m{key}"} for key in ("", " A_KEY"))
    assert digest(**served) == digest(**with_a_key)


def test_numbers_of_other_tasks_do_not_stay_beside_new_ones() -> None:
    earlier = {
        "before": {"split": "test", "suite": "a"},
        "after SFT": {"split": "test", "suite": "b"},
        "before, held_out": {"split": "held_out", "suite": "c"},
        "from before splits were told": {"metrics": {}},
    }
    assert list(comparable(earlier, "test", "a")) == ["before", "before, held_out"]


def test_a_tool_that_says_or_does_something_else_is_another_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    before, kept = digest(), recovery_stage.shapes_of
    monkeypatch.setattr(
        recovery_stage,
        "shapes_of",
        lambda tools: {name: replace(shape, version=f"{shape.version}!") for name, shape in kept(tools).items()},
    )
    assert digest() != before


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
    source = (f"--config.data.source={played / 'recovery' / 'before'}", "--config.engine.natural=1")
    main(f"--config={ROOT / 'configs' / 'build_rot.py'}", f"--workdir={made}", *source, "--config.engine.records=2")
    records = load_rot(made / "corpus" / "rot-*.jsonl", on_bad_record="fatal")
    assert records and all(record.execution and record.execution.source == "policy" for record in records)
