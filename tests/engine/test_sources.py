"""Trajectories of others and of our agent as sources: what can be run is run, what cannot is never mixed with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.engine.cases import Situation
from regrpo_jax.engine.episode_source import episode_source
from regrpo_jax.engine.execute import Refused, play_clean, play_failure
from regrpo_jax.engine.finite_source import MOST_CHOICES, FiniteSource
from regrpo_jax.engine.synthetic import made_up_failure
from regrpo_jax.engine.trajectory_source import trajectory_source
from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.recovery import to_json
from regrpo_jax.environments.task import write_tasks
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ErrorType, Status
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.suites.toolrepair import BASELINES, make_suite, plan_of


def action(code: str) -> str:
    return f"Thought: go on.\n\nCode:\n```py\n{code}\n```"


def trajectory(name: str, steps: list[tuple[str, str]], answer: str = "42.50", image: Any = None) -> dict[str, Any]:
    turns = [{"role": "system", "content": "Use tools."}, {"role": "user", "content": f"Task: {name}?"}]
    for index, (code, observed) in enumerate(steps):
        turns.append({"role": "assistant", "content": action(code)})
        if index < len(steps) - 1:
            turns.append({"role": "user", "content": f"[OUTPUT OF STEP {index}] -> Observation:\n{observed}"})
    return {"id": name, "image": image or {}, "answer": answer, "conversations": turns}


READ, ANSWER = ('inspect_file_as_text("bill.csv")', "item,total\nx,42.50"), ('final_answer("42.50")', "")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Four trajectories, of which the first can be run here."""
    (tmp_path / "bill.csv").write_text("item,total\ncoffee,42.50\n")
    path = tmp_path / "mat.json"
    records = [
        trajectory("here", [READ, ANSWER]),
        trajectory("no_file", [('inspect_file_as_text("gone.csv")', "total 42.50"), ANSWER]),
        trajectory("remote", [('visualizer("what?", "a.png")', "42.50"), ANSWER]),
        trajectory("failed", [('inspect_file_as_text("x.csv")', "Error: File not found: x.csv"), ANSWER]),
        trajectory("open_end", [READ, ("print(1)", "")]),
        trajectory("no_answer", [READ, ANSWER], answer=""),
    ]
    path.write_text(json.dumps(records))
    return path


def first_steps(source: FiniteSource) -> dict[str, Situation]:
    return {one.source_id: one for one in source.situations if one.index == 0}


def test_what_lies_beside_the_file_decides_what_can_be_run(written: Path) -> None:
    found = first_steps(trajectory_source(written, seed=0))
    assert {name: one.executable for name, one in found.items()} == {
        "here": True, "no_file": False, "remote": False, "no_answer": True,  # its own last step gives one
    }  # fmt: skip
    assert [file.name for file in found["here"].task.files if not file.behind] == ["bill.csv"]


def test_a_trajectory_of_others_is_run_with_real_tools(written: Path) -> None:
    source = trajectory_source(written, seed=0)
    at = first_steps(source)["here"]
    with Environment.start(SandboxSettings(workers=1, wall_seconds=30), loader=source.tools.loader) as environment:
        assert "42.50" in play_clean(environment, at)[0].text
        played, number = [], 0
        while (found := source.situation(ErrorType.ARG_INVALID, number)) is not None:
            number += 1
            situation, misses = found
            if situation.source_id == "here" and situation.index == 0 and misses:
                try:
                    played.append(play_failure(environment, situation, misses[0]))
                except Refused:
                    continue
    assert played
    assert all(failure.failed.status == Status.TOOL_ERROR for failure in played)
    assert all("42.50" in failure.repaired.text for failure in played)


def test_pictures_keep_their_places_under_placeholders_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"a")
    record = trajectory("<image> then <image>", [READ, ANSWER], image=["a.png", "data:image/png;base64,Yg=="])
    (tmp_path / "mat.json").write_text(json.dumps([record]))
    [at] = first_steps(trajectory_source(tmp_path / "mat.json", seed=0)).values()
    assert at.instruction == "Task: <image_00> then <image_01>?"
    files = {file.name: file.content for file in at.task.files}
    assert [files[at.images[mark]] for mark in ("<image_00>", "<image_01>")] == [b"a", b"b"]


def test_what_cannot_be_run_is_marked_as_made_up(written: Path) -> None:
    import random

    at = first_steps(trajectory_source(written, seed=0))["no_file"]
    source = FiniteSource([at], SuiteTools("unused:unused"), 0)
    for kind in (ErrorType.ARG_INVALID, ErrorType.TOOL_MISMATCH):
        found = source.situation(kind, 0)
        assert found is not None and found[1]
        failure = made_up_failure(at, found[1][0], random.Random(0))
        assert failure.kind == "synthetic" and not failure.answered
        assert failure.failed.status != Status.OK
        assert failure.repaired.text == "total 42.50"


def test_no_two_numbers_of_a_finite_source_give_the_same_near_miss(written: Path) -> None:
    source = trajectory_source(written, seed=0)
    given, number = [], 0
    while (found := source.situation(ErrorType.ARG_INVALID, number)) is not None:
        given += [(found[0].source_id, found[0].index, miss.code) for miss in found[1]]
        number += 1
    assert number == len(source.situations) * MOST_CHOICES
    assert len(set(given)) == len(given) > 3
    assert source.situation(None, len(first_steps(source))) is None


@pytest.mark.parametrize(("text", "words"), [("[]", "none of its 0 records"), ("{", "JSON")])
def test_a_file_without_trajectories_is_told(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "mat.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words):
        trajectory_source(path, seed=0)


@pytest.fixture(scope="module")
def recorded(compact_environment: Environment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation run of a policy that is at times right: oracle for even tasks, never repairing for odd ones."""
    folder = tmp_path_factory.mktemp("run")
    tasks = make_suite("train", 36, seed=5)
    oracle, careless = BASELINES["oracle"], BASELINES["never_repairs"]
    even = {task.id for task in tasks[::2]}
    results = run_episodes(
        compact_environment, tasks, lambda task, steps: (oracle if task.id in even else careless)(task, steps)
    )
    write_tasks(tasks, folder / "tasks")
    (folder / "results.jsonl").write_text("".join(json.dumps(to_json(result)) + "\n" for result in results))
    return folder


def test_what_a_policy_got_wrong_is_paired_with_the_right_action(
    compact_environment: Environment, recorded: Path
) -> None:
    source = episode_source(recorded, seed=0, failures_only=True)
    assert {one.source for one in source.situations} == {"policy"}
    for one in source.situations:
        (own,) = one.own
        failure = play_failure(compact_environment, one, own)
        surprises = {(a.code, a.repair.error_type) for a in plan_of(one.task).attempts if a.repair is not None}
        assert (own.code, own.error_type) in surprises
        assert failure.answered and own.proposer == "policy"
    assert len(source.situations) > 10


def test_its_successes_are_clean_trajectories(compact_environment: Environment, recorded: Path) -> None:
    source = episode_source(recorded, seed=0)
    clean = [one for one in source.situations if one.source == "trajectory" and one.index == 0]
    assert clean
    for one in clean[:4]:
        assert tuple(o.text for o in play_clean(compact_environment, one)) == one.observations


def test_a_folder_without_a_run_is_told(tmp_path: Path, recorded: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        episode_source(tmp_path, seed=0)
    (tmp_path / "tasks").symlink_to(recorded / "tasks")
    (tmp_path / "results.jsonl").write_text('{"id": "unknown", "steps": []}\n')
    with pytest.raises(UserError, match=r"results\.jsonl, line 1"):
        episode_source(tmp_path, seed=0)
