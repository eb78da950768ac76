"""GAIA's files, its suite, and files of answers: what is odd is named and counted."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrpo_jax.config.base_config import base_config
from regrpo_jax.environments.starting import start_environment
from regrpo_jax.errors import UserError
from regrpo_jax.suites.benchmark import EPISODES, PlayedTask, PlayedTurn, Score
from regrpo_jax.suites.find import PUBLIC
from regrpo_jax.suites.gaia.records import read_gaia
from regrpo_jax.suites.gaia.score import score_answers
from regrpo_jax.suites.gaia.suite import FORM, GaiaSuite
from regrpo_jax.toolbox.toolset import ToolsetSettings
from tests.suites.gaia_samples import QUESTIONS, answers, folder, told

NONE = ToolsetSettings(builtin=("final_answer",))
GOLD = {one["task_id"]: one["Final answer"] for one in QUESTIONS}


def fractions(score: Score) -> dict[str, tuple[float, int]]:
    assert {figure.scorer for figure in score.figures} == {"GAIA"}
    return {figure.name: (figure.hits, figure.of) for figure in score.figures}


def test_a_folder_of_lines(tmp_path: Path) -> None:
    data = read_gaia(folder(tmp_path))
    assert [(one.id, one.level, one.answer) for one in data.records] == [
        (one["task_id"], int(one["Level"]), one["Final answer"]) for one in QUESTIONS
    ]
    assert [one.shown for one in data.records] == [True, False, False, False, False]
    assert data.records[2].file == tmp_path / "b-1.csv" and not data.problems


def test_both_splits_below_a_folder(tmp_path: Path) -> None:
    folder(tmp_path / "2023/validation")
    folder(
        tmp_path / "2023/test", [told("t-1", 1, "?"), {k: v for k, v in told("t-2", 2).items() if k != "Final answer"}]
    )
    data = read_gaia(tmp_path)
    assert [(one.id, one.split, one.scored) for one in data.records][-3:] == [
        ("c-1", "validation", True),
        ("t-1", "test", False),
        ("t-2", "test", False),
    ]
    assert read_gaia(tmp_path / "2023/test").records[0].split == "test"


def test_attachments_may_be_told_from_the_folder_of_all(tmp_path: Path) -> None:
    one = told("a", 1, "12", "x.txt") | {"file_path": "2023/validation/files/x.txt"}
    folder(tmp_path / "2023/validation", [one])
    (tmp_path / "2023/validation/files").mkdir()
    (tmp_path / "2023/validation/files/x.txt").write_text("x")
    assert read_gaia(tmp_path).records[0].file == tmp_path / "2023/validation/files/x.txt"


def test_what_is_odd_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    questions = [
        told("a", 1),
        "not json",
        "[1]",
        told("b", 4),
        told("c", True),
        told("d", 1) | {"Question": " "},
        told("", 1),
        told("f", 2, "12", "gone.xlsx"),
        told("g", 2, "12", "../secret.txt"),
        told("h", 2, "12", "broken.png"),
        told("a", 2),
        told("i", 2) | {"Final answer": ["x"]},
    ]
    place = folder(tmp_path / "own", questions)
    (place / "broken.png").write_bytes(b"\x89PNG")
    data = read_gaia(place)
    assert [one.id for one in data.records] == ["a", "f", "g", "h"] and data.records[0].level == 2
    kinds = [problem.kind for problem in data.problems]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "malformed record": 7,
        "missing attachment": 2,
        "image that cannot be opened": 1,
        "duplicate id": 1,
    }
    assert [problem.where for problem in data.problems][:2] == ["metadata.jsonl, line 2", "metadata.jsonl, line 3"]
    assert data.records[3].file is not None and not data.records[3].shown


@pytest.mark.parametrize("questions", [[], ["not json"], [told("a", 9)]])
def test_a_folder_without_a_question(tmp_path: Path, questions: list[Any]) -> None:
    with pytest.raises(UserError, match="no question can be read"):
        read_gaia(folder(tmp_path, questions))


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no metadata.jsonl and no metadata.parquet"):
        read_gaia(tmp_path)


def parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    files.write_table(pyarrow.Table.from_pylist(rows), path)


def test_a_folder_of_parquet(tmp_path: Path) -> None:
    rows = [one | {"Level": str(one["Level"]), "file_path": f"2023/validation/{one['file_name']}"} for one in QUESTIONS]
    place = folder(tmp_path / "2023/validation")
    lines = read_gaia(tmp_path)
    (place / "metadata.jsonl").unlink()
    for level in "123":
        parquet(place / f"metadata.level{level}.parquet", [one for one in rows if one["Level"] == level])
    assert read_gaia(tmp_path).records == lines.records
    parquet(place / "metadata.parquet", rows[:2])
    assert read_gaia(tmp_path).records == lines.records[:2]
    (place / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="is no parquet file"):
        read_gaia(tmp_path)


def test_parquet_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"regrpo_jax\[parquet\]"):
        read_gaia(tmp_path)


def test_golds_are_all_right(tmp_path: Path) -> None:
    score = score_answers(read_gaia(folder(tmp_path)), [answers(tmp_path / "a.jsonl", GOLD)])
    assert fractions(score) == {"all levels": (5, 5), "level 1": (2, 2), "level 2": (2, 2), "level 3": (1, 1)}
    assert not score.notes


def test_what_is_not_answered_is_wrong(tmp_path: Path) -> None:
    some = {name: GOLD[name] for name in ("a-1", "b-2")} | {"a-2": "Moscow"}
    score = score_answers(read_gaia(folder(tmp_path)), [answers(tmp_path / "a.jsonl", some)])
    assert fractions(score) == {"all levels": (2, 5), "level 1": (1, 2), "level 2": (1, 2), "level 3": (0, 1)}
    assert any("partial: 2 of 5" in note for note in score.notes)
    assert score.records["a-2"] == {"level": 1, "answer": "Moscow", "GAIA": False}


def test_questions_that_only_the_leaderboard_can_score(tmp_path: Path) -> None:
    questions = [told("a", 1, "?"), told("b", 1, "12")]
    score = score_answers(read_gaia(folder(tmp_path, questions)), [answers(tmp_path / "a", {"a": "?", "b": "12"})])
    assert fractions(score) == {"all levels": (1, 1), "level 1": (1, 1)}
    assert any('1 questions have the right answer "?"' in note for note in score.notes)
    assert score.records["a"]["GAIA"] is None


def test_quirks_are_told(tmp_path: Path) -> None:
    questions = [told("a", 1, "inf"), told("b", 1, "None")]
    score = score_answers(read_gaia(folder(tmp_path, questions)), [answers(tmp_path / "a", {"a": "cat", "b": None})])
    assert fractions(score)["all levels"] == (2, 2)
    assert any("infinite: a" in note for note in score.notes) and any('"None": b' in note for note in score.notes)


def test_damaged_files_of_answers(tmp_path: Path) -> None:
    data = read_gaia(folder(tmp_path))
    lines = [
        json.dumps({"task_id": "a-1", "model_answer": "11"}),
        '{"task_id": "a-2", "model_ans',
        "[]",
        "",
        json.dumps({"model_answer": "12"}),
        json.dumps({"task_id": "b-1"}),
        json.dumps({"task_id": "z-9", "model_answer": "12"}),
        json.dumps({"task_id": "a-1", "model_answer": 12}),
    ]
    (tmp_path / "a.jsonl").write_text("\ufeff" + "\r\n".join(lines))
    score = score_answers(data, [tmp_path / "a.jsonl"])
    assert fractions(score)["all levels"] == (1, 5)
    notes = " ".join(score.notes)
    for words in ("malformed line: 4", "answer for an unknown id: 1", "duplicate id: 1", "answer that is no text: 1"):
        assert words in notes
    second = answers(tmp_path / "b.jsonl", {"c-1": "right;left"})
    assert fractions(score_answers(data, [tmp_path / "a.jsonl", second]))["all levels"] == (2, 5)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"[]", b'{"task_id": "a-1"}', b"\xff\xfe\x00"])
def test_a_file_without_an_answer(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(UserError, match='"task_id" and "model_answer"'):
        score_answers(read_gaia(folder(tmp_path / "gaia")), [tmp_path / "a.jsonl"])
    with pytest.raises(UserError, match="cannot be read"):
        score_answers(read_gaia(tmp_path / "gaia"), [tmp_path / "none.jsonl"])


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(value=st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text(), max_size=2))
def test_no_answer_ends_the_scoring(value: Any, tmp_path: Path) -> None:
    data = read_gaia(folder(tmp_path))
    score = score_answers(data, [answers(tmp_path / "a.jsonl", dict.fromkeys(GOLD, value))])
    assert score.figures[0].of == 5
    json.dumps(score.records).encode()


def test_the_suite(tmp_path: Path) -> None:
    suite = GaiaSuite(folder(tmp_path), NONE)
    first, second, third, *_ = suite.all_tasks()
    assert first.instruction == f"How many?\nAttachment: a-1.png\n{FORM}" and first.images == ("a-1.png",)
    assert second.instruction == f"How many?\n{FORM}" and not second.files
    assert third.file("b-1.csv") == b"a,b\n1,2\n" and not third.images
    assert [task.difficulty for task in suite.all_tasks()] == [0, 0, 1, 1, 2]
    assert first.checker.expected == "12" and "12" not in first.checker.value
    assert suite.tools.hidden == (str(tmp_path),) and suite.questions() == [] and suite.modes == (EPISODES,)
    assert {task.id for task in suite.tasks("validation", 9, seed=0)} == set(GOLD)
    with pytest.raises(UserError, match="there are validation"):
        suite.tasks("train", 1, seed=0)
    assert PUBLIC["gaia"] == f"{GaiaSuite.__module__}:{GaiaSuite.__name__}"


def test_test_questions_can_be_played(tmp_path: Path) -> None:
    suite = GaiaSuite(folder(tmp_path / "test", [told("t-1", 1, "?")]), NONE)
    (task,) = suite.all_tasks()
    assert task.split == "test" and not task.metadata["scored"] and task.checker.expected == "?"
    both = GaiaSuite(folder(tmp_path / "both", [told("t-1", 1, "?"), told("v-1", 1)]), NONE)
    assert [task.id for task in both.all_tasks()] == ["v-1"]


def test_what_was_played_is_written_for_the_leaderboard(tmp_path: Path) -> None:
    suite = GaiaSuite(folder(tmp_path), NONE)
    turns = (PlayedTurn("Thought: x", "ok", "seen"), PlayedTurn("Thought: y"))
    played = [PlayedTask("c-1", turns, "right;left"), PlayedTask("a-1", turns, None), PlayedTask("other", (), "1")]
    suite.write_predictions(EPISODES, played, tmp_path / "p.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert lines == [
        {"task_id": "a-1", "model_answer": None, "reasoning_trace": "Thought: x\n\nseen\n\nThought: y"},
        {"task_id": "c-1", "model_answer": "right;left", "reasoning_trace": "Thought: x\n\nseen\n\nThought: y"},
    ]
    assert fractions(suite.score([tmp_path / "p.jsonl"]))["all levels"] == (1, 5)


def test_episodes_are_checked_by_the_rule_and_see_no_answers(tmp_path: Path) -> None:
    suite = GaiaSuite(folder(tmp_path / "gaia"), NONE)
    first = suite.all_tasks()[0]
    metadata = str(tmp_path / "gaia" / "metadata.jsonl")
    codes = {
        "right": 'final_answer("$12.0")',
        "wrong": "final_answer(13)",
        "looking": f"final_answer(12 if {metadata!r} and open({metadata!r}) else 0)",
        "attached": "final_answer(12 if open('a-1.png', 'rb').read(4)[1:] == b'PNG' else 0)",
    }
    tools = suite.tools
    settings = base_config().environment
    with start_environment(settings, tools.loader, tools.settings, max_steps=2, hidden=tools.hidden) as environment:
        for name, code in codes.items():
            with environment.reset(first) as episode:
                episode.step(f"Thought: go on.\n\nCode:\n```py\n{code}\n```")
            assert episode.success == (name in ("right", "attached")), name
