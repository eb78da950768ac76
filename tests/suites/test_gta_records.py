"""GTA's own files: what a record comes to, and that whatever is odd is named and counted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regrpo_jax.errors import UserError
from regrpo_jax.suites.gta.records import dataset_file, read_gta
from regrpo_jax.suites.json_text import parsed
from regrpo_jax.suites.problems import SHOWN, Problem, told
from tests.suites.gta_samples import DATA, answer, asked, call, dataset, folder, record, whitelist

GOOD = record(asked("How many?"), call("OCR", image="image/image_1.jpg"), answer("12"), right=whitelist(["12"]))


def copied(**changes: Any) -> dict[str, Any]:
    return json.loads(json.dumps(GOOD)) | changes


def test_the_60_records(tmp_path: Path) -> None:
    data = read_gta(folder(tmp_path))
    assert [one.id for one in data.records] == list(dataset()) and data.count == 60
    assert [one.position for one in data.records] == list(range(60))
    answers = [one.answer for one in data.records]
    assert [sum(getattr(one, kind) for one in answers) for kind in ("objective", "subjective", "image")] == [40, 5, 15]
    assert sum(len(turn.calls) for one in data.records for turn in one.dialog) == 151
    assert len(data.tools) == 14 and data.tools["AddText"].inputs[3].default == "red"
    first = data.records[0]
    assert first.question.startswith("How much should I pay") and [file.path for file in first.files] == [
        "image/image_1.jpg",
        "image/image_2.jpg",
    ]
    assert first.dialog[1].thought and first.dialog[1].calls[0].arguments == {"image": "image/image_1.jpg"}
    assert first.dialog[2].name == "ImageDescription" and first.dialog[2].result.type == "text"
    assert first.answer.whitelist == (("12",),) and first.answer.blacklist == ()
    counts = [problem.kind for problem in data.problems]
    assert counts.count("missing image") == 66 and counts.count("image that is none of the record's") == 1
    assert len(told(data.problems)) == 2


def test_what_files_are_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has no dataset.json, and there is no dataset\*.json either"):
        read_gta(tmp_path)
    (tmp_path / "dataset.subset.json").write_text(json.dumps({"0": GOOD}))
    assert dataset_file(tmp_path).name == "dataset.subset.json"
    (tmp_path / "dataset.other.json").write_text("{}")
    with pytest.raises(UserError, match="dataset.other.json, dataset.subset.json"):
        dataset_file(tmp_path)
    (tmp_path / "dataset.json").write_text(json.dumps({"0": GOOD}))
    data = read_gta(tmp_path)
    assert data.file.name == "dataset.json" and [problem.kind for problem in data.problems] == [
        "missing file",
        "missing image",
    ]


@pytest.mark.parametrize("text", ["", "[1]", "{", "\ufeff[]", '{"0": 1'])
def test_a_file_that_is_no_json_object(tmp_path: Path, text: str) -> None:
    (tmp_path / "dataset.json").write_text(text)
    with pytest.raises(UserError, match="dataset.json: "):
        read_gta(tmp_path)


def test_ids_and_keys_that_are_there_twice(tmp_path: Path) -> None:
    one, two = json.dumps(GOOD), json.dumps(copied(gt_answer=None))
    folder(tmp_path)
    (tmp_path / "dataset.json").write_text(f'{{"0": {one}, "1": {one}, "0": {two}}}')
    data = read_gta(tmp_path)
    assert [one.id for one in data.records] == ["0", "1"] and data.records[0].answer.image
    assert [str(problem) for problem in data.problems if problem.kind == "duplicate key"] == [
        'dataset.json: "0": the last one counts'
    ]


def without(key: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda one: {name: value for name, value in one.items() if name != key}


MALFORMED: dict[str, tuple[Any, str]] = {
    "a number": (3, "the record must be an object"),
    "no dialogs": (without("dialogs")(copied()), '"dialogs" must be a list'),
    "an empty dialog": (copied(dialogs=[]), "must begin with a turn of the user"),
    "a dialog of the assistant": (copied(dialogs=[answer("a")]), "must begin with a turn of the user"),
    "a turn of text": (copied(dialogs=["a"]), '"dialogs"[0] must be an object'),
    "another role": (copied(dialogs=[asked("a"), {"role": "system"}]), "\"role\" is 'system'"),
    "a question of parts": (copied(dialogs=[{"role": "user", "content": [1]}]), '"content" of the user must be text'),
    "no calls": (copied(dialogs=[asked("a"), {"role": "assistant", "tool_calls": []}]), '"tool_calls" is empty'),
    "arguments of text": (
        copied(
            dialogs=[asked("a"), {"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": ""}}]}]
        ),
        'must have a "name" and an object of "arguments"',
    ),
    "a result of a number": (
        copied(dialogs=[asked("a"), {"role": "tool", "content": 3}]),
        '"content" of a tool must be',
    ),
    "no answer": (without("gt_answer")(copied()), '"gt_answer" is missing'),
    "an answer of text": (copied(gt_answer="12"), '"gt_answer" must be an object'),
    "a flat whitelist": (copied(gt_answer={"whitelist": ["12"]}), '"whitelist" must be made of lists'),
    "no whitelist": (copied(gt_answer={"blacklist": []}), '"whitelist" must be a list'),
    "references of numbers": (copied(gt_answer=[1]), '"gt_answer" must be made of lists of texts'),
    "no files": (copied(files=None), '"files" must be a list'),
    "a file without a path": (copied(files=[{"type": "image"}]), '"path" is None'),
    "a tool without a name": (copied(tools=[{}]), '"tools"[0]: "name" is None'),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_record_is_named_and_left_out(name: str, tmp_path: Path) -> None:
    broken, words = MALFORMED[name]
    data = read_gta(folder(tmp_path, {"7": broken, "8": GOOD}))
    assert [(one.id, one.position) for one in data.records] == [("8", 1)] and data.count == 2
    (problem,) = [problem for problem in data.problems if problem.kind == "malformed record"]
    assert problem.where == "record 7" and words in problem.detail


def test_images_and_tools_that_are_not_there(tmp_path: Path) -> None:
    described = json.loads((DATA / "toolmeta.json").read_bytes())
    dialog = [asked("a?"), call("OCR", image="image/other.jpg"), call("Ghost", image="x"), call("Solver", command="1")]
    one = record(*dialog, right=None, files=("image/there.jpg", "image/gone.jpg", "../outside.jpg"))
    one["tools"] = [described["OCR"]]
    folder(tmp_path, {"0": one})
    (tmp_path / "image").mkdir()
    (tmp_path / "image/there.jpg").write_bytes(b"x")
    assert [str(problem) for problem in read_gta(tmp_path).problems] == [
        "record 0: image/gone.jpg",
        "record 0: ../outside.jpg is outside the folder",
        "record 0: Ghost is not in toolmeta.json",
        "record 0: Solver is called, but not among its tools",
        "record 0: image/other.jpg",
    ]


def test_what_a_tool_made_may_be_named_later(tmp_path: Path) -> None:
    made = {"role": "tool", "name": "AddText", "content": {"type": "image", "content": "image/made.jpg"}}
    turns = [call("AddText", image="image/image_1.jpg", text="a"), made, call("OCR", image="image/made.jpg")]
    data = read_gta(folder(tmp_path, {"0": record(asked("a?"), *turns, right=None)}))
    assert {problem.kind for problem in data.problems} == {"missing image"}


def test_many_problems_of_a_kind_are_one_sentence_with_their_number() -> None:
    problems = [Problem("missing image", f"record {number}") for number in range(30)] + [Problem("odd", "x", "y")]
    assert told(problems) == (
        f"missing image: 30 (record 0; record 1; record 2; record 3; record 4; and {30 - SHOWN} more)",
        "odd: 1 (x: y)",
    )


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(key=st.sampled_from(sorted(GOOD)), value=values, turn=values)
def test_no_record_ends_the_reading(key: str, value: Any, turn: Any, tmp_path: Path) -> None:
    broken = {"0": GOOD, "1": copied(**{key: value}), "2": copied(dialogs=[asked("a"), turn])}
    data = read_gta(folder(tmp_path, broken))
    left_out = [problem.where for problem in data.problems if problem.kind == "malformed record"]
    assert len(data.records) + len(left_out) == 3


@given(st.dictionaries(st.text(max_size=3), values, max_size=4))
def test_json_without_doubles_is_read_as_ever(value: dict[str, Any]) -> None:
    assert parsed(json.dumps(value)) == (value, ())
