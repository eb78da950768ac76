"""What the generators write: every file opens with the real library and holds what the task's truth says."""

import csv
import io
import json
import sqlite3
from pathlib import Path
from random import Random

import numpy as np
import pytest
from PIL import Image

from regrpo_jax.suites.toolrepair import full_pictures, make_suite
from regrpo_jax.suites.toolrepair.documents import FORMATS, TABLE_FORMATS, document, table
from regrpo_jax.suites.toolrepair.draft import database_file
from regrpo_jax.suites.toolrepair.full_pictures import Mark, draw_marks, draw_scene, mark_box, text_box
from regrpo_jax.suites.toolrepair_tools import compact_pictures
from regrpo_jax.toolbox.document_tools import document_text
from regrpo_jax.toolbox.tables import read_tables

FACTS = [("Staff", "12"), ("Total", "4711"), ("Note", "a & b (c) <d>")]


@pytest.mark.parametrize("ending", FORMATS)
def test_documents_hold_their_facts(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"report.{ending}"
    path.write_bytes(document(ending, "Report of Oslo", FACTS))
    text = document_text(path, path.name)
    for name, value in FACTS:
        line = next(line for line in text.splitlines() if name in line)
        assert value in line.replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">").replace("\\", "")
    assert document(ending, "Report of Oslo", FACTS) == path.read_bytes()


def test_office_files_open_with_their_own_libraries() -> None:
    openpyxl = pytest.importorskip("openpyxl")
    sheet = openpyxl.load_workbook(io.BytesIO(table("xlsx", ("name", "pay"), [("Ann", 12)], "staff")))["staff"]
    assert list(sheet.values) == [("name", "pay"), ("Ann", 12)]
    pdfplumber = pytest.importorskip("pdfplumber")
    with pdfplumber.open(io.BytesIO(document("pdf", "Title", FACTS))) as opened:
        assert "Total: 4711" in opened.pages[0].extract_text()


@pytest.mark.parametrize("ending", TABLE_FORMATS)
def test_tables_can_be_queried(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"staff.{ending}"
    path.write_bytes(table(ending, ("name", "pay"), [("Ann", 12), ("Bob", 13)], "staff"))
    (found,) = read_tables(path, path.name)
    assert (found.name, list(found.columns)) == ("staff", ["name", "pay"])
    assert [tuple(row) for row in found.rows] == [("Ann", 12), ("Bob", 13)]


def test_database_opens_and_is_the_same_twice(tmp_path: Path) -> None:
    rows = [("Ann", "Rome"), ("Bob", "Oslo")]
    data = database_file("name, city", "people", rows)
    assert data == database_file("name, city", "people", rows)
    (tmp_path / "people.db").write_bytes(data)
    with sqlite3.connect(tmp_path / "people.db") as opened:
        assert opened.execute("SELECT name, city FROM people ORDER BY place").fetchall() == rows


def test_cards_are_where_they_should_be_and_carry_their_codes() -> None:
    rng = Random(1)
    for code in range(10, 100):
        region, other = rng.sample(list(compact_pictures.REGIONS), 2)
        colour, plain = rng.sample(list(compact_pictures.COLOURS), 2)
        cards = [compact_pictures.random_card(rng, region, colour, str(code))]
        cards.append(compact_pictures.random_card(rng, other, plain, None))
        image = Image.open(io.BytesIO(compact_pictures.draw_cards(cards, rng.randint(0, 50)))).convert("RGB")
        assert image.size == (56, 56)
        column, row = compact_pictures.REGIONS[region]
        place = (column * 28 + cards[0].left + 8, row * 28 + cards[0].top + 6)
        assert image.getpixel(place) == compact_pictures.COLOURS[colour]
        assert compact_pictures.card_in(compact_pictures.quadrant(image, region)) == (colour, code)
        assert compact_pictures.card_in(image, colour) == (colour, code)
        assert compact_pictures.card_in(image, plain) == (plain, None)
        empty = [name for name in compact_pictures.REGIONS if name not in (region, other)]
        assert all(compact_pictures.card_in(compact_pictures.quadrant(image, name)) is None for name in empty)


def test_shapes_are_counted_from_the_pixels() -> None:
    for seed in range(40):
        rng = Random(seed)
        frame, first, second = (rng.choice(list(compact_pictures.COLOURS)) for _ in range(3))
        slots = rng.sample(range(9), 6)
        shapes = [(rng.choice(compact_pictures.SHAPES), rng.choice((first, second)), slot) for slot in slots]
        data = compact_pictures.draw_shapes(frame, shapes, rng.randint(0, 50))
        image = Image.open(io.BytesIO(data)).convert("RGB")
        assert compact_pictures.frame_colour(image) == frame
        for kind in compact_pictures.SHAPES:
            for colour in (first, second):
                wanted = sum(shape[:2] == (kind, colour) for shape in shapes)
                assert compact_pictures.count_shapes(image, colour, kind) == wanted


def test_full_pictures_have_their_colours_and_printed_numbers() -> None:
    marks = [Mark("top left", "red", "circle", "4711"), Mark("bottom right", "blue", "square", "")]
    image = Image.open(io.BytesIO(draw_marks(marks))).convert("RGB")
    for mark in marks:
        left, top, right, bottom = mark_box(mark.region)
        assert image.getpixel(((left + right) // 2, (top + bottom) // 2)) == full_pictures.COLOURS[mark.colour]
        dark = int((np.asarray(image.crop(text_box(mark.region))).sum(axis=-1) < 100).sum())
        assert (dark > 50) == bool(mark.text)
    scene = Image.open(io.BytesIO(draw_scene([("square", "green", 0)], "orange"))).convert("RGB")
    assert scene.getpixel((5, 5)) == full_pictures.COLOURS["orange"]
    assert scene.getpixel((67, 84)) == full_pictures.COLOURS["green"]


@pytest.mark.parametrize("profile", ["compact", "full"])
def test_files_of_tasks_are_what_their_names_say(profile: str) -> None:
    for split in ("train", "held_out"):
        for task in make_suite(split, 54, 9, profile):
            for file in task.files:
                ending = file.name.rpartition(".")[2]
                if ending == "png":
                    with Image.open(io.BytesIO(file.content)) as image:
                        image.load()
                        assert profile == "full" or image.size == (56, 56)
                elif ending == "json":
                    json.loads(file.content)
                elif ending == "csv":
                    list(csv.reader(io.StringIO(file.content.decode())))
                elif ending in ("xlsx", "docx"):
                    assert file.content.startswith(b"PK")
                elif ending == "pdf":
                    assert file.content.startswith(b"%PDF")
                elif ending == "db":
                    assert file.content.startswith(b"SQLite format 3")
                else:
                    file.content.decode()
