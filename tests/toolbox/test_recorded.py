"""Recordings answer equal calls and no others; whoever looks can tell what was recorded from what was run."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task, TaskFile
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Observation, Status
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.behind import RECORDED_FILE
from regrpo_jax.toolbox.failures import ToolFailure
from regrpo_jax.toolbox.recorded import (
    Recording,
    Recordings,
    call_key,
    installed_recordings,
    named_arguments,
    recorded_file,
)
from regrpo_jax.toolbox.toolset import ToolsetSettings, load_toolset

LOADED = load_toolset(ToolsetSettings(builtin=("visualizer", "inspect_file_as_text", "calculator", "search")))
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    yield
    behind.install({})


def tools(*recordings: Recording, absent: tuple[str, ...] = ()) -> tuple[dict[str, Any], Recordings]:
    behind.install({RECORDED_FILE: recorded_file(recordings, absent)})
    found = installed_recordings()
    assert found is not None
    return found.over(LOADED, LOADED), found


@given(st.dictionaries(st.text(min_size=1), PLAIN, max_size=4))
def test_a_key_is_the_same_in_any_order_and_as_lists_or_tuples(arguments: dict[str, Any]) -> None:
    turned = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    assert call_key(arguments) == call_key(dict(reversed(turned.items())))
    assert call_key(arguments | {"added to them": 1}) != call_key(arguments)


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ({"a": 2}, {"a": 2.0}, True),
        ({"a": True}, {"a": 1}, False),
        ({"a": "2"}, {"a": 2}, False),
        ({"a": None}, {}, True),
        ({"a": ""}, {}, False),
        ({"a": "Cat"}, {"a": "cat"}, False),
        ({"a": [1, 2]}, {"a": (1, 2)}, True),
        ({"a": [1, 2]}, {"a": [2, 1]}, False),
        ({"a": {"x": 1.0}}, {"a": {"x": 1}}, True),
    ],
)
def test_which_arguments_are_equal(one: dict[str, Any], other: dict[str, Any], equal: bool) -> None:
    assert (call_key(one) == call_key(other)) is equal


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}, b"bytes"])
def test_what_is_no_plain_data_equals_nothing(value: object) -> None:
    assert call_key({"a": value}) is None
    offered, found = tools(Recording("visualizer", {"question": "what?"}, "a cat"), absent=("visualizer",))
    with pytest.raises(ToolFailure):
        offered["visualizer"](question=value)
    assert found.taken() is not True


def test_names_positions_and_defaults_make_the_same_call() -> None:
    tool = LOADED["visualizer"]
    assert named_arguments(tool, ("what?", "a.png"), {}) == {"question": "what?", "image_path": "a.png"}
    assert named_arguments(None, ("what?",), {"b": 1}) == {"0": "what?", "b": 1}
    search = LOADED["search"]
    assert named_arguments(search, ("q",), {"k": 10}) == {"query": "q"}  # 10 is the default
    assert named_arguments(search, ("q",), {"k": 3}) == {"query": "q", "k": 3}


def test_equal_calls_get_their_recordings_in_order_and_the_last_one_again() -> None:
    said = [Recording("visualizer", {"question": "what?"}, words) for words in ("a cat", "a dog")]
    offered, found = tools(*said, absent=("visualizer",))
    assert [offered["visualizer"]("what?") for _ in range(3)] == ["a cat", "a dog", "a dog"]
    assert found.taken() is True and found.taken() is None


def test_any_other_call_is_the_real_tools() -> None:
    offered, found = tools(Recording("calculator", {"expression": "1+1"}, "3"))
    assert offered["calculator"]("1+1") == "3" and found.taken() is True
    assert str(offered["calculator"]("1+2")) == "3" and found.taken() is None
    assert offered["search"] is LOADED["search"]


def test_a_recorded_failure_fails_again() -> None:
    offered, _ = tools(Recording("search", {"query": "x"}, "No results found.", Status.EMPTY))
    with pytest.raises(ToolFailure) as caught:
        offered["search"](query="x")
    assert caught.value.status == Status.EMPTY and caught.value.message == "No results found."


@pytest.mark.parametrize(
    ("arguments", "keywords", "words", "taken"),
    [
        (("who?", "a.png"), {}, "nothing is recorded of it for question='who?'", False),
        (("what?", "b.png"), {}, 'File not found: "b.png". Files here: "a.png"', None),
        (("what?", "gone.png"), {}, "nothing is recorded", False),  # recorded of another question, so no typing error
        ((), {"wrong": 1}, 'has no argument "wrong". Usage: visualizer(', None),
        ((7, "a.png"), {}, '"question" must be str', None),
    ],
)
def test_what_is_told_of_a_call_without_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], keywords: Any, words: str, taken: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.png").write_bytes(picture())
    recorded = [
        Recording("visualizer", {"question": "what?", "image_path": "a.png"}, "a cat"),
        Recording("visualizer", {"question": "where?", "image_path": "gone.png"}, "there"),
    ]
    offered, found = tools(*recorded, absent=("visualizer",))
    with pytest.raises(ToolFailure) as caught:
        offered["visualizer"](*arguments, **keywords)
    assert words in caught.value.message and caught.value.status == Status.TOOL_ERROR
    assert found.taken() is taken


def test_a_damaged_or_impossible_file_is_told() -> None:
    behind.install({RECORDED_FILE: b'{"recordings": [{"tool": "x"}], "absent": []}'})
    with pytest.raises(UserError, match=r"recorded\.json behind the tools is damaged"):
        installed_recordings()
    with pytest.raises(UserError, match="no plain data"):
        recorded_file([Recording("visualizer", {"image": object()})])
    behind.install({})
    assert installed_recordings() is None


def test_an_episode_marks_what_was_recorded() -> None:
    recorded = [
        Recording("objectlocation", {"object": "cat", "image_path": "a.png"}, [[1, 2, 3, 4]]),
        Recording("unknown_tool", {"x": 1}, "words"),
        Recording("image_generator", {"prompt": "a square"}, picture="made.png"),
    ]
    task = Task(
        "t", "f", "train", "go", AnswerChecker(CheckKind.EXACT, "x"),
        files=(TaskFile("a.png", picture()), TaskFile("made.png", picture(), behind=True),
               TaskFile(RECORDED_FILE, recorded_file(recorded, ["image_generator"]), behind=True)),
    )  # fmt: skip
    settings = ToolsetSettings(builtin=("objectlocation", "image_generator", "final_answer"))
    told: list[tuple[Observation, list[bool | None]]] = []
    with Environment.start(SandboxSettings(workers=1, wall_seconds=30), settings) as places, places.reset(task) as play:
        for code in ('print(len(objectlocation("cat", "a.png")))', 'print(objectlocation("red", "a.png"))',
                     "unknown_tool(x=1)", 'image_generator("a square")', 'image_generator("a circle")',
                     'open("recorded.json")'):  # fmt: skip
            observation = play.step(f"Thought: go.\n\nCode:\n```py\n{code}\n```")
            told.append((observation, [run.recorded for run in play.tool_runs[-1]]))
    assert [observation.status for observation, _ in told] == [
        Status.OK, Status.EMPTY, Status.OK, Status.OK, Status.TOOL_ERROR, Status.TOOL_ERROR,
    ]  # fmt: skip
    assert [marks for _, marks in told] == [[True], [None], [True], [True], [False], []]
    assert told[3][0].images == ("image_generator_1.png",)
    assert told[0][0].text == "1" and "words" in told[2][0].text
    assert "No such file" in told[5][0].text  # no action can read in the recordings
