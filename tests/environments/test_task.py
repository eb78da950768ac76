"""Tasks are data: they survive JSON and folders, and what cannot be one is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.environments.faults import Fault, FaultKind
from regrpo_jax.environments.task import OracleStep, Task, TaskFile, read_tasks, write_tasks
from regrpo_jax.environments.workspace import Workspace
from regrpo_jax.errors import UserError
from regrpo_jax.records.actions import split_action
from regrpo_jax.records.reflection import parse_reflection
from regrpo_jax.records.types import ErrorType, Reflection
from tests.environments.conftest import make_task

REFLECTION = Reflection(ErrorType.ARG_INVALID, 'File not found: "a.txt"', 'Read "sum.txt".')
FULL = make_task(
    faults=(Fault(FaultKind.RENAMED_FILE, "a.txt", {"name": "sum.txt"}, seed=3),),
    error_type=ErrorType.ARG_INVALID,
    difficulty=2,
    oracle=(
        OracleStep("Read it.", 'read_text("a.txt")', fails=True),
        OracleStep("Read the other.", "x = 1\nfinal_answer(42)", reflection=REFLECTION),
    ),
    seed=7,
    metadata={"hops": 2, "words": ["a", None]},
)


def test_a_task_survives_json() -> None:
    assert Task.from_json(json.loads(json.dumps(FULL.to_json()))) == FULL


CONTENTS = st.dictionaries(
    st.text(st.characters(codec="utf-8"), min_size=1), st.tuples(st.binary(), st.booleans()), max_size=4
)


@settings(deadline=None)
@given(CONTENTS)
def test_any_content_survives_json(files: dict[str, tuple[bytes, bool]]) -> None:
    task = make_task(files=tuple(TaskFile(name, *told) for name, told in files.items()), images=())
    assert Task.from_json(json.loads(json.dumps(task.to_json()))) == task
    assert {name: task.file(name) for name in files} == {name: content for name, (content, _) in files.items()}
    place = Workspace.of(task)
    for found, behind in ((place.files, False), (place.behind, True)):
        assert found == {name: content for name, (content, kept) in files.items() if kept == behind}


def test_a_task_that_was_written_before_anything_was_behind_is_read(tmp_path: Path) -> None:
    told = json.loads(json.dumps(FULL.to_json()))
    assert all("behind" not in file for file in told["files"])  # and is written as it was
    assert Task.from_json(told) == FULL
    behind = make_task(files=(TaskFile("a.txt", b"total 42"), TaskFile("b.txt", b"total 17", behind=True)), images=())
    write_tasks([behind], tmp_path)
    assert read_tasks(tmp_path) == [behind]


def test_tasks_survive_a_folder_and_share_contents(tmp_path: Path) -> None:
    tasks = [FULL, make_task(id="other")]
    assert write_tasks(tasks, tmp_path) == 2
    assert read_tasks(tmp_path) == tasks
    assert len(list((tmp_path / "files").iterdir())) == len(FULL.files)


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_tasks(tmp_path)
    write_tasks([FULL], tmp_path)
    stored = tmp_path / "files" / FULL.files[0].digest
    stored.write_bytes(b"other")
    with pytest.raises(UserError, match=r"line 1.*'a.txt' is not what"):
        read_tasks(tmp_path)
    (tmp_path / "tasks.jsonl").write_text('{"id": "x"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 1: task x: not a task"):
        read_tasks(tmp_path)
    (tmp_path / "tasks.jsonl").write_text("no json\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 1"):
        read_tasks(tmp_path)
    with pytest.raises(UserError, match="read_tasks"):
        Task.from_json(FULL.to_json(keep=lambda file: None))


def test_parts_that_do_not_fit_are_told() -> None:
    with pytest.raises(UserError, match="two files called 'a'"):
        make_task(files=(TaskFile("a", b""), TaskFile("a", b"")), images=())
    with pytest.raises(UserError, match="two files called 'a'"):
        make_task(files=(TaskFile("a", b""), TaskFile("a", b"", behind=True)), images=())
    with pytest.raises(UserError, match="'b.png' is not among"):
        make_task(images=("b.png",))
    with pytest.raises(UserError, match="'sign.png' is not among its files: a.txt"):
        make_task(files=(TaskFile("a.txt", b""), TaskFile("sign.png", b"", behind=True)))
    with pytest.raises(KeyError):
        FULL.file("nothing")


def test_an_oracle_step_is_a_turn() -> None:
    turn = FULL.oracle[1].turn()
    assert parse_reflection(turn) == REFLECTION
    assert split_action(turn) == ("Read the other.", "x = 1\nfinal_answer(42)")
    assert FULL.oracle[0].turn().startswith("Thought: Read it.\n\nCode:\n```py\n")


def test_a_workspace_has_the_files_after_the_faults() -> None:
    assert list(Workspace.of(FULL).files) == ["b.txt", "sign.png", "sum.txt"]
    assert Workspace.of(FULL).files["sum.txt"] == FULL.file("a.txt")


def test_faults_of_files_happen_where_the_files_are() -> None:
    faults = (
        Fault(FaultKind.EMPTY_FILE, "b.txt", {"copy": "kept.txt"}),
        Fault(FaultKind.RENAMED_FILE, "a.txt", {"name": "c.txt"}),
    )
    files = (TaskFile("a.txt", b"total 42"), TaskFile("b.txt", b"total 17", behind=True))
    place = Workspace.of(make_task(files=files, images=(), faults=faults))
    assert place.files == {"c.txt": b"total 42"} and place.behind == {"b.txt": b"", "kept.txt": b"total 17"}
