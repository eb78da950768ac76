"""A policy's code as GTA's files of predictions have it: what is a call, what an answer, what an error."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.suites.benchmark import PlayedCall, PlayedTask, PlayedTurn
from regrpo_jax.suites.gta.predicted import Kind, turn_of
from regrpo_jax.suites.gta.predicted_items import episode_items, step_item

ARGUMENTS = {"OCR": ["image"], "GoogleSearch": ["query", "k"], "DrawBox": ["image", "bbox", "annotation"]}


def turn(code: str, thought: str = "go on.") -> str:
    return f"Thought: {thought}\n\nCode:\n```py\n{code}\n```"


CALLS: list[tuple[str, str, dict[str, Any]]] = [
    ("result = OCR(image='a.jpg')\nprint(result)", "OCR", {"image": "a.jpg"}),
    ('print(OCR("a.jpg"))', "OCR", {"image": "a.jpg"}),
    ("GoogleSearch('x', k=3)", "GoogleSearch", {"query": "x", "k": 3}),
    ("path = 'a.jpg'\nOCR(image=path)", "OCR", {"image": "a.jpg"}),
    ("OCR(image=picture)", "OCR", {"image": "picture"}),
    ("DrawBox('a.jpg', (1, 2, 3, 4))", "DrawBox", {"image": "a.jpg", "bbox": [1, 2, 3, 4]}),
    ("OCR('a.jpg', 'b', 'c')", "OCR", {"image": "a.jpg", "argument_1": "b", "argument_2": "c"}),
    ("OCR(**given)", "OCR", {}),
    ("GoogleSearch(query='a' 'b', k=-1)", "GoogleSearch", {"query": "ab", "k": -1}),
    ("final_answer(OCR(image='a.jpg'))", "OCR", {"image": "a.jpg"}),
    ("OCR(image='a.jpg')\nfinal_answer('12')", "OCR", {"image": "a.jpg"}),
]

ANSWERS = [
    ("final_answer('12')", "12"),
    ("final_answer(12.5)", "12.5"),
    ("final_answer(answer='yes')", "yes"),
    ("total = '7'\nfinal_answer(total)", "7"),
    ("final_answer(str(7))", "str(7)"),
    ("final_answer()", ""),
    ("final_answer('')", ""),
    ("final_answer(None)", "None"),
]

ERRORS = ["", "The answer is 12.", turn("x = 1"), turn("OCR(image="), turn("Unknown(image='a')"),
          "Thought: 12", "```json\n{}\n```"]  # fmt: skip


@pytest.mark.parametrize(("code", "name", "arguments"), CALLS)
def test_a_turn_that_calls(code: str, name: str, arguments: dict[str, Any]) -> None:
    found = turn_of(step_item(turn(code), ARGUMENTS))
    assert (found.kind, found.name, found.arguments, found.error) == (Kind.CALL, name, arguments, False)


@pytest.mark.parametrize(("code", "text"), ANSWERS)
def test_a_turn_that_answers(code: str, text: str) -> None:
    found = turn_of(step_item(turn(code), ARGUMENTS))
    assert (found.kind, found.content, found.error) == (Kind.ANSWER, text, False)


@pytest.mark.parametrize("text", ERRORS)
def test_a_turn_that_does_nothing_is_an_error_and_no_answer(text: str) -> None:
    found = turn_of(step_item(text, ARGUMENTS))
    assert found.error
    assert found.text == ""


@given(st.text())
def test_any_turn_becomes_a_turn_of_a_known_kind(text: str) -> None:
    assert turn_of(step_item(text, ARGUMENTS)).kind in (Kind.CALL, Kind.ANSWER)
    assert turn_of(step_item(turn(text), ARGUMENTS)).kind in (Kind.CALL, Kind.ANSWER)


def called(name: str, arguments: str, status: str = "ok", result: str = "seen") -> PlayedCall:
    return PlayedCall(name, status, arguments, result)


def test_an_episode_is_its_calls_with_what_they_came_to_and_the_answer() -> None:
    played = PlayedTask(
        "gta/0",
        (
            PlayedTurn(turn("x = OCR(image=p)"), "ok", "seen", (called("OCR", "image='a.jpg'"),)),
            PlayedTurn(turn("OCR(image='b')"), "tool_error", "no", (called("OCR", "'b'", "tool_error", "no file"),)),
            PlayedTurn("I do not know.", "invalid_action", "No code was found."),
            PlayedTurn(turn("final_answer(x)"), "ok", "", (called("final_answer", "'12'"),)),
        ),
        answer="12",
    )
    kinds = [turn_of(item) for item in episode_items(played, ARGUMENTS)]
    assert [one.kind for one in kinds] == [Kind.CALL, Kind.RESULT, Kind.CALL, Kind.RESULT, Kind.ANSWER, Kind.ANSWER]
    assert [one.error for one in kinds] == [False, False, True, False, True, False]
    assert [one.arguments for one in kinds[:3:2]] == [{"image": "a.jpg"}, {"image": "b"}]
    assert kinds[-1].content == "12"


def test_an_episode_without_an_answer_has_none() -> None:
    played = PlayedTask("gta/0", (PlayedTurn("It is 12.", "invalid_action", "No code was found."),))
    (item,) = episode_items(played, ARGUMENTS)
    assert turn_of(item).text == "" and turn_of(item).error
    assert episode_items(PlayedTask("gta/0", ()), ARGUMENTS) == []


def test_arguments_that_the_journal_cut_are_taken_from_the_code() -> None:
    long = "x" * 400
    cut = f"query='{long}"[:300]
    one = PlayedTurn(turn(f"GoogleSearch(query='{long}')"), "ok", "", (called("GoogleSearch", cut),))
    loop = PlayedTurn(
        turn(f"for _ in 'ab': GoogleSearch(query='{long}')"), "ok", "", (called("GoogleSearch", cut),) * 2
    )
    first, _ = episode_items(PlayedTask("gta/0", (one,)), ARGUMENTS)
    assert turn_of(first).arguments == {"query": long}
    again = [turn_of(item) for item in episode_items(PlayedTask("gta/0", (loop,)), ARGUMENTS)[::2]]
    assert [item.arguments for item in again] == [{"arguments": cut}] * 2  # which of them it was nobody knows
