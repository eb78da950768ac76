"""Tables out of csv, tsv and xlsx files: rows of plain values, bounded, without guessing at dates."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from regrpo_jax.toolbox.failures import EmptyResult, ToolError

Value = str | int | float | None
TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")
MOST_CELLS = 2_000_000
MOST_UNPACKED = 128 * 2**20  # bytes that an office file may grow to
MOST_MEMBERS = 5_000  # files in an office file
_INTEGER = re.compile(r"[-+]?(?:0|[1-9]\d{0,17})\Z")
_NUMBER = re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d{1,3})?\Z")


class Table(NamedTuple):
    """A named table: the header and the rows below it."""

    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Value, ...]]


def check_archive(path: Path, name: str) -> None:
    """Refuse an office file (a zip) that is damaged, or grows beyond bounds when it is unpacked."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise ToolError(f'"{name}" is damaged: {error}.') from error
    unpacked = sum(member.file_size for member in members)
    if len(members) > MOST_MEMBERS or unpacked > MOST_UNPACKED:
        raise ToolError(
            f'"{name}" holds {len(members):,} parts of {unpacked:,} bytes; '
            f"at most {MOST_MEMBERS:,} and {MOST_UNPACKED:,} are unpacked."
        )


def decoded(data: bytes) -> str:
    """The text of a file: UTF-8, UTF-16 with a mark, else Windows' western code page."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", "replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _value(text: str) -> Value:
    stripped = text.strip()
    if not stripped:
        return None
    if _INTEGER.match(stripped):
        return int(stripped)
    if _NUMBER.match(stripped) and not re.match(r"[-+]?0\d", stripped):
        return float(stripped)
    return stripped


def _grid_of_text(path: Path, name: str) -> list[list[Value]]:
    text = decoded(path.read_bytes())
    if "\0" in text:
        raise ToolError(f'"{name}" is no text.')
    if path.suffix.lower() == ".tsv":
        delimiter = "\t"
    else:
        first = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=lambda mark: (first.count(mark), mark == ","))
    try:
        return [[_value(cell) for cell in row] for row in csv.reader(io.StringIO(text), delimiter=delimiter)]
    except csv.Error as error:
        raise ToolError(f'"{name}" is no table: {error}.') from error


def _grids_of_workbook(path: Path, name: str) -> dict[str, list[list[Value]]]:
    import openpyxl

    check_archive(path, name)
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        grids: dict[str, list[list[Value]]] = {}
        cells = 0
        for sheet in book.worksheets:
            grid: list[list[Value]] = []
            for row in sheet.iter_rows(values_only=True):
                cells += len(row)
                if cells > MOST_CELLS:
                    raise ToolError(f'"{name}" has more than {MOST_CELLS:,} cells.')
                grid.append([_plain(cell) for cell in row])
            grids[sheet.title] = grid
        return grids
    except ToolError:
        raise
    except Exception as error:  # openpyxl raises whatever its parsing stumbles over
        raise ToolError(f'"{name}" is damaged: {type(error).__name__}: {error}.') from error


def _plain(cell: object) -> Value:
    if cell is None or isinstance(cell, int | float | str):
        return int(cell) if isinstance(cell, bool) else cell
    return str(cell)


def read_grids(path: Path, name: str) -> dict[str, list[list[Value]]]:
    """All cells of a table file by sheet (a csv file has one, named after it). ToolError, EmptyResult."""
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ToolError(f'"{name}" is no table ({", ".join(TABLE_SUFFIXES)}); read it with inspect_file_as_text.')
    grids = _grids_of_workbook(path, name) if suffix == ".xlsx" else {Path(name).stem: _grid_of_text(path, name)}
    filled = {sheet: grid for sheet, grid in grids.items() if any(cell is not None for row in grid for cell in row)}
    if not filled:
        raise EmptyResult(f'Get empty content from file "{name}": it has no cells.')
    return filled


def identifier(text: str) -> str:
    """A name that SQL needs no quotes for."""
    name = re.sub(r"\W+", "_", text.strip()).strip("_") or "table"
    return f"t_{name}" if name[0].isdigit() else name


def _header(row: list[Value], width: int) -> tuple[str, ...]:
    names: list[str] = []
    for number in range(width):
        cell = row[number] if number < len(row) else None
        wanted = str(cell).strip() if cell is not None else f"column_{number + 1}"
        name, copy = wanted, 2
        while name.lower() in (known.lower() for known in names):
            name, copy = f"{wanted}_{copy}", copy + 1
        names.append(name)
    return tuple(names)


def read_tables(path: Path, name: str) -> list[Table]:
    """The tables of a file: the first row that is not empty is the header."""
    tables: list[Table] = []
    for sheet, grid in read_grids(path, name).items():
        rows = [row for row in grid if any(cell is not None for cell in row)]
        width = max(len(row) for row in rows)
        while width > 1 and all(len(row) < width or row[width - 1] is None for row in rows):
            width -= 1
        body = [tuple((row + [None] * width)[:width]) for row in rows[1:]]
        tables.append(Table(identifier(sheet), _header(rows[0], width), body))
    return tables
