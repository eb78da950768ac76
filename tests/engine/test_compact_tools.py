"""The four tools really read the workspace; the executor names whatever keeps a call from reaching them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.engine.compact_cards import (
    COLOURS,
    MARGINS,
    REGIONS,
    Card,
    Picture,
    colours_in,
    draw_picture,
)
from regrpo_jax.engine.compact_tools import execute_action
from regrpo_jax.records.types import Observation, Status

PICTURE = Picture(20, (Card("red", "topright", 3, 7), Card("blue", "lowleft", 7, 3)))
NOTES = "Ann, Lima, 2014, 42\nAnn, Rome, 2014, 17\nAnn, Rome, 2016, 33\nBob, Oslo, 2011, 51\n"


@pytest.fixture()
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "fox.txt").write_text('total "42"\n', encoding="utf-8")
    (tmp_path / "pay.csv").write_text("name,pay\nAnn,42\nBob,17\n", encoding="utf-8")
    (tmp_path / "notes.txt").write_text(NOTES, encoding="utf-8")
    (tmp_path / "card.json").write_text('{"red": "63", "blue": "28"}', encoding="utf-8")
    draw_picture(PICTURE).save(tmp_path / "card.png")
    return tmp_path


def run(code: str, workspace: Path) -> Observation:
    return execute_action(f"Thought: try it.\n\nCode:\n```py\n{code}\n```", workspace)


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ('inspect_file_as_text("fox.txt")', Status.OK, 'total "42"'),
        ('inspect_file_as_text(file_path="fox.txt")', Status.OK, 'total "42"'),
        ('visualizer("card.png", "red")', Status.OK, '"red" card, code "63"'),
        ('visualizer(colour="blue", image="card.png")', Status.OK, '"blue" card, code "28"'),
        ('visualizer("card.png", "green")', Status.EMPTY, "No object found."),
        ('table_query("pay.csv", "Bob")', Status.OK, 'pay "17"'),
        ('table_query("pay.csv", "Eve")', Status.EMPTY, 'No results found for "Eve".'),
        ('search("Bob")', Status.OK, 'pay "51"'),
        ('search("Ann", "Lima")', Status.OK, 'pay "42"'),
        ('search("Ann", "2016")', Status.OK, 'pay "33"'),
        ('search("Ann", "Oslo")', Status.EMPTY, 'No results found for "Ann", "Oslo".'),
        ('search("Eve")', Status.EMPTY, 'No results found for "Eve".'),
        ('final_answer("42")', Status.OK, "42"),
    ],
)
def test_tools_answer_from_the_files(code: str, status: Status, text: str, workspace: Path) -> None:
    assert run(code, workspace) == Observation(status, text)


FILES = '"card.json", "card.png", "fox.txt", "notes.txt", "pay.csv"'


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ('inspect_file_as_text("fox.md")', f'Error: no file "fox.md". Files: {FILES}.'),
        ('inspect_file_as_text("../fox.txt")', f'Error: no file "../fox.txt". Files: {FILES}.'),
        ('inspect_file_as_text("pay.csv")', 'Error: "pay.csv" is a table.'),
        ('inspect_file_as_text("card.png")', 'Error: "card.png" is an image.'),
        ('inspect_file_as_text("card.json")', 'Error: "card.json" is no text.'),
        ('visualizer("pay.csv", "red")', 'Error: "pay.csv" is no image.'),
        ('visualizer("dog.png", "red")', f'Error: no file "dog.png". Files: {FILES}.'),
        (
            'visualizer("card.png", "pink")',
            'Error: no colour "pink". Colours: "red", "green", "blue", "yellow".',
        ),
        ('table_query("fox.txt", "Ann")', 'Error: "fox.txt" is no table.'),
        ('table_query("dog.csv", "Ann")', f'Error: no file "dog.csv". Files: {FILES}.'),
        ('search("Ann")', 'Error: ambiguous. "Lima": 1, "Rome": 2, "2014": 2, "2016": 1.'),
        ('search("Ann", "Rome")', 'Error: ambiguous. "Rome": 2, "2014": 1, "2016": 1.'),
    ],
)
def test_what_a_tool_cannot_do_is_a_tool_error(code: str, text: str, workspace: Path) -> None:
    assert run(code, workspace) == Observation(Status.TOOL_ERROR, text)


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ('search("Ann")\nsearch("Bob")', "Error: 2 statements, give one call."),
        ('x = search("Ann")', "Error: no tool call."),
        ('"Ann"', "Error: no tool call."),
        ("", "Error: no tool call."),
        ('search("Ann"', "Error: SyntaxError in line 1."),
        ('print("42")', 'Error: "print" is no tool.'),
        ('__import__("os").remove("fox.txt")', "Error: \"__import__('os').remove\" is no tool."),
        ("search(Ann)", 'Error: NameError: "Ann" is not defined.'),
        ("inspect_file_as_text(fox.txt)", 'Error: NameError: "fox" is not defined.'),
        ('search("Ann" + "a")', 'Error: "name" is not a literal.'),
        ('search(search("Ann"))', 'Error: "name" is not a literal.'),
        ('search(f"{1}")', 'Error: "name" is not a literal.'),
        ('search(*["Ann"])', 'Error: "name" is not a literal.'),
        ('search("Ann", 2014)', 'Error: TypeError: "place_or_year" must be text.'),
        ("search()", 'Error: TypeError: search misses "name".'),
        ('visualizer("card.png")', 'Error: TypeError: visualizer misses "colour".'),
        ('search("Ann", "Lima", "2014")', "Error: TypeError: search takes 2 arguments, not 3."),
        ('search("Ann", name="Bob")', 'Error: TypeError: search cannot take "name" here.'),
        ('search("Ann", city="Lima")', 'Error: TypeError: search cannot take "city" here.'),
        ('search(**{"name": "Ann"})', 'Error: TypeError: search cannot take "**" here.'),
    ],
)
def test_what_is_not_one_literal_call_is_an_invalid_action(code: str, text: str, workspace: Path) -> None:
    assert run(code, workspace) == Observation(Status.INVALID_ACTION, text)


def test_a_turn_without_a_code_block_is_an_invalid_action(workspace: Path) -> None:
    observation = execute_action("Thought: the answer is 42.", workspace)
    assert observation == Observation(Status.INVALID_ACTION, "Error: no tool call.")


def test_damaged_files_are_tool_errors(workspace: Path) -> None:
    (workspace / "card.png").write_bytes(b"not a picture")
    (workspace / "pay.csv").write_text("", encoding="utf-8")
    (workspace / "fox.txt").write_bytes(b"\xff\xfe\xff")
    (workspace / "empty.txt").write_text(" \n", encoding="utf-8")
    picture = run('visualizer("card.png", "red")', workspace)
    assert picture.text == "Error: visualizer cannot read its file (UnidentifiedImageError)."
    assert run('table_query("pay.csv", "Ann")', workspace).status is Status.TOOL_ERROR
    assert run('inspect_file_as_text("fox.txt")', workspace).status is Status.TOOL_ERROR
    assert run('inspect_file_as_text("empty.txt")', workspace).status is Status.EMPTY


def test_a_search_without_notes_says_which_file_it_wants(tmp_path: Path) -> None:
    assert run('search("Ann")', tmp_path).text == 'Error: no file "notes.txt". Files: .'


@given(
    background=st.integers(0, 50),
    colour=st.sampled_from(sorted(COLOURS)),
    region=st.sampled_from(sorted(REGIONS)),
    left=st.integers(*MARGINS),
    top=st.integers(*MARGINS),
    scale=st.integers(1, 3),
)
def test_the_colour_read_is_the_colour_drawn(
    background: int, colour: str, region: str, left: int, top: int, scale: int
) -> None:
    image = draw_picture(Picture(background, (Card(colour, region, left, top),)))
    enlarged = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    assert colours_in(enlarged) == (colour,)
