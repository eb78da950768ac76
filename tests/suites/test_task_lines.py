"""A person's own tasks: what the keys mean, and that each mistake is one sentence with line and key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.environments.answers import CheckKind, check_answer
from regrpo_jax.errors import UserError
from regrpo_jax.suites.folder import FolderSuite, chosen_tasks, read_folder
from regrpo_jax.suites.suite import SPLITS, SuiteTools
from regrpo_jax.suites.task_lines import task_of
from tests.suites import own_tools

GOOD: dict[str, Any] = {"id": "one", "instruction": "Add 1 and 2.", "answer": 3}
TOOLS = SuiteTools(f"{own_tools.__name__}:load")


def folder_of(path: Path, *lines: object, files: dict[str, bytes] | None = None) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    (path / "tasks.jsonl").write_text("".join(f"{text}\n" for text in texts))
    for name, content in (files or {}).items():
        (path / name).write_bytes(content)
    return path


MISTAKES: dict[str, tuple[object, str]] = {
    "no JSON": ("{'id': 1}", "not JSON"),
    "a list": ([1], "a task is an object"),
    "no id": ({k: v for k, v in GOOD.items() if k != "id"}, '"id" is missing'),
    "empty instruction": (GOOD | {"instruction": "  "}, '"instruction" is'),
    "no answer": ({k: v for k, v in GOOD.items() if k != "answer"}, '"answer" is missing'),
    "an answer that is none": (GOOD | {"answer": True}, '"answer" is True'),
    "an empty answer": (GOOD | {"answer": " "}, "the right answer cannot be an empty text"),
    "unknown key": (GOOD | {"instructions": "x"}, "did you mean 'instruction'?"),
    "unknown check": (GOOD | {"check": "nearly"}, '"check" is'),
    "check without function": (GOOD | {"check": "function"}, '"check" is'),
    "number that is none": (GOOD | {"answer": "three", "check": "number"}, "needs a finite number"),
    "set of one": (GOOD | {"answer": "a", "check": "set"}, "needs several values"),
    "tolerance": (GOOD | {"tolerance": "small"}, '"tolerance" is'),
    "negative tolerance": (GOOD | {"tolerance": -1}, "the tolerance of an answer is -1"),
    "unknown split": (GOOD | {"split": "dev"}, '"split" is'),
    "files as text": (GOOD | {"files": "a.csv"}, '"files" is'),
    "no such file": (GOOD | {"files": ["a.csv"]}, "'a.csv', which cannot be read"),
    "file outside": (GOOD | {"files": ["../a.csv"]}, "stays inside it"),
    "absolute file": (GOOD | {"files": ["/etc/passwd"]}, "stays inside it"),
    "mapped outside": (GOOD | {"files": {"a": "../../etc/passwd"}}, "outside the folder"),
    "steps without answer": (GOOD | {"steps": ["add(1, 2)"]}, "must call final_answer"),
    "steps of numbers": (GOOD | {"steps": [1]}, '"steps"[0]'),
    "tools as text": (GOOD | {"tools": "add"}, '"tools" is'),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_names_file_line_and_key(name: str, tmp_path: Path) -> None:
    line, words = MISTAKES[name]
    with pytest.raises(UserError) as told:
        read_folder(folder_of(tmp_path, GOOD | {"id": "first"}, "", line))
    text = str(told.value)
    assert text.startswith(f"{tmp_path / 'tasks.jsonl'}, line 3: ") and words in text and "\n" not in text


def test_what_is_wrong_with_the_folder_as_a_whole(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read .*config.suite.name"):
        read_folder(tmp_path)
    with pytest.raises(UserError, match="holds no task"):
        read_folder(folder_of(tmp_path, ""))
    with pytest.raises(UserError, match='line 2: a second task has the "id" .one.'):
        read_folder(folder_of(tmp_path, GOOD, GOOD))
    suite = FolderSuite(folder_of(tmp_path, GOOD | {"split": "train", "tools": ["fly"]}), TOOLS)
    with pytest.raises(UserError, match="task one: .tools. has 'fly', which config.tools does not have; there are add"):
        suite.tasks("train", 1, 0)
    suite = FolderSuite(folder_of(tmp_path, GOOD | {"split": "train"}), TOOLS)
    with pytest.raises(UserError, match="no task has the split 'test', there are train"):
        suite.tasks("test", 1, 0)


@pytest.mark.parametrize(
    ("told", "kind", "right", "wrong"),
    [
        ({"answer": 3}, CheckKind.NUMBER, "3.0", "4"),
        ({"answer": 3, "tolerance": 0.5}, CheckKind.NUMBER, 3.4, 3.6),
        ({"answer": "Ann"}, CheckKind.EXACT, "ann", "Anna"),
        ({"answer": ["a", "b"]}, CheckKind.SET, "b, a", "a"),
        ({"answer": ["a", "b"], "check": "one_of"}, CheckKind.ONE_OF, "b", "c"),
        ({"answer": "red", "check": "contains"}, CheckKind.CONTAINS, "it is red", "it is blue"),
        ({"answer": "3 km", "check": "exact"}, CheckKind.EXACT, "3 km", "3"),
    ],
)
def test_an_answer_is_checked_as_its_kind_suggests(
    told: dict[str, Any], kind: CheckKind, right: object, wrong: object
) -> None:
    checker = task_of(GOOD | told, lambda name: b"", "suite").checker
    assert checker.kind == kind and check_answer(checker, right) and not check_answer(checker, wrong)


def test_a_check_of_ones_own_needs_no_answer() -> None:
    told = {"id": 7, "instruction": "Write a report.", "check": "checks.report:is_good"}
    task = task_of(told, lambda name: b"", "suite")
    assert (task.id, task.checker.kind, task.checker.value) == ("7", CheckKind.FUNCTION, "checks.report:is_good")
    assert not check_answer(task.checker, "checks.report:is_good"), "only the function may say so"


@given(st.text(min_size=1).filter(str.strip))
def test_an_id_is_dealt_to_the_same_split_whatever_else_there_is(name: str) -> None:
    first, again = (task_of(GOOD | {"id": name}, lambda name: b"", "suite").split for _ in range(2))
    assert first == again and first in SPLITS[:3]


def test_splits_are_dealt_seven_to_one_to_two() -> None:
    tasks = [task_of(GOOD | {"id": str(number)}, lambda name: b"", "suite") for number in range(2000)]
    shares = [sum(task.split == split for task in tasks) / len(tasks) for split in SPLITS[:3]]
    assert shares == pytest.approx([0.7, 0.1, 0.2], abs=0.03)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 2**31))
def test_a_seed_chooses_different_tasks_of_the_split(size: int, count: int, seed: int) -> None:
    tasks = [task_of(GOOD | {"id": str(n), "split": SPLITS[n % 2]}, lambda name: b"", "s") for n in range(2 * size)]
    chosen = chosen_tasks(tasks, "train", count, seed, "here")
    assert chosen == chosen_tasks(tasks, "train", count, seed, "here")
    assert len({task.id for task in chosen}) == len(chosen) == min(count, size)
    assert {task.split for task in chosen} == {"train"}


def test_files_come_with_the_task(tmp_path: Path) -> None:
    line = GOOD | {"files": {"in/prices.csv": "a.csv"}, "images": ["card.png"]}
    (task,) = read_folder(folder_of(tmp_path, line, files={"a.csv": b"1", "card.png": b"png"}))
    assert {file.name: file.content for file in task.files} == {"in/prices.csv": b"1", "card.png": b"png"}
    assert task.images == ("card.png",)
