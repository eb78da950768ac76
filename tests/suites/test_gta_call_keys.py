"""Which calls are the same call of a GTA tool, so that what was recorded answers them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.suites.gta.call_keys import Pictures, call_key, known_file
from regrpo_jax.suites.gta.record_types import ToolDescription
from regrpo_jax.suites.gta.recordings import Recordings, answered_calls, recordings_of
from regrpo_jax.suites.gta.records import record_of
from tests.suites import gta_samples as samples

FILES = ("image/image_1.jpg", "image/image_2.jpg", "other/image_2.jpg")


def described(name: str) -> ToolDescription:
    told = json.loads((samples.DATA / "toolmeta.json").read_bytes())[name]
    return record_of("0", {"tools": [told], "files": [], "dialogs": [samples.asked("?")], "gt_answer": None}, 0).tools[
        0
    ]


def key(name: str, made: dict[str, str] | None = None, **arguments: Any) -> str:
    return call_key(described(name), arguments, Pictures(FILES, made or {}))


SAME: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("OCR", {"image": "image/image_1.jpg"}, {"image": "image_1.jpg"}),
    ("OCR", {"image": "image/image_1.jpg"}, {"image": "/image/image_1.png"}),
    ("OCR", {"image": "image/image_1.jpg"}, {"image": "./image/image_1.jpg"}),
    ("OCR", {"image": "image/image_1.jpg"}, {"image": "C:\\gta\\image\\IMAGE_1.JPG"}),
    ("OCR", {"image": "image/image_2.jpg"}, {"image": "/image/image_2.jpg"}),
    ("CountGivenObject", {"image": "image_1", "text": "Beer "}, {"text": "beer", "image": "image/image_1.jpg"}),
    ("GoogleSearch", {"query": "panda  food"}, {"query": "Panda food", "k": 10}),
    ("GoogleSearch", {"query": "panda", "k": 4}, {"query": "panda", "k": 4.0}),
    ("GoogleSearch", {"query": "panda", "k": 4}, {"query": "panda", "k": "4"}),
    ("GoogleSearch", {"query": "panda", "k": None}, {"query": "panda"}),
    ("GoogleSearch", {"query": "a, b"}, {"query": "a， b"}),
    ("TextToBbox", {"image": "image_1.jpg", "text": "lion", "top1": True}, {"image": "image_1.jpg", "text": "lion"}),
    ("TextToBbox", {"image": "image_1.jpg", "text": "a", "top1": "False"},
     {"image": "image_1.jpg", "text": "a", "top1": False}),
    ("DrawBox", {"image": "image_1.jpg", "bbox": "(1, 2, 3, 4)"}, {"image": "image_1.jpg", "bbox": [1, 2.0, 3, 4]}),
    ("DrawBox", {"image": "image_1.jpg", "bbox": "1,2,3,4", "annotation": None},
     {"image": "image_1.jpg", "bbox": "(1, 2, 3, 4)"}),
    ("AddText", {"image": "image_1.jpg", "text": "x", "position": "MB"},
     {"image": "image_1.jpg", "text": "x", "position": "mb", "color": "red"}),
    ("Calculator", {"expression": "1.49 + 2"}, {"expression": "1.49+2"}),
    ("Solver", {"command": "```python\nx = 1\n```"}, {"command": "x  =  1  # one"}),
    ("Solver", {"command": "x = 'a'"}, {"command": 'x = "a"\n'}),
]  # fmt: skip

DIFFERENT: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("OCR", {"image": "image/image_1.jpg"}, {"image": "image/image_2.jpg"}),
    ("OCR", {"image": "image/image_2.jpg"}, {"image": "other/image_2.jpg"}),
    ("OCR", {"image": "image/image_2.jpg"}, {"image": "image_2.jpg"}),  # two are called that
    ("OCR", {"image": "image/image_1.jpg"}, {"image": "image_11.jpg"}),
    ("CountGivenObject", {"image": "image_1.jpg", "text": "beer"}, {"image": "image_1.jpg", "text": "beers"}),
    ("GoogleSearch", {"query": "panda", "k": 4}, {"query": "panda"}),
    ("TextToBbox", {"image": "image_1.jpg", "text": "a", "top1": False}, {"image": "image_1.jpg", "text": "a"}),
    ("DrawBox", {"image": "image_1.jpg", "bbox": "(1, 2, 3, 4)"}, {"image": "image_1.jpg", "bbox": "(1, 2, 3, 40)"}),
    ("DrawBox", {"image": "image_1.jpg", "bbox": "(1, 2, 3, 4)"}, {"image": "image_1.jpg", "bbox": "(-1, 2, 3, 4)"}),
    ("Calculator", {"expression": "12 * 7"}, {"expression": "7 * 12"}),
    ("Solver", {"command": "x = 1"}, {"command": "if True:\n    x = 1"}),
    ("Solver", {"command": "not python at all"}, {"command": "not python at ALL"}),
    ("MathOCR", {"image": "image_1.jpg"}, {"image": "image_1.jpg", "more": 1}),
]


@pytest.mark.parametrize(("name", "first", "second"), SAME)
def test_written_otherwise(name: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    assert key(name, **first) == key(name, **second)


@pytest.mark.parametrize(("name", "first", "second"), DIFFERENT)
def test_another_call(name: str, first: dict[str, Any], second: dict[str, Any]) -> None:
    assert key(name, **first) != key(name, **second)


def test_a_made_picture_is_known_by_its_tool() -> None:
    made = {"dummy_generated_image": "Plot", "plot_1": "Plot", "addtext_1": "AddText"}
    assert key("OCR", made, image="image/dummy_generated_image.jpg") == key("OCR", made, image="Plot_1.png")
    assert key("OCR", made, image="AddText_1.png") != key("OCR", made, image="Plot_1.png")


def test_the_same_arguments_of_another_tool_are_another_call() -> None:
    assert key("OCR", image="image_1.jpg") != key("MathOCR", image="image_1.jpg")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["OCR", "DrawBox", "GoogleSearch", "Solver", "Calculator", "TextToBbox"]), VALUES)
def test_any_value_has_a_key_that_is_the_same_again(name: str, value: Any) -> None:
    tool = described(name)
    arguments = {one.name: value for one in tool.inputs}
    assert call_key(tool, arguments, Pictures(FILES)) == call_key(
        tool, dict(reversed(arguments.items())), Pictures(FILES)
    )


@given(st.text(max_size=30))
def test_a_name_means_at_most_one_file(name: str) -> None:
    assert known_file(name, FILES) in (None, *FILES)


def two_answers() -> bytes:
    """The recordings of a dialog that makes a call twice, and gets another answer the second time."""
    told = samples.record(
        samples.asked("Count."),
        samples.call("CountGivenObject", image="image/image_1.jpg", text="car"),
        samples.result("CountGivenObject", "4"),
        samples.call("CountGivenObject", image="image/image_1.jpg", text="car"),
        samples.result("CountGivenObject", "5"),
        samples.call("OCR", image="image/image_1.jpg"),
        right=None,
    )
    found = record_of("7", told, 0)
    return recordings_of(found, {tool.name: tool for tool in found.tools})


def test_a_call_that_was_made_twice_is_answered_in_turn_and_an_unanswered_one_never() -> None:
    recordings = Recordings(two_answers())
    asked = key("CountGivenObject", image="image/image_1.jpg", text="CAR")
    found = [recordings.answer(asked) for _ in range(3)]
    assert [one and one.content for one in found] == ["4", "5", "5"]
    assert recordings.answer(key("OCR", image="image/image_1.jpg")) is None
    assert Recordings(b"").answer(asked) is None


def test_results_belong_to_the_calls_of_their_turn() -> None:
    several = samples.call("OCR", image="image/image_1.jpg")
    several["tool_calls"] += samples.call("Calculator", expression="1+1")["tool_calls"]
    told = samples.record(
        samples.asked("?"), several, samples.result("Calculator", "2"), samples.result("OCR", "one"),
        samples.answer("2"), right=samples.whitelist(["2"]),
    )  # fmt: skip
    (_, calls), (_, none) = answered_calls(record_of("7", told, 0))
    assert [(one.call.name, one.result and one.result.content) for one in calls] == [
        ("OCR", "one"),
        ("Calculator", "2"),
    ]
    assert none == ()
