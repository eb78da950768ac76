"""Transcripts in the shapes found in the wild become the same turns, steps and images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.records import (
    ErrorType,
    ImageReference,
    RecordError,
    Status,
    Turn,
    is_observation_text,
    normalise_turns,
    parse_trajectory,
    rot_from_dict,
    strip_observation,
)

Make = Callable[[], dict[str, Any]]
HEADERS = [
    "[OUTPUT OF STEP 12] -> ",
    "[OUTPUT OF STEP 0]",
    "Observation:",
    "Error:",
    "\n",
    " ",
    "-> ",
    "text",
]


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ("[OUTPUT OF STEP 0] -> Observation:\n[[1,2]]", "[[1,2]]"),
        ("[OUTPUT OF STEP 3] Observation:\nfile.png\n", "file.png"),
        ("Observation: 5", "5"),
        (
            "[OUTPUT OF STEP 10] -> Error:\nNameError: x\nNow let's retry",
            "Error:\nNameError: x\nNow let's retry",
        ),
        ("Error: no such tool", "Error: no such tool"),
        ("[OUTPUT OF STEP 1] -> Observation:\nError: File not found: a", "Error: File not found: a"),
        ("[OUTPUT OF STEP 1] -> Observation:", ""),
        ("plain text", "plain text"),
        ("see Observation: 5", "see Observation: 5"),
    ],
)
def test_headers_of_observations(text: str, payload: str) -> None:
    assert strip_observation(text) == payload


@given(st.text() | st.lists(st.sampled_from(HEADERS)).map("".join))
def test_stripping_twice_changes_nothing(text: str) -> None:
    once = strip_observation(text)
    assert strip_observation(once) == once
    assert once in text


def test_who_is_speaking() -> None:
    assert is_observation_text(" [OUTPUT OF STEP 1] -> Error:\nx")
    assert is_observation_text("Observation:\nx") and is_observation_text("Error: x")
    assert not is_observation_text("Task: explain the Error: 5") and not is_observation_text("Observations differ")


def test_role_names_keys_and_content_parts() -> None:
    raw = [
        {"role": "system", "content": "s"},
        {"from": "human", "value": "look"},
        {"role": "assistant", "content": [{"type": "text", "text": "I "}, "see"]},
        {"role": "tool", "content": "5"},
        {"from": "GPT", "value": "ok"},
        {
            "role": "user",
            "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": " what?"}],
        },
        {"from": "observation", "value": "Error: x"},
    ]
    assert normalise_turns(raw) == (
        Turn("system", "s"),
        Turn("user", "look"),
        Turn("assistant", "I see"),
        Turn("user", "Observation:\n5"),
        Turn("assistant", "ok"),
        Turn("user", "<image> what?"),
        Turn("user", "Error: x"),
    )
    assert normalise_turns(normalise_turns(raw)) == normalise_turns(raw)


@pytest.mark.parametrize(
    "raw",
    [
        None,
        "text",
        [],
        [5],
        [{"content": "no role"}],
        [{"role": "narrator", "content": "x"}],
        [{"role": ["user"], "content": "x"}],
        [{"role": "user"}],
        [{"role": "user", "content": None}],
        [{"role": "user", "content": [{"type": "video"}]}],
        [{"role": "user", "content": [{"type": "text", "text": 5}]}],
        [{"role": "user", "content": [None]}],
    ],
)
def test_what_is_no_conversation_is_refused_by_name(raw: object) -> None:
    with pytest.raises(RecordError, match="turn_shape: "):
        normalise_turns(raw)


def test_every_bad_turn_is_named() -> None:
    with pytest.raises(RecordError) as caught:
        normalise_turns([{"role": "user", "content": "x"}, 1, {"role": "user", "content": 2}])
    assert [reason.split()[1:4] for reason in caught.value.reasons] == [
        ["turn", "1", "must"],
        ["the", "content", "of"],
    ]


def test_a_from_value_transcript_as_steps(clean_record: Make) -> None:
    trajectory = parse_trajectory(clean_record())
    assert (trajectory.id, trajectory.answer, trajectory.system) == ("ledger", "1280", "")
    assert trajectory.task == "Task: What is the total in ledger.csv?"
    first, last = trajectory.steps
    assert (first.index, first.thought) == (0, "Read it.")
    assert [call.name for call in first.tool_calls] == ["inspect_file_as_text"]
    assert first.observation is not None and first.observation.text == "Total: 1280"
    assert (last.observation, last.reflection, last.code) == (None, None, "final_answer(1280)")
    assert last.text == trajectory.conversation[-1].content
    assert parse_trajectory(trajectory) is trajectory


def test_a_recovery_as_steps(rot_record: Make) -> None:
    raw = rot_record()
    trajectory = parse_trajectory(rot_from_dict(raw, Path()))
    assert trajectory == parse_trajectory(raw)
    statuses = [step.observation.status if step.observation else None for step in trajectory.steps]
    assert statuses == [Status.OK, Status.TOOL_ERROR, Status.OK, None]
    reflection = trajectory.steps[2].reflection
    assert reflection is not None and reflection.error_type is ErrorType.ARG_INVALID
    assert trajectory.steps[2].thought == "The name was wrong."


def test_an_error_turn_of_a_step_is_its_observation() -> None:
    turns = [
        {"role": "user", "content": "Error: my task starts oddly"},
        {"role": "assistant", "content": "Thought: go\n```py\nx\n```"},
        {"role": "user", "content": "[OUTPUT OF STEP 0] -> Error:\nNameError: name 'x' is not defined"},
        {"role": "assistant", "content": "hm"},
        {"role": "user", "content": "thanks"},
    ]
    trajectory = parse_trajectory({"conversations": turns})
    assert trajectory.task == "Error: my task starts oddly"
    observation = trajectory.steps[0].observation
    assert observation is not None and observation.status is Status.TOOL_ERROR
    assert trajectory.steps[1].observation is None


@pytest.mark.parametrize(
    ("image", "references"),
    [
        ({"<image_00>": "a.jpg"}, (ImageReference("<image_00>", "base/a.jpg"),)),
        ("a.jpg", (ImageReference("", "base/a.jpg"),)),
        (
            ["a.jpg", {"<b>": "b.jpg"}],
            (ImageReference("", "base/a.jpg"), ImageReference("<b>", "base/b.jpg")),
        ),
        ("/data/a.jpg", (ImageReference("", "/data/a.jpg"),)),
        (None, ()),
        ("", ()),
        ({}, ()),
    ],
)
def test_images_of_a_record(image: object, references: tuple[ImageReference, ...]) -> None:
    record = {"image": image, "conversations": [{"role": "user", "content": "x"}]}
    assert parse_trajectory(record, Path("base")).images == references


def test_a_part_that_names_no_picture_shows_the_one_beside_the_turns() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "b.png"}},
        {"type": "image"},
        {"type": "image", "path": "c.png"},
    ]
    record = {"image": "a.png", "messages": [{"role": "user", "content": parts}]}
    trajectory = parse_trajectory(record)
    assert [image.path for image in trajectory.images] == ["b.png", "a.png", "c.png"]
    assert trajectory.task == "<image><image><image>"


@pytest.mark.parametrize("image", [5, True, [1], [["a"]], {"<a>": 5}, {"": "a"}, {"<a>": ""}])
def test_images_of_no_known_shape_are_refused(image: object) -> None:
    with pytest.raises(RecordError, match="schema_types: `image`"):
        parse_trajectory({"image": image, "conversations": [{"role": "user", "content": "x"}]})
