"""Workbooks as people make them: cells as they are shown, and what a workbook says of itself and is not so."""

from __future__ import annotations

import datetime
import re
import zipfile
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.toolbox import workbooks
from regrpo_jax.toolbox.cell_formats import shown
from regrpo_jax.toolbox.document_tools import InspectFileAsText
from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.table_tools import TableQuery
from tests.toolbox.tool_workspace import write_xlsx

pytestmark = pytest.mark.usefixtures("workspace")
query, inspect = TableQuery(), InspectFileAsText()
DAY, MOMENT = datetime.date(2024, 1, 5), datetime.datetime(2024, 1, 5, 13, 30, 7)


def write_book(sheets: dict[str, list[list[Any]]], formats: dict[str, str] | None = None) -> str:
    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(row)
        for address, number_format in (formats or {}).items():
            sheet[address].number_format = number_format
    book.save("book.xlsx")
    return "book.xlsx"


def edited(name: str, member: str, pattern: bytes, new: bytes) -> str:
    """The workbook with one of its parts rewritten, as no library would write it."""
    with zipfile.ZipFile(name) as archive:
        parts = {part: archive.read(part) for part in archive.namelist()}
    parts[member], changes = re.subn(pattern, new, parts[member])
    assert changes
    with zipfile.ZipFile(name, "w") as archive:
        for part, data in parts.items():
            archive.writestr(part, data)
    return name


@pytest.mark.parametrize(
    ("value", "number_format", "text"),
    [
        ("007", "General", "007"), (1234567.891, "General", "1234567.891"), ("NA", "General", "NA"),
        (True, "General", "TRUE"),
        (None, "General", ""), (7.0, "General", "7"), (0.1 + 0.2, "General", "0.3"), (1e20, "General", "1E+20"),
        (-0.5, "General", "-0.5"),
        (12345678901234, "General", "12345678901234"), (0.125, "0%", "13%"), (0.125, "0.0%", "12.5%"),
        (1234.5, "#,##0.00", "1,234.50"),
        (1234567, "#,##0", "1,234,567"), (1234.5, '"$"#,##0.00', "$1,234.50"), (1234.5, "[$€-407] #,##0.00",
        "€ 1,234.50"),
        (1234.5, '#,##0.00 "€"', "1,234.50 €"), (-1234.5, "#,##0.00_);(#,##0.00)", "(1,234.50)"), (-3, "0;(0);-",
        "(3)"), (0, '0;-0;"none"', "none"),
        (7, "000", "007"), (1500000, '0.0,,"M"', "1.5M"), (0.00012, "0.00E+00", "1.20E-04"), (5, '0 "kg"', "5 kg"),
        (2.5, "0.##", "2.5"),
        (3, "0.##", "3"), (0.5, "#.##", ".5"), (2.675, "0.00", "2.68"), (5, "[Red]0.0", "5.0"), (0.5, "# ?/?",
        "0.5"), (5, "[>3]0;0.0", "5"),
        (DAY, "yyyy-mm-dd", "2024-01-05"), (DAY, "dd/mm/yyyy", "05/01/2024"), (DAY, "d mmm yy", "5 Jan 24"),
        (DAY, "mm-dd-yy", "2024-01-05"),
        (DAY, "dddd, mmmm d", "Friday, January 5"), (MOMENT, "yyyy-mm-dd hh:mm:ss", "2024-01-05 13:30:07"),
        (MOMENT, "h:mm AM/PM", "1:30 PM"),
        (MOMENT, "mm:ss", "30:07"), (datetime.time(9, 5), "hh:mm", "09:05"), (datetime.time(9, 5), "yyyy", "09:05:00"),
        (datetime.timedelta(hours=30), "[h]:mm", "1 day, 6:00:00"), (-0.001, "0.00", "0.00"),
    ],
)  # fmt: skip
def test_a_cell_is_told_as_it_shows(value: object, number_format: str, text: str) -> None:
    assert shown(value, number_format) == text


@settings(deadline=None)
@given(
    st.integers(-(10**9), 10**9) | st.floats(-1e15, 1e15), st.text('0#,.%;-+()$"€ _[]EGeneralmdyhs/?@\\', max_size=12)
)
def test_every_number_is_shown_in_every_format(value: float, number_format: str) -> None:
    assert isinstance(shown(value, number_format), str) and isinstance(shown(MOMENT, number_format), str)
    assert shown(value, "General").replace("E+", "e") and float(shown(value, "General")) == pytest.approx(
        value, rel=1e-14
    )


def test_values_are_told_as_stored() -> None:
    name = write_book(
        {"data": [["id", "n", "na", "t", "blank", "share", "day"], ["007", 1234567.891, "NA", True, None, 0.125, DAY]]},
        {"F2": "0.0%"},
    )
    assert inspect(name).split("\n")[-1] == "| 007 | 1234567.891 | NA | TRUE |  | 12.5% | 2024-01-05 |"
    assert [inspect(name, column=column, row=1) for column in (0, 1, 2, 3, 5, 6)] == [
        "id (A2): 007", "n (B2): 1234567.891", "na (C2): NA", "t (D2): TRUE", "share (F2): 12.5% (the value is 0.125)",
        "day (G2): 2024-01-05",
    ]  # fmt: skip
    with pytest.raises(EmptyResult, match="cell E2 is empty"):
        inspect(name, column=4, row=1)
    assert query(name, "SELECT * FROM data").endswith("\n007 | 1234567.891 | NA | 1 |  | 0.125 | 2024-01-05")


@pytest.mark.parametrize(
    "lie", [b'<dimension ref="A1"/>', b'<dimension ref="A1:XFD1048576"/>', b'<dimension ref="nonsense"/>']
)
def test_the_size_that_a_sheet_tells_is_not_relied_on(lie: bytes) -> None:
    name = edited(
        write_book({"s": [["a", "b"], [1, 2], [3, 4]]}), "xl/worksheets/sheet1.xml", rb"<dimension[^>]*>", lie
    )
    if b"nonsense" in lie:
        with pytest.raises(ToolError, match="is damaged"):
            query(name, "SELECT * FROM s")
        return
    assert query(name, "SELECT sum(a), sum(b) FROM s").endswith("\n4 | 6")
    assert inspect(name).endswith("| 1 | 2 |\n| 3 | 4 |")


def test_sheets_whose_names_clash_are_made_different_and_said() -> None:
    name = write_book({"Q1 2024": [["x"], [1]], "Q1-2024": [["x"], [2]], "q1_2024": [["x"], [3]]})
    told = 'sheet "Q1 2024" is table Q1_2024; sheet "Q1-2024" is table Q1_2024_2; sheet "q1_2024" is table q1_2024_3.'
    for number, table in enumerate(("Q1_2024", "Q1_2024_2", "q1_2024_3"), 1):
        assert (
            query(name, f"SELECT x FROM {table}").split("\n", 1)[1]
            == f"{number}\nNames of sheets that are alike: {told}"
        )


def test_formulas_without_a_value_are_said() -> None:
    name = write_book({"s": [["a", "twice"], [1, "=A2*2"], [2, "=A3*2"]]})
    note = 'Formulas without a computed value in sheet "s": B2, B3; they are told as formulas.'
    assert inspect(name).split("\n")[-2:] == ["| 2 | =A3*2 |", note]
    assert inspect(name, column=1, row=1) == "twice (B2): =A2*2 (a formula; the file has no value of it)"
    assert query(name, "SELECT a, twice FROM s").split("\n")[1:] == ["1 | =A2*2", "2 | =A3*2", note]
    with pytest.raises(ToolError, match=r'sum\(\) of the text "=A2\*2".*without a computed value'):
        query(name, "SELECT sum(twice) FROM s")
    edited(name, "xl/worksheets/sheet1.xml", rb"<f>A2\*2</f><v ?/?>(</v>)?", b"<f>A2*2</f><v>2</v>")
    assert query(name, "SELECT twice FROM s").split("\n")[1:] == ["2", "=A3*2", note.replace("B2, ", "")]


def test_a_stray_cell_does_no_harm() -> None:
    name = write_book({"s": [["a", "b"], [1, 2]]})
    book = openpyxl.load_workbook(name)
    book["s"]["XFD1"], book["s"]["A1048576"] = "stray", "end"
    book.save(name)
    assert query(name, "SELECT a, b, stray FROM s").split("\n")[1:] == ["1 | 2 | ", "end |  | "]
    assert inspect(name).split("\n")[1:] == [
        "| a | b | stray |", "| --- | --- | --- |", "| 1 | 2 |  |", "(1,048,573 empty rows)", "| end |  |  |",
    ]  # fmt: skip


def test_a_workbook_of_too_many_cells_is_refused_before_it_is_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbooks, "MOST_CELLS", 5)
    for ask in (lambda: query(write_xlsx("big.xlsx"), "SELECT 1"), lambda: inspect(write_xlsx("big.xlsx"))):
        with pytest.raises(ToolError, match='"big.xlsx" has 12 cells; at most 5 of a workbook are read'):
            ask()


@pytest.mark.parametrize("kind", ["xlsx", "docx", "pptx"])
def test_a_password_is_said(kind: str) -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 1000
    Path(f"locked.{kind}").write_bytes(ole + "EncryptedPackage".encode("utf-16-le") + b"\0" * 100)
    with pytest.raises(ToolError, match=f'"locked.{kind}" is locked with a password'):
        inspect(f"locked.{kind}")
    Path(f"old.{kind}").write_bytes(ole)
    with pytest.raises(ToolError, match=f'"old.{kind}" is in the format of Office before 2007'):
        inspect(f"old.{kind}")


def test_a_pdf_with_a_password_is_said() -> None:
    from fpdf import FPDF

    document = FPDF()
    document.add_page()
    document.set_encryption(owner_password="owner", user_password="user")
    document.output("locked.pdf")
    with pytest.raises(ToolError, match='"locked.pdf" is locked with a password'):
        inspect("locked.pdf")


def test_a_sheet_with_a_title_above_its_table_keeps_all_cells() -> None:
    name = write_book({"s": [["Report"], [], ["a", "b"], [1, 2]]})
    assert query(name, "SELECT * FROM s").split("\n") == ["Report | column_2", "a | b", "1 | 2"]
