"""Tables of text in the dialects of the world: the right number, or the reason why there is none."""

from __future__ import annotations

import contextlib
import csv
import io
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.toolbox.document_tools import InspectFileAsText
from regrpo_jax.toolbox.failures import EmptyResult, ToolError, ToolFailure
from regrpo_jax.toolbox.table_tools import TableQuery
from regrpo_jax.toolbox.tables import read_tables
from regrpo_jax.toolbox.text_tables import rows_of

pytestmark = pytest.mark.usefixtures("workspace")
query, inspect = TableQuery(), InspectFileAsText()
SUM = "SELECT sum(price) FROM x"


def written(data: str | bytes, encoding: str = "utf-8") -> str:
    Path("x.csv").write_bytes(data.encode(encoding) if isinstance(data, str) else data)
    return "x.csv"


def total(data: str | bytes, encoding: str = "utf-8") -> float:
    return float(query(written(data, encoding), SUM).split("\n")[1])


cells = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\ufeff"), max_size=12).map(str.strip)


@settings(deadline=None)
@given(
    st.lists(st.lists(cells.filter(bool), min_size=3, max_size=3), min_size=2, max_size=5),
    st.sampled_from(",;\t|"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC]),
)
def test_what_a_writer_wrote_is_read(rows: list[list[str]], delimiter: str, end: str, quoting: int) -> None:
    stream = io.StringIO(newline="")
    csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting).writerows(rows)  # type: ignore[arg-type]
    with contextlib.suppress(ToolError):
        found, mark = rows_of(stream.getvalue(), "x.csv", tabs=False)
        if mark == delimiter:
            assert found == rows
        else:  # another mark cuts every row alike as well
            assert len({len(row) for row in found}) == 1 and len(found[0]) >= 2


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(-(10**7), 10**7), st.integers(0, 99)), min_size=1, max_size=6),
    st.sampled_from([(",", "."), (".", ","), (" ", ","), ("\u202f", ","), ("'", "."), ("", "."), ("", ",")]),
    st.sampled_from(",;\t|"),
    st.sampled_from([0, 1, 2]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"]),
)
def test_a_sum_is_that_of_the_numbers_or_there_is_none(
    numbers: list[tuple[int, int]], marks: tuple[str, str], delimiter: str, places: int, encoding: str
) -> None:
    def told(whole: int, rest: int) -> str:
        return f"{whole:,}".replace(",", marks[0]) + (f"{marks[1]}{rest:02}"[: places + 1] if places else "")

    if marks[0] == "." and not places and delimiter != ";":
        return  # 1.234 is one and a bit where nothing says otherwise
    if marks[0] == "\u202f":
        encoding = encoding.replace("cp1252", "utf-8")
    stream = io.StringIO(newline="")
    rows = [("größe", "price"), *((f"n{place}", told(*number)) for place, number in enumerate(numbers))]
    csv.writer(stream, delimiter=delimiter, lineterminator="\r\n").writerows(rows)
    meant = [
        math.copysign(1, whole) * (abs(whole) + int(f"{rest:02}"[:places] or 0) / 10**places) for whole, rest in numbers
    ]
    try:
        found = total(stream.getvalue(), encoding)
    except ToolError as error:
        assert "may stand before decimals" in str(error) and delimiter == ";"
        return
    assert found == pytest.approx(math.fsum(meant), abs=1e-6)


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text("ab1,;.\t|\"'\n\r ", max_size=60).map(str.encode))
def test_no_bytes_raise_anything_but_a_tool_failure(data: bytes) -> None:
    with contextlib.suppress(ToolFailure):
        query(written(data), "SELECT * FROM x")
    with contextlib.suppress(ToolFailure):
        inspect(written(data))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ("name;price\na;1,50\nb;2,25\n", 3.75), ("name;price\na;1.234,50\nb;2,25\n", 1236.75),
        ('name,price\na,"1,200"\nb,3\n', 1203),
        ("name;price;w\na;1,200;1,5\nb;3,400;2\n", 4.6), ("name;price, EUR;price\na;2;1,50\n", 1.5),
        ("a|price\nx|3\n", 3),
        ("a\tprice\nx\t1,200\n", 1200), ("price\n1.5\n2\n", 3.5), ("sep=;\na;price\nx;1,5\n", 1.5),
        ("a,price\nx,1 200\ny,3\n", 1203),
        ("a;price\nx;1'200.50\ny;3\n", 1203.5), ("a,price\nx,-3\ny,−4\n", -7), ('a,price\nx,"1.234.567"\n', 1_234_567),
        ("a,price\r1,2\r3,4\r", 6), ('a,price\n"x\ny",2\n', 2), ("a, price\nx, 2\n", 2),
        ('a,price\nx, "1,200"\n', 1200),
        ("a,price,,\nx,2,,\n", 2), ("a,price\n\nx,2\n\n", 2), ("a;price\nx;1.5\ny;2\n", 3.5), ("a,price\nx,\ny,2\n", 2),
    ],
)  # fmt: skip
def test_the_right_sum(data: str, expected: float) -> None:
    assert total(data) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("name,price\na,1,200\nb,3\n", "row 2 has 3 cells and the header, row 1, has 2"),
        ("price\n1,50\n2,25\n", "row 2 has 2 cells and the header, row 1, has 1"),
        ("Report 2024\n\nname;price\na;1,50\n", "row 3 has 2 cells"),
        ("name;price\na;1,200\nb;3,400\n", 'column price holds "1,200", whose comma or point may stand'),
        ("a,price\nx,NA\ny,3\n", r'sum\(\) of the text "NA", which is no number'),
        ("a,price\nx,$5\n", r'sum\(\) of the text "\$5"'), ("a,price\nx,12%\n", r'sum\(\) of the text "12%"'),
        ("a,price\nx,2024-01-05\n", "of the text"), ("price;n\n1.5;2\n1,50;3\n", 'of the text "1,50"'),
        ("a,price\nx,12345678901234567890\n", 'of the text "12345678901234567890"'), ("a,price\nx,1e400\n",
        "of the text"),
        ('a,price\n"x,2\ny,3\n', "is no table: unexpected end of data"), ("a\0,price\nx,2\n", '"x.csv" is no text'),
        ("город,price\nМосква,5\n".encode("cp1251"), "encoding that is not known"),
        (b"a,price\nx\x81,5\n", "encoding that is not known"),
    ],
)  # fmt: skip
def test_what_is_refused_with_its_reason(data: str | bytes, words: str) -> None:
    with pytest.raises(ToolError, match=words):
        total(data)


def test_unclear_columns_alone_are_refused() -> None:
    assert query(written("name;price\na;1,200\nb;3,400\n"), "SELECT name FROM x") == "name\na\nb"
    assert "1,200" in inspect("x.csv")


def test_averages_and_windows_count_numbers_alone() -> None:
    written("a,price\nx,1\ny,\nz,2\n")
    sql = "SELECT avg(price), total(price), sum(price) OVER (ORDER BY a ROWS 1 PRECEDING) FROM x GROUP BY a"
    assert query("x.csv", sql).split("\n")[1:] == ["1.0 | 1.0 | 1", " | 0.0 | 1", "2.0 | 2.0 | 2"]
    assert query("x.csv", "SELECT avg(price) FROM x").endswith("\n1.5")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_encodings_are_told_by_the_bytes(encoding: str) -> None:
    written("Größe;price\nÄpfel;1,50\n", encoding)
    assert query("x.csv", "SELECT * FROM x") == "Größe | price\nÄpfel | 1.5"
    assert inspect("x.csv") == "| Größe | price |\n| --- | --- |\n| Äpfel | 1,50 |"


def test_codes_keep_their_digits_and_are_found_either_way() -> None:
    written("zip,id,price\n01234,12345678901234567890,1\n98765,3,2\n")
    assert query("x.csv", "SELECT zip, id FROM x").split("\n")[1:] == ["01234 | 12345678901234567890", "98765 | 3"]
    assert query("x.csv", "SELECT price FROM x WHERE zip = 98765 OR zip = '01234'").split("\n")[1:] == ["1", "2"]
    assert inspect("x.csv", column=1, row=1) == "id (B2): 12345678901234567890"


def test_names_that_sql_keeps_are_shown_in_quotes() -> None:
    written("order,Group,price,a,A,,rowid\n1,2,3,4,5,6,7\n")
    with pytest.raises(ToolError) as failure:
        query("x.csv", "SELECT order FROM x")
    assert 'Tables: x("order", "Group", price, a, A_2, column_6, rowid) with 1 rows.' in str(failure.value)
    assert query("x.csv", 'SELECT "order", "Group", A_2, column_6, rowid FROM x').endswith("\n1 | 2 | 5 | 6 | 7")
    for stem in ("select", "sqlite_stat1", "2024"):
        Path(f"{stem}.csv").write_text("a\n1\n")
        (table,) = read_tables(Path(f"{stem}.csv"), f"{stem}.csv")
        assert query(f"{stem}.csv", f'SELECT a FROM "{table.name}"') == "a\n1"


def test_a_header_alone_and_nothing_at_all() -> None:
    with pytest.raises(EmptyResult, match=r"x\(a, b\) with 0 rows"):
        query(written("a,b\n"), "SELECT * FROM x")
    for data in ("\ufeff", "\n\n", ",,\n"):
        with pytest.raises(EmptyResult, match="it has no cells"):
            query(written(data), "SELECT * FROM x")


def test_many_rows_are_read() -> None:
    written("id,price\n" + "".join(f"{number},{number}.5\n" for number in range(60_000)))
    assert query("x.csv", "SELECT count(*), sum(price) FROM x").endswith("\n60000 | 1800000000.0")
