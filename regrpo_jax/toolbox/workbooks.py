"""The cells of xlsx files: their values, and the texts that the cells show.

What a workbook says of itself is not relied on: sheets tell a wrong size, formulas have no computed value, a stray cell
stands in the last column.
"""

from __future__ import annotations

import datetime
import re
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from regrpo_jax.toolbox.cell_formats import iso, shown
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.text_tables import Value

MOST_CELLS = 250_000  # of a workbook, some seconds
MOST_ROWS = 1_048_576  # of a sheet, as in Excel
MOST_UNPACKED = 128 * 2**20  # bytes that an office file may grow to
MOST_MEMBERS = 5_000  # files in an office file
_EMPTY: list[Value] = []
_NOTHING: list[str] = []
_OLD_OFFICE = b"\xd0\xcf\x11\xe0"
_CELL = re.compile(rb"<(?:\w+:)?c[\s>/]")
_UNCOMPUTED = re.compile(
    rb"(?:</(?:\w+:)?f>|<(?:\w+:)?f\b[^>]*/>)\s*(?:<(?:\w+:)?v\s*/>|<(?:\w+:)?v>\s*</(?:\w+:)?v>)?\s*</(?:\w+:)?c>"
)


class Sheet(NamedTuple):
    """A sheet by rows of any length: the values of its cells, and what the cells show.

    uncomputed: addresses of formulas that have no value; their cells hold the formula.
    """

    name: str
    cells: Sequence[Sequence[Value]]
    texts: Sequence[Sequence[str]]
    uncomputed: tuple[str, ...] = ()


def check_archive(path: Path, name: str) -> None:
    """Refuse an office file (a zip) that is damaged or locked, or grows beyond bounds when it is unpacked."""
    with path.open("rb") as file:
        start = file.read(2**20)
    if start.startswith(_OLD_OFFICE):
        locked = "EncryptedPackage".encode("utf-16-le") in start or "EncryptionInfo".encode("utf-16-le") in start
        what = "is locked with a password" if locked else "is in the format of Office before 2007"
        raise ToolError(f'"{name}" {what}, and cannot be read; save it without one as {path.suffix}.')
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, EOFError) as error:
        raise ToolError(f'"{name}" is damaged: {error}.') from error
    if any(member.flag_bits & 1 for member in members):
        raise ToolError(f'"{name}" is locked with a password, and cannot be read.')
    unpacked = sum(member.file_size for member in members)
    if len(members) > MOST_MEMBERS or unpacked > MOST_UNPACKED:
        raise ToolError(
            f'"{name}" holds {len(members):,} parts of {unpacked:,} bytes; '
            f"at most {MOST_MEMBERS:,} and {MOST_UNPACKED:,} are unpacked."
        )


def read_workbook(path: Path, name: str) -> list[Sheet]:
    """All sheets. ToolError for a file that is damaged, locked or too large."""
    import openpyxl

    check_archive(path, name)
    try:
        missing = _look_through(path, name)
        formulas = openpyxl.load_workbook(path, read_only=True) if missing else None
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        return [_sheet(sheet, None if formulas is None else formulas[sheet.title], name) for sheet in book.worksheets]
    except ToolError:
        raise
    except Exception as error:  # openpyxl raises whatever its parsing stumbles over
        raise ToolError(f'"{name}" is damaged: {type(error).__name__}: {error}.') from error


def _look_through(path: Path, name: str) -> bool:
    """Whether some formula has no value. ToolError for more cells than can be read in the time of a call."""
    cells, missing = 0, False
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            if re.match(r"xl/worksheets/[^/]+\.xml\Z", member):
                content = archive.read(member)
                cells += len(_CELL.findall(content))
                missing = missing or _UNCOMPUTED.search(content) is not None
    if cells > MOST_CELLS:
        raise ToolError(
            f'"{name}" has {cells:,} cells; at most {MOST_CELLS:,} of a workbook are read. Take a csv file.'
        )
    return missing


def _rows(sheet: Any, name: str) -> Iterator[tuple[Any, ...]]:
    sheet.reset_dimensions()  # what a sheet tells of its size may be wrong
    for number, row in enumerate(sheet.iter_rows()):
        if number >= MOST_ROWS:
            raise ToolError(f'"{name}" has a cell below row {MOST_ROWS:,}, where no sheet has any.')
        yield row


def _sheet(sheet: Any, formulas: Any, name: str) -> Sheet:
    cells: list[list[Value]] = []
    texts: list[list[str]] = []
    for row in _rows(sheet, name):
        if not row:  # a million of them where a stray cell stands in the last row
            cells.append(_EMPTY)
            texts.append(_NOTHING)
            continue
        cells.append([_plain(cell.value) for cell in row])
        texts.append([shown(cell.value, cell.number_format) if cell.value is not None else "" for cell in row])
    uncomputed = []
    for number, row in enumerate(_rows(formulas, name) if formulas is not None else ()):
        for place, cell in enumerate(row):
            if cell.data_type == "f" and cells[number][place] is None:
                formula = cell.value if isinstance(cell.value, str) else getattr(cell.value, "text", "=")
                cells[number][place] = texts[number][place] = formula
                uncomputed.append(cell.coordinate)
    return Sheet(sheet.title, cells, texts, tuple(uncomputed))


def _plain(cell: object) -> Value:
    if isinstance(cell, bool):
        return int(cell)
    if cell is None or isinstance(cell, int | float | str):
        return cell
    return iso(cell) if isinstance(cell, datetime.date | datetime.time) else str(cell)
