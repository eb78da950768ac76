"""GTA as a suite: its records as tasks and questions, what is odd in them, and played turns as scored files."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from regrpo_jax.config.base_config import base_config
from regrpo_jax.environments.own_check import CheckedWorkspace
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.actions import extract_tool_calls, split_action
from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.modules import inside
from regrpo_jax.sandbox.results import ToolRun
from regrpo_jax.suites.benchmark import EPISODES, STEPS, PlayedCall, PlayedTask, PlayedTurn
from regrpo_jax.suites.find import suite_of
from regrpo_jax.suites.gta.check import check
from regrpo_jax.suites.gta.gold_steps import ANSWER_NOW, said
from regrpo_jax.suites.gta.recordings import RECORDINGS_FILE, answered_calls
from regrpo_jax.suites.gta.suite import GtaSuite
from regrpo_jax.suites.gta.tasks import ANSWERING, NOTES
from regrpo_jax.toolbox.toolset import ToolsetSettings
from tests.suites import gta_samples as samples


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> GtaSuite:
    return GtaSuite(samples.folder(tmp_path_factory.mktemp("gta")), ToolsetSettings())


def of(place: Path, **records: dict[str, Any]) -> GtaSuite:
    return GtaSuite(samples.folder(place, dict(records)), ToolsetSettings())


def task(suite: GtaSuite, record: str) -> Task:
    (found,) = [one for one in suite.all_tasks() if one.id == f"gta/{record}"]
    return found


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(stream, "PNG")
    return stream.getvalue()


def test_the_config_finds_it(suite: GtaSuite) -> None:
    config = base_config()
    config.suite.name, config.suite.path, config.tools.recorded = "gta", str(suite.path), "always"
    found = suite_of(config)
    assert isinstance(found, GtaSuite)
    assert found.settings.recorded == "always"
    assert [one.id for one in found.all_tasks()] == [one.id for one in suite.all_tasks()]


def test_a_task_is_what_the_user_asked_with_the_record_s_tools(suite: GtaSuite) -> None:
    tasks = suite.all_tasks()
    assert len(tasks) == 60 and {one.split for one in tasks} == {"test"}
    one = task(suite, "47")
    assert one.instruction.startswith("Can you generate a picture of a shirt")
    assert one.instruction.endswith("\nFiles: image/image_190.jpg")
    assert one.tools == ("ImageDescription", "TextToBbox", "TextToImage")  # the record has one of them twice
    assert one.family == "image"
    assert {one.family for one in tasks} == {"objective", "subjective", "image"}


def test_tasks_are_of_the_split_test(suite: GtaSuite) -> None:
    few = suite.tasks("test", 5, seed=1)
    assert few == suite.tasks("test", 5, seed=1) and len({one.id for one in few}) == 5
    with pytest.raises(UserError, match="no task has the split 'train'"):
        suite.tasks("train", 5, seed=1)


def test_what_is_missing_and_who_answers_is_said(suite: GtaSuite) -> None:
    one = task(suite, "0")
    assert one.images == ()
    assert "image/image_1.jpg is missing" in one.metadata[NOTES]
    assert "calls that name a missing picture are answered as recorded" in one.metadata[NOTES]
    assert one.metadata[ANSWERING]["OCR"] == "real"
    assert one.metadata[ANSWERING]["CountGivenObject"] == "recorded"
    assert any("missing image: 66" in note for note in suite.notes)
    assert any(note.startswith("tools that are recorded: CountGivenObject") for note in suite.notes)


def test_pictures_that_are_there_are_shown(tmp_path: Path) -> None:
    files = ("image/a.png", "image/b.png", "image/gone.png", "../out.png")
    (tmp_path / "out.png").write_bytes(picture())
    told = samples.record(samples.asked("?"), samples.answer("1"), right=samples.whitelist(["1"]), files=files)
    suite = of(tmp_path / "gta", one=told)
    (suite.path / "image").mkdir()
    (suite.path / "image" / "a.png").write_bytes(picture())
    (suite.path / "image" / "b.png").write_bytes(b"no picture")
    (one,) = suite.all_tasks()
    assert one.images == ("image/a.png",)
    assert [file.name for file in one.files] == ["image/a.png", "image/b.png"]
    notes = " / ".join(one.metadata[NOTES])
    assert "b.png cannot be shown: not a readable image" in notes
    assert "gone.png is missing" in notes and "out.png is outside the folder" in notes
    assert one.tools == ("final_answer",)  # none of its own, and not all that there are


def test_answers_and_recordings_are_out_of_reach(suite: GtaSuite) -> None:
    assert suite.tools.hidden == (str(suite.path),)
    for one in suite.all_tasks():
        assert all(file.behind for file in one.files if file.name == RECORDINGS_FILE)
    readable = {path.name for path in inside([suite.tools.loader])}
    assert "gta_tool.py" in readable
    assert not readable & {"records.py", "tasks.py", "check.py", "gold_steps.py", "questions.py"}


def test_every_dialog_with_an_answer_is_a_script(suite: GtaSuite) -> None:
    for one in suite.all_tasks():
        assert one.oracle, one.id
        assert "final_answer(" in one.oracle[-1].code
        for step in one.oracle:
            assert split_action(step.turn()) == (step.thought, step.code)


def test_a_made_picture_is_a_variable_of_the_script_and_a_misspelt_file_its_own(suite: GtaSuite) -> None:
    codes = [step.code for step in task(suite, "226").oracle]
    assert codes[0].startswith("picture = ImageStylization(image='image/image_447.jpg'")
    assert codes[1].startswith("result = TextToBbox(image='image/image_447.jpg'")  # recorded: /image/image_447.png
    assert codes[2].startswith("picture = AddText(image=picture, ")
    assert [step.code for step in task(suite, "166").oracle][-1] == "final_answer(picture)"  # ends on a tool's turn


ODD_DIALOGS: dict[str, tuple[list[dict[str, Any]], int]] = {
    "an unanswered call": ([samples.call("OCR", image="image/image_1.jpg")], 0),
    "content and call": (
        [samples.call("OCR", image="image/image_1.jpg") | {"content": "It is 1."}, samples.result("OCR", "1")],
        2,
    ),
    "fences in the thought": ([samples.answer("1") | {"thought": "```py\nx\n```"}], 1),
    "no thought": (
        [samples.call("OCR", image="image/image_1.jpg"), samples.result("OCR", "1"), samples.answer("1")],
        2,
    ),
    "empty answer": ([samples.answer(" ")], 0),
    "null answer": ([samples.answer(None)], 0),
    "a second question": ([samples.answer("1"), samples.asked("And now?"), samples.answer("2")], 0),
    "no turn": ([], 0),
}


@pytest.mark.parametrize("name", ODD_DIALOGS)
def test_odd_dialogs_are_scripts_or_said_to_be_none(name: str, tmp_path: Path) -> None:
    turns, steps = ODD_DIALOGS[name]
    told = samples.record(samples.asked("?"), *turns, right=samples.whitelist(["1"]))
    suite = of(tmp_path, one=told)
    (one,) = suite.all_tasks()
    assert len(one.oracle) == steps
    assert any("comes to no answer" in note for note in one.metadata[NOTES]) == (not steps)
    assert len(suite.questions()) == sum(turn["role"] == "assistant" for turn in turns)


def test_each_turn_is_asked_for_after_the_recorded_ones_before_it(suite: GtaSuite) -> None:
    questions = suite.questions()
    assert len(questions) == 208 == len({one.id for one in questions})
    own = [one for one in questions if one.id.startswith("gta/226/")]
    assert [len(one.conversation) for one in own] == [2, 4, 6, 8]
    last = own[-1].conversation
    assert [turn.role for turn in last] == ["system", "user"] + ["assistant", "user"] * 3
    assert "- AddText(image: str, text: str, position: str" in last[0].content and "- OCR(" not in last[0].content
    assert "image='/image/image_447.png'" in last[4].content  # as it was recorded
    assert last[5].content == "[OUTPUT OF STEP 1] -> Observation:\n(305, 82, 531, 260), score 84"
    assert last[-1].content.endswith(ANSWER_NOW)
    assert all(ANSWER_NOW not in one.conversation[-1].content for one in own[:-1])


def told(suite: GtaSuite, path: Path) -> dict[tuple[str, str], float]:
    return {(one.name, one.scorer): one.percent or 0.0 for one in suite.score([path]).figures}


def test_recorded_turns_as_code_score_as_the_recorded_dialogs_do(suite: GtaSuite, tmp_path: Path) -> None:
    played = [
        PlayedTask(f"gta/{record.id}/{number}", (PlayedTurn(said(*pair)),))
        for record in suite.data.records
        for number, pair in enumerate(answered_calls(record))
    ]
    suite.write_predictions(STEPS, played, tmp_path / "steps.json")
    found = told(suite, tmp_path / "steps.json")
    assert round(found["InstAcc", "GTA"], 3) == 106.122
    assert found["ToolAcc", "GTA"] == found["ArgAcc", "GTA"] == 100
    assert round(found["SummAcc", "GTA"], 3) == 82.222


def test_recorded_dialogs_as_episodes_score_as_they_do(suite: GtaSuite, tmp_path: Path) -> None:
    played = []
    for record in suite.data.records:
        turns, answer = [], None
        for pair in answered_calls(record):
            calls = tuple(
                PlayedCall(
                    one.call.name, "ok", ", ".join(f"{k}={v!r}" for k, v in one.call.arguments.items())[:300], "x"
                )
                for one in pair[1]
            )
            turns.append(PlayedTurn(said(*pair), "ok", "x", calls))
            answer = pair[0].content if not calls else None
        played.append(PlayedTask(f"gta/{record.id}", tuple(turns), answer))
    suite.write_predictions(EPISODES, played, tmp_path / "episodes.json")
    suite.write_predictions(EPISODES, played, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "episodes.json").read_bytes()
    score = suite.score([tmp_path / "episodes.json"])
    ours = {(one.name, one.scorer): (one.hits, one.of) for one in score.figures}
    gold = samples.written(tmp_path / "gold.json", samples.gold_entries(samples.dataset(), steps=False))
    theirs = {(one.name, one.scorer): (one.hits, one.of) for one in suite.score([gold]).figures}
    assert ours == theirs


def test_what_was_not_played_has_no_entry_and_an_unasked_turn_is_an_error(suite: GtaSuite, tmp_path: Path) -> None:
    path = tmp_path / "few.json"
    suite.write_predictions(STEPS, [PlayedTask("gta/1/4", (PlayedTurn("no code"),)), PlayedTask("gta/999/0", ())], path)
    entries = json.loads(path.read_text())
    assert list(entries) == ["1"]  # its place among all records
    assert len(entries["1"]["prediction"]) == len(entries["1"]["gold"]) == 6
    assert all("error" in turn for turn in entries["1"]["prediction"])
    assert any(note.startswith("partial: 1 of 60") for note in suite.score([path]).notes)


class Folder:
    """A workspace that the check looks at."""

    def __init__(self, **files: bytes) -> None:
        self.content = files

    def read_file(self, name: str) -> bytes:
        return self.content[name]

    def files(self) -> dict[str, str]:
        return dict.fromkeys(self.content, "")


def right(answer: object, expected: dict[str, Any], status: Status = Status.OK, **files: bytes) -> bool:
    calls = (ToolRun(expected["tool"], status, "", ""),) if expected.get("tool") else ()
    folder = Folder(**{name.replace("__", "."): content for name, content in files.items()})
    return check(answer, CheckedWorkspace(folder, calls), json.dumps(expected))


OBJECTIVE: list[tuple[object, list[list[str]], list[list[str]], bool]] = [
    ("It is 12.", [["12"]], [], True),
    (12, [["12"]], [], True),
    (12.0, [["12"]], [], True),  # "12.0"
    ("112", [["12"]], [], False),
    ("2 or 3", [["2"], ["3"]], [], True),
    ("2", [["2"], ["3"]], [], False),
    ("YES, no", [["yes"]], [["no"]], False),
    (None, [["none"]], [], True),
    (["2", "3"], [["2"], ["3"]], [], True),
    ("-2", [["-2"]], [], False),
    ("", [["12"]], [], False),
]


@pytest.mark.parametrize(("answer", "whitelist", "blacklist", "expected"), OBJECTIVE)
def test_an_objective_answer(answer: object, whitelist: Any, blacklist: Any, expected: bool) -> None:
    assert right(answer, {"kind": "objective", "whitelist": whitelist, "blacklist": blacklist}) is expected


def test_a_subjective_answer_is_one_of_the_references() -> None:
    told = {"kind": "subjective", "references": ["A joke.", "A pun."]}
    assert right("A pun. ", told) and not right("a pun", told) and not right(None, told)


def test_a_picture_must_be_made_by_the_last_drawing_tool() -> None:
    told = {"kind": "image", "tool": "AddText", "given": ["AddText_9.png"]}
    image = picture()
    assert right("done", told, AddText_1__png=image)
    assert right("done", told, recorded_AddText_2__png=image)
    assert right("done", told | {"tool": "Plot"}, plot_1__png=image)
    assert not right("done", told, AddText_9__png=image)  # it was given
    assert not right("done", told, Status.TOOL_ERROR, AddText_1__png=image)  # written by hand, the tool failed
    assert not right("done", told, AddText_1__png=b"no picture")
    assert not right("done", told, DrawBox_1__png=image, AddTextual_1__png=image, AddText__png=image)
    assert right("done", told | {"tool": ""}, anything__jpg=image)
    assert not right("done", told | {"tool": ""}, notes__txt=b"x")


def test_code_of_the_script_calls_what_the_dialog_calls(suite: GtaSuite) -> None:
    for record, one in zip(suite.data.records, suite.all_tasks(), strict=True):
        written = [call.name for step in one.oracle for call in extract_tool_calls(step.code, frozenset(one.tools))]
        recorded = [call.name for turn in record.dialog for call in turn.calls]
        assert written[: len(recorded)] == recorded
