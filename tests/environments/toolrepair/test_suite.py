"""The suite as data: pure functions of the seed, balanced, splits apart, held-out tools and faults unseen."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.environments.recovery import FAILURES
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.actions import FINAL_ANSWER, extract_tool_calls
from regrpo_jax.records.reflection import parse_reflection, render_reflection
from regrpo_jax.records.types import ErrorType, Status
from regrpo_jax.suites.toolrepair import PROFILES, SPLITS, families, make_suite, make_task, plan_of, visual_families
from regrpo_jax.suites.toolrepair.plan import oracle_steps, plan_from_json, plan_to_json
from regrpo_jax.suites.toolrepair.words import split_of

MEMBERS = [(profile, family) for profile in PROFILES for family in (*families(profile), *visual_families(profile))]
COUNT = 90  # tasks of a suite: each family at each difficulty several times


@pytest.fixture(scope="module")
def suites() -> dict[tuple[str, str], list[Task]]:
    return {(profile, split): make_suite(split, COUNT, 3, profile) for profile in PROFILES for split in SPLITS}


def tools_of(task: Task) -> set[str]:
    """What the oracle calls."""
    calls = [call for step in task.oracle for call in extract_tool_calls(step.code, frozenset(task.tools))]
    return {call.name for call in calls} - {FINAL_ANSWER}


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(MEMBERS), st.sampled_from(SPLITS), st.integers(0, 2**40), st.integers(1, 3), st.sampled_from([0, 1])
)
def test_a_task_is_a_function_of_its_arguments(
    member: tuple[str, str], split: str, seed: int, difficulty: int, surprises: float
) -> None:
    profile, family = member
    task = make_task(family, split, seed, difficulty, profile, surprises=surprises)
    again = make_task(family, split, seed, difficulty, profile, surprises=surprises)
    assert task == again and json.dumps(task.to_json()) == json.dumps(again.to_json())
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    assert (task.family, task.split, task.difficulty) == (family, split, difficulty)
    assert (task.error_type is not None) == bool(task.metadata["surprise"]) == bool(surprises)
    plan = plan_of(task)
    assert plan_from_json(plan_to_json(plan)) == plan and oracle_steps(plan) == task.oracle
    assert plan.failures == bool(surprises)
    assert split_of((family, *task.metadata["names"])) == split


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(MEMBERS), st.sampled_from(SPLITS), st.integers(0, 2**40), st.integers(1, 3))
def test_plans_make_sound_records(member: tuple[str, str], split: str, seed: int, difficulty: int) -> None:
    profile, family = member
    task = make_task(family, split, seed, difficulty, profile, surprises=1)
    for attempt in plan_of(task).attempts:
        for repair in filter(None, (attempt.repair, attempt.hasty)):
            for long in (False, True):
                block = render_reflection(repair.reflection(long))
                assert parse_reflection(block) == repair.reflection(long)
            assert repair.code not in task.instruction  # the corrected action must not be given away
            first, second = (extract_tool_calls(code, frozenset(task.tools)) for code in (attempt.code, repair.code))
            assert first and second and attempt.code != repair.code
            if repair.error_type == ErrorType.TOOL_MISMATCH:
                assert first[0].name != second[0].name
            if repair.error_type == ErrorType.NON_COMMIT:
                assert FINAL_ANSWER not in {call.name for call in first}
        if attempt.hasty is not None and attempt.repair is not None:
            assert attempt.hasty.code != attempt.repair.code
        assert not (attempt.direct and attempt.repair) or attempt.direct == attempt.repair.code


def test_instructions_name_what_the_first_action_needs(suites: dict[tuple[str, str], list[Task]]) -> None:
    """Every quoted argument of the first action stands in the instruction, or in the picture that it speaks of."""
    for tasks in suites.values():
        for task in tasks:
            call = extract_tool_calls(task.oracle[0].code, frozenset(task.tools))[0]
            for argument in call.arguments:
                text = argument.strip("\"'")
                told = text in task.instruction or any(word in task.instruction for word in text.split())
                assert told or task.images, (task.instruction, call)


def test_a_suite_is_balanced_and_has_the_wanted_share_of_surprises() -> None:
    tasks = make_suite("train", 1800, 5, "compact")
    assert len({task.id for task in tasks}) == len(tasks)
    assert set(Counter(task.family for task in tasks).values()) == {200}
    shares = Counter((task.family, task.difficulty) for task in tasks)
    assert max(shares.values()) - min(shares.values()) <= 1
    assert abs(sum(task.error_type is not None for task in tasks) / len(tasks) - 0.6) < 0.04
    for share in (0.0, 1.0):
        chosen = make_suite("train", 27, 5, "compact", surprises=share)
        assert {task.error_type is not None for task in chosen} == {bool(share)}


@pytest.mark.parametrize("profile", PROFILES)
def test_every_error_type_and_eight_families(profile: str, suites: dict[tuple[str, str], list[Task]]) -> None:
    assert len(families(profile)) >= 8
    for split in SPLITS:
        assert {task.error_type for task in suites[profile, split]} == {*ErrorType, None}
    surprised = [task for task in suites[profile, "train"] if task.error_type]
    assert {task.family for task in surprised} == set(families(profile))
    assert {len(tools_of(task)) for task in suites[profile, "train"] if task.family == "chain"} >= {2, 3, 4}


@pytest.mark.parametrize("profile", PROFILES)
def test_splits_share_no_task(profile: str, suites: dict[tuple[str, str], list[Task]]) -> None:
    keys = {
        split: {(task.family, *sorted(task.metadata["names"])) for task in suites[profile, split]} for split in SPLITS
    }
    ids = {split: {task.id for task in suites[profile, split]} for split in SPLITS}
    for first in SPLITS:
        for second in SPLITS:
            if first != second:
                assert not keys[first] & keys[second] and not ids[first] & ids[second]


@pytest.mark.parametrize("profile", PROFILES)
def test_held_out_tasks_need_tools_and_meet_surprises_that_training_lacks(
    profile: str, suites: dict[tuple[str, str], list[Task]]
) -> None:
    seen = [task for split in SPLITS[:3] for task in suites[profile, split]]
    held_out = suites[profile, "held_out"]
    seen_tools = set().union(*(task.tools for task in seen))
    seen_surprises = {task.metadata["surprise"] for task in seen} - {""}
    seen_faults = {fault.kind for task in seen for fault in task.faults}
    for task in held_out:
        assert tools_of(task) - seen_tools, task.id
        assert task.metadata["surprise"] not in seen_surprises
        assert not {fault.kind for fault in task.faults} & seen_faults
    assert len(seen_surprises) >= 8 and len({task.metadata["surprise"] for task in held_out} - {""}) >= 8


def test_documents_of_four_formats_and_pictures_are_there(suites: dict[tuple[str, str], list[Task]]) -> None:
    endings = Counter(Path(file.name).suffix for task in suites["full", "train"] for file in task.files)
    assert {".txt", ".csv", ".json", ".html", ".xlsx", ".docx", ".pdf", ".png"} <= set(endings)
    for profile in PROFILES:
        assert sum(bool(task.images) for task in suites[profile, "train"]) >= COUNT // 4


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"family": "mooved"}, ["mooved", "moved"]),
        ({"split": "heldout"}, ["heldout", "held_out"]),
        ({"difficulty": 4}, ["4", "1, 2 or 3"]),
        ({"profile": "tiny"}, ["tiny", "compact", "full"]),
        ({"surprises": 1.5}, ["1.5", "between 0 and 1"]),
    ],
)
def test_wrong_arguments_are_told(arguments: dict[str, object], words: list[str]) -> None:
    sound = {"family": "moved", "split": "train", "seed": 0, "difficulty": 1, "profile": "compact"}
    with pytest.raises(UserError) as error:
        make_task(**(sound | arguments))  # type: ignore[arg-type]
    assert all(word in str(error.value) for word in words)
    with pytest.raises(UserError):
        make_suite("train", 0)


def test_the_picture_decides_where_the_hint_is_wrong() -> None:
    """One instruction, several right repairs: only who looks at the picture can tell which."""
    for family, wanted in (("region", 3), ("colour", 2)):
        repaired: dict[str, set[str]] = {}
        for seed in range(400):
            task = make_task(family, "train", seed, 1, "compact", surprises=1)
            repair = plan_of(task).attempts[0].repair
            assert repair is not None
            repaired.setdefault(task.instruction, set()).add(repair.code)
        assert all(len(codes) >= wanted for codes in repaired.values())


def test_tasks_do_not_depend_on_the_process() -> None:
    code = (
        "import hashlib, json\n"
        "from regrpo_jax.suites.toolrepair import PROFILES, SPLITS, make_suite, visual_families\n"
        "tasks = [task.to_json() for p in PROFILES for s in SPLITS for task in make_suite(s, 27, 4, p)]\n"
        "named = [(p, visual_families(p)) for p in PROFILES]\n"
        "tasks += [task.to_json() for p, chosen in named for task in make_suite('test', 9, 4, p, chosen=chosen)]\n"
        "print(hashlib.sha256(json.dumps(tasks).encode()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True
        ).stdout
        for seed in ("1", "2")
    }
    assert len(found) == 1


def test_failures_are_the_statuses_that_open_the_gate() -> None:
    assert set(Status) - FAILURES == {Status.OK, Status.INFRA_ERROR}
