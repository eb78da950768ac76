"""SQL over table files: answers, and errors that name what there is; nothing can be written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.table_tools import TableQuery
from regrpo_jax.toolbox.tables import identifier, read_tables
from tests.toolbox.tool_workspace import draw_scene, write_csv, write_xlsx

pytestmark = pytest.mark.usefixtures("workspace")
query = TableQuery()


@pytest.mark.parametrize("name", ["sales.csv", "sales.xlsx"])
def test_the_same_table_answers_from_both_formats(name: str) -> None:
    (write_csv if name.endswith("csv") else write_xlsx)(name)
    assert query(name, "SELECT city FROM sales WHERE revenue > 15") == "city\nOslo"
    assert query(name, "SELECT year, sum(revenue) AS total FROM sales GROUP BY year ORDER BY year") == (
        "year | total\n2023 | 12.5\n2024 | 25.4"
    )


def test_every_sheet_is_a_table_and_names_become_identifiers() -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.title = "2024 plan"
    book.active.append(["id", "Unit price", "id"])
    book.active.append([1, 2.5, True])
    book.create_sheet("empty")
    book.create_sheet("people").append(["name"])
    book.save("book.xlsx")
    tables = {table.name: table for table in read_tables(Path("book.xlsx"), "book.xlsx")}
    assert list(tables) == ["t_2024_plan", "people"]
    assert tables["t_2024_plan"].columns == ("id", "Unit price", "id_2")
    assert query("book.xlsx", 'SELECT "Unit price" * id FROM t_2024_plan') == '"Unit price" * id\n2.5'
    with pytest.raises(EmptyResult, match="No rows found. Tables: .*people\\(name\\) with 0 rows"):
        query("book.xlsx", "SELECT * FROM people")


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT revnue FROM sales", "no such column: revnue"),
        ("SELECT * FROM sale", "no such table: sale"),
        ("SELEC city", 'near "SELEC": syntax error'),
        ("", "only SELECT is allowed"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
        ("SELECT '\0'", "SQL error"),
    ],
)
def test_a_wrong_query_is_told_with_tables_and_columns(sql: str, words: str) -> None:
    write_csv("sales.csv")
    with pytest.raises(ToolError) as failure:
        query("sales.csv", sql)
    assert words in str(failure.value)
    assert "Tables: sales(city, year, revenue) with 3 rows." in str(failure.value)


@pytest.mark.parametrize(
    "sql",
    [
        "DROP TABLE sales",
        "DELETE FROM sales",
        "UPDATE sales SET city = 'x'",
        "INSERT INTO sales VALUES (1, 2, 3)",
        "CREATE TABLE other (a)",
        "ATTACH DATABASE 'other.db' AS other",
        "VACUUM INTO 'other.db'",
        "PRAGMA journal_mode = WAL",
        "SELECT load_extension('x')",
        "SELECT random()",
        "SELECT randomblob(10)",
        "EXPLAIN DELETE FROM sales",
    ],
)
def test_nothing_but_reading_is_allowed(sql: str) -> None:
    write_csv("sales.csv")
    with pytest.raises(ToolError, match="only SELECT is allowed|no such function"):
        query("sales.csv", sql)
    assert [path.name for path in Path().iterdir()] == ["sales.csv"]
    assert query("sales.csv", "SELECT count(*) FROM sales").endswith("\n3")


@pytest.mark.parametrize(
    "sql",
    [
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n",
        "SELECT zeroblob(1000000000)",
        "SELECT " + "(" * 2_000 + "1" + ")" * 2_000,
    ],
)
def test_an_endless_or_giant_query_is_stopped(sql: str) -> None:
    write_csv("sales.csv")
    with pytest.raises(ToolError, match="SQL error"):
        query("sales.csv", sql)


def test_no_value_grows_beyond_bounds() -> None:
    write_csv("sales.csv")
    assert len(query("sales.csv", "SELECT printf('%1000000000d', 1)")) < 2**21


def test_a_long_result_is_cut_and_says_so() -> None:
    write_csv("many.csv", [("n",), *((number,) for number in range(500))])
    lines = query("many.csv", "SELECT n FROM many").split("\n")
    assert len(lines) == 202 and lines[-1] == "(more than 200 rows; add LIMIT, WHERE or an aggregate)"


def test_files_that_are_no_tables() -> None:
    with pytest.raises(ToolError, match='"scene.png" is no table'):
        query(draw_scene(), "SELECT 1")
    with pytest.raises(ToolError, match='File not found: "x.csv". Files here: "scene.png"'):
        query("x.csv", "SELECT 1")
    Path("bad.xlsx").write_bytes(b"nothing of the kind")
    with pytest.raises(ToolError, match='"bad.xlsx" is damaged'):
        query("bad.xlsx", "SELECT 1")
    Path("empty.csv").touch()
    Path("blank.csv").write_text(",,\n\n")
    for name in ("empty.csv", "blank.csv"):
        with pytest.raises(EmptyResult, match=f'Get empty content from file "{name}"'):
            query(name, "SELECT 1")


def test_values_keep_their_kind() -> None:
    Path("kinds.csv").write_text("a;b;c;d;e\n007;1,5;-3;1e3;\n", encoding="utf-8")
    (table,) = read_tables(Path("kinds.csv"), "kinds.csv")
    assert table.rows == [("007", 1.5, -3, 1000.0, None)]


@given(st.text(max_size=30))
def test_every_name_becomes_an_identifier(text: str) -> None:
    assert identifier(text).isidentifier() or not identifier(text).isascii()
