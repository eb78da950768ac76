"""Trajectories in the forms of MAT and MM-Traj, all invented: each form is read, and most that can be run yield."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from experiments.mm_traj.invented import CODE_ROOT, IMAGE_ROOT, ask, final, observed, picture, record, write
from regrpo_jax.engine.cases import Situation
from regrpo_jax.engine.execute import Refused, play_clean, play_failure
from regrpo_jax.engine.fill import Workshop, fill
from regrpo_jax.engine.perturb.near_misses import near_misses
from regrpo_jax.engine.replay import replay_record
from regrpo_jax.engine.slots import Slot
from regrpo_jax.engine.teachers import annotate
from regrpo_jax.engine.trajectory_source import trajectory_source
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.errors import UserError
from regrpo_jax.records import load_clean, validate_rot
from regrpo_jax.records.path_roots import path_roots
from regrpo_jax.records.types import ErrorType, Status
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.toolbox.behind import RECORDED_FILE
from regrpo_jax.toolbox.toolset import ToolsetSettings

ROOTS = path_roots([f"{CODE_ROOT}={IMAGE_ROOT}"])
SYSTEM = "Use tools."


@pytest.fixture(scope="module")
def invented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("mm_traj"))


@pytest.fixture(scope="module")
def places() -> Iterator[Environment]:
    with Environment.start(SandboxSettings(workers=1, wall_seconds=30), None, EpisodeLimits(max_steps=32)) as found:
        yield found


def firsts(path: Path, **keywords: Any) -> dict[str, Situation]:
    source = trajectory_source(path, seed=0, **keywords)
    return {one.source_id: one for one in source.situations if one.index == 0}


def written(folder: Path, *records: dict[str, Any]) -> Path:
    path = folder / "mat.json"
    path.write_text(json.dumps(records))
    return path


def test_every_form_is_read_for_training(invented: Path) -> None:
    found = {one.id: one for one in load_clean(invented)}
    assert len(found) == len(json.loads(invented.read_text()))
    assert {"7001", "7002"} <= found.keys()  # whole numbers
    pictures = {name: [Path(image.path).name for image in found[name].images] for name in found}
    assert pictures["invented_000"] == pictures["invented_001"] == pictures["identity_invented_000"] == ["street_1.jpg"]
    assert pictures["identity_invented_011"] == ["pair_0_a.jpg", "pair_0_b.jpg"]


def test_what_is_left_out_is_told(invented: Path) -> None:
    notes = trajectory_source(invented, seed=0).notes
    assert notes[0].startswith("40 of 47 trajectories are clean (6 have a failed step, 1 do not end with final_answer)")
    (missing,) = [note for note in notes if "files that" in note]
    assert missing.startswith("3 files that 7 trajectories read are not here: .cache/tongagent/gta/image_9.jpg, ")
    assert 'config.data.path_roots, "old=new", such as ".cache=data/unpacked"' in missing
    (told,) = [note for note in notes if note.startswith("recorded results stand in")]
    assert "visualizer" in told and "ask_search_agent" in told
    assert "config.tools.search is empty, so that nothing but recordings answers a search" in notes
    assert "trajectories do not tell what they returned: visualizer 1" in " ".join(notes)
    with_roots = trajectory_source(invented, seed=0, roots=ROOTS).notes
    assert "2 files that 2 trajectories read are not here: elsewhere/plate_0.jpg" in " ".join(with_roots)


def test_paths_of_code_and_field_become_one(invented: Path) -> None:
    at = firsts(invented, roots=ROOTS)["invented_004"]
    name = f"{IMAGE_ROOT}/gta/image_9.jpg"
    assert at.executable and at.images == {"<image_00>": name}
    assert name in at.step.code and name in at.instruction and CODE_ROOT not in at.step.code + at.instruction
    assert [file.name for file in at.task.files if not file.behind] == [name]
    qwen = firsts(invented, roots=ROOTS)["identity_invented_004"]
    assert qwen.images == at.images and qwen.instruction.startswith("Picture 1: <image_00>\n")


def test_an_absolute_root_is_played_under_a_name_of_the_workspace(places: Environment, tmp_path: Path) -> None:
    picture(tmp_path / "unpacked/a.jpg", 0)
    (tmp_path / "json").mkdir()
    steps = [ask("Who?", "/mnt/x/a.jpg", "Mira Sol"), final("Mira Sol")]
    image = {"<image_00>": "data/a.jpg"}
    path = written(
        tmp_path / "json", record(1, "<image_00>\nTask: Who? See /mnt/x/a.jpg", steps, image=image, system=SYSTEM)
    )
    roots = path_roots([f"/mnt/x={tmp_path}/unpacked", f"data={tmp_path}/unpacked"])
    at = firsts(path, roots=roots)["1"]
    assert at.images == {"<image_00>": "unpacked/a.jpg"} and 'image_path="unpacked/a.jpg"' in at.step.code
    assert "See unpacked/a.jpg" in at.instruction and at.executable
    assert play_clean(places, at)[0].text == "Mira Sol"


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.txt", "a/../../secret.txt"])
def test_code_of_others_takes_no_file_along_from_elsewhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "data").mkdir()
    code = f'print(inspect_file_as_text(file_path="{name}", question="What?"))'
    steps = [("I read.", code, observed("secret")), final("secret")]
    at = firsts(written(tmp_path / "data", record(1, "Task: read", steps, system=SYSTEM)))["1"]
    assert not at.executable
    assert [file.name for file in at.task.files] == [RECORDED_FILE]


def test_pictures_that_no_text_shows_lead_the_task(tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", 0)
    told = record(3, "Task: Who?", [ask("Who?", "a.jpg", "Mira"), final("Mira")], image="a.jpg", system=SYSTEM)
    assert firsts(written(tmp_path, told))["3"].instruction == "<image_00>\nTask: Who?"


def test_tools_of_here_come_first_and_recordings_where_they_fail(places: Environment, tmp_path: Path) -> None:
    picture(tmp_path / "a.jpg", 0)
    (tmp_path / "bill.txt").write_text("total 42.50")
    read = 'text = inspect_file_as_text(file_path="bill.txt", question="total?")\nprint(text)'
    found = 'boxes = objectlocation(object="dog", image_path="a.jpg")\nprint(boxes)'
    boxes = "[[1, 2, 3, 4], [5, 6, 7, 8]]"
    path = written(
        tmp_path,
        record("here", "Task: total?", [("I read.", read, observed("It is 42.50.")), final("42.50")], system=SYSTEM),
        record("noise", "Task: dogs?", [("I look.", found, observed(boxes)), final("2")], image="a.jpg", system=SYSTEM),
    )
    here, noise = (firsts(path)[name] for name in ("here", "noise"))
    assert play_clean(places, here)[0].text == "total 42.50"  # of the file, not the words that were recorded
    assert play_clean(places, noise)[0].text == boxes
    with pytest.raises(Refused, match="clean_step_fails"):
        play_clean(places, Situation(**{**vars(noise), "recorded": None}))


def test_a_near_miss_is_never_answered_by_want_of_a_recording(places: Environment, invented: Path) -> None:
    at = firsts(invented)["invented_000"]
    right = at.step.code
    other = near_misses(at, ErrorType.ARG_INVALID, random.Random(0))[0]
    paraphrased = type(other)(ErrorType.ARG_INVALID, "test", "I ask.", right.replace("What animal", "Which animal"))
    with pytest.raises(Refused, match="not_recorded"):
        play_failure(places, at, paraphrased)
    lost = type(other)(ErrorType.ARG_INVALID, "test", "I ask.", right.replace("street_1", "steret_1"))
    failure = play_failure(places, at, lost)
    assert failure.failed.status == Status.TOOL_ERROR and "File not found" in failure.failed.text
    assert (failure.kind, failure.recorded, failure.answered) == ("recorded", {1}, True)


def test_most_that_can_be_run_yield_a_record_that_replays(places: Environment, invented: Path) -> None:
    source = trajectory_source(invented, seed=0, roots=ROOTS)
    kinds = tuple(list(ErrorType)[:4])
    shop = Workshop(
        source, places, "rules", functools.partial(annotate, style="sentences"), None,
        attempts=10, synthetic=False, seed=0, others=kinds, slots=20,
    )  # fmt: skip
    entries = [fill(shop, Slot(number, kind, number // 4, 5)) for number, kind in enumerate(kinds * 5)]
    records = [entry.record for entry in entries if entry.record]
    assert len(records) >= 18  # of other types where the source has too few of a slot's own
    assert len({one["rot_meta"]["src_id"] for one in records}) >= 10
    tasks = {task.id: task for one in source.situations for task in one.tasks}
    shapes = {name: shape for one in source.situations for name, shape in one.tools.items()}
    for one in records:
        assert validate_rot(one) == ()
        steps = one["execution"]["steps"]
        assert (one["execution"]["kind"] == "recorded") == any(step.get("recorded") for step in steps)
        assert not steps[one["execution"]["failed_step"]].get("recorded")  # what fails is run
    for one in records[:4]:
        assert replay_record(places, one, tasks, shapes) == ()


def test_an_edited_mark_is_noticed(places: Environment, invented: Path) -> None:
    source = trajectory_source(invented, seed=0)
    shop = Workshop(
        source, places, "rules", functools.partial(annotate, style="sentences"), None,
        attempts=40, synthetic=False, seed=0,
    )  # fmt: skip
    told = fill(shop, Slot(0, ErrorType.TOOL_MISMATCH, 0, 1)).record
    assert told is not None and validate_rot(told) == ()
    told["execution"]["kind"] = "executed" if told["execution"]["kind"] == "recorded" else "recorded"
    assert any(reason.startswith("execution_kind") for reason in validate_rot(told))
    told["execution"]["steps"][0]["recorded"] = "yes"
    assert any("must be true or false" in reason for reason in validate_rot(told))


def test_gtas_names_are_the_tools_where_they_are_asked_for(tmp_path: Path) -> None:
    steps = [("I add.", "print(Calculator(expression='1+2'))", observed("3")), final("3")]
    path = written(tmp_path, record(1, "Task: add", steps, system=SYSTEM))
    named = SuiteTools("regrpo_jax.toolbox.toolset:load_toolset", ToolsetSettings(gta_names=True))
    assert "Calculator" in firsts(path)["1"].absent
    assert "Calculator" not in firsts(path, tools=named)["1"].absent


def test_a_file_of_nothing_usable_says_why(tmp_path: Path) -> None:
    failed = ("I read.", "print(1)", "Error: no")
    path = written(tmp_path, record(1, "Task: x", [failed, final("1")], system=SYSTEM))
    with pytest.raises(
        UserError, match=r"no trajectory has tool calls(.|\n)*0 of 1 trajectories are clean \(1 have a failed"
    ):
        trajectory_source(path, seed=0)
