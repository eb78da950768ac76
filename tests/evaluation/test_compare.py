"""Rows of tasks against the pooled numbers; the tables that put policies side by side; what a person may type wrong."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.compare import check_same_tasks, differences, read_arm
from regrpo_jax.evaluation.recovery_metrics import (
    AT_WORST,
    DROPPED,
    NAMES,
    Row,
    grouped,
    intervals,
    lost_row,
    row_of,
    task_means,
)
from regrpo_jax.evaluation.rollout_metrics import rollout_metrics
from regrpo_jax.suites.toolrepair import make_task
from tests.data.rollout_groups import make_group

ROOT = Path(__file__).parents[2]
LOST = (AT_WORST, DROPPED)


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row_of(make_group(3, number, branches=6, dropped=(1,) if number % 4 == 0 else ())) for number in range(24)]


def test_a_row_holds_what_its_episodes_add_to_the_pooled_numbers() -> None:
    for number in range(40):
        group = make_group(5, number, branches=6, dropped=(0, 3) if number % 3 == 0 else ())
        row, pooled = row_of(group), rollout_metrics(group.rollouts)
        assert row["dropped"] == pooled["dropped"]
        assert len(row["success"]) == pooled["episodes"]
        for name in ("success", "first_attempt_success", "recovery", "repair_at_1", "tokens", "tool_calls", *LOST):
            mean = task_means([row], name)[0]
            assert pooled[name] is None if np.isnan(mean) else mean == pytest.approx(pooled[name]), name


OUTCOMES = st.lists(st.sampled_from(["right", "wrong", "dropped"]), min_size=1, max_size=8)


def row(outcomes: list[str]) -> Row:
    group = make_group(1, 0, branches=8)
    rollouts = [
        dataclasses.replace(group.rollouts[place], success=one == "right", dropped=one == "dropped")
        for place, one in enumerate(outcomes)
    ]
    return row_of(dataclasses.replace(group, rollouts=tuple(rollouts)))


@settings(deadline=None)
@given(OUTCOMES)
def test_a_failure_cannot_vanish_from_success_at_worst(outcomes: list[str]) -> None:
    """What happens to it: dropped instead, it raises success alone."""
    told = row(outcomes)
    hidden = row(["dropped" if one == "wrong" else one for one in outcomes])
    assert (
        task_means([told], AT_WORST)[0] == task_means([hidden], AT_WORST)[0] == outcomes.count("right") / len(outcomes)
    )
    assert task_means([hidden], DROPPED)[0] == pytest.approx(1 - outcomes.count("right") / len(outcomes))
    assert not task_means([hidden], "success")[0] < task_means([told], "success")[0]


def test_a_task_that_could_not_begin_is_a_row_of_dropped_episodes(rows: list[Row]) -> None:
    task = make_task("moved", "test", 1)
    lost = lost_row(task, 6)
    assert lost.keys() == rows[0].keys() and lost["task"] == task.id
    told = intervals([[lost]])
    assert told["success"] is None and told[AT_WORST] == [0.0] * 3 and told[DROPPED] == [1.0] * 3


def test_intervals_hold_their_means_and_say_none_of_nothing(rows: list[Row]) -> None:
    told = intervals([rows, rows[::-1]])
    for name in NAMES:
        found = told[name]
        if found is not None:
            assert found[1] <= found[0] <= found[2]
    silent = [row | {"recovery": [None] * len(row["recovery"])} for row in rows]
    assert intervals([silent])["recovery"] is None


def test_groups_are_all_rows_once(rows: list[Row]) -> None:
    parts = grouped(rows, "error_type")
    assert sum(map(len, parts.values())) == len(rows)
    assert all(row["error_type"] == name for name, part in parts.items() for row in part)


def test_the_difference_is_taken_task_by_task(rows: list[Row]) -> None:
    better = [row | {"success": [1.0] * len(row["success"])} for row in rows]
    told = differences({"first": [rows], "last": [better]})["first"]
    gain = 100 * (1 - np.nanmean(task_means(rows, "success")))
    assert float(told["success"].split(" ")[0]) == pytest.approx(gain, abs=0.06)
    assert told["recovery"].startswith("+0.0 %")


def test_other_tasks_are_refused(rows: list[Row]) -> None:
    told = [row | {"content": str(number)} for number, row in enumerate(rows)]
    changed = [*told[:-1], told[-1] | {"content": "another task of the same name"}]
    check_same_tasks({"a": [rows], "b": [told], "c": [rows, told]})  # rows of earlier runs have no contents
    for other in (rows[1:], [], changed):
        with pytest.raises(UserError, match="other tasks"):
            check_same_tasks({"a": [told], "b": [other]})


def written(folder: Path, rows: list[Row]) -> Path:
    folder.mkdir(parents=True)
    (folder / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_person_reads_a_table(tmp_path: Path, rows: list[Row]) -> None:
    first, second = written(tmp_path / "a", rows), written(tmp_path / "b", rows)
    command = [
        sys.executable,
        "-m",
        "regrpo_jax.evaluation.compare",
        f"SFT={first},{second}",
        f"ReGRPO={second},{first}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "24 x 6 x 2" in done.stdout and "ReGRPO - SFT" in done.stdout
    mean = 100 * np.mean(task_means(rows, "success"))
    assert f"{mean:.1f} %" in done.stdout
    for name in LOST:
        assert f"{100 * np.mean(task_means(rows, name)):.1f} %" in done.stdout
    assert "ALARM: SFT: 12 of 288 episodes were dropped" in done.stdout
    assert "success if all dropped had failed" in done.stdout and "dropped episodes" in done.stdout


@pytest.mark.parametrize("argument", ["ReGRPO", "=x", "name="])
def test_another_form_is_refused(argument: str) -> None:
    with pytest.raises(UserError, match="NAME=FOLDER"):
        read_arm(argument)


def test_a_folder_without_rows_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing/tasks\.jsonl: cannot be read"):
        read_arm(f"a={tmp_path / 'nothing'}")
