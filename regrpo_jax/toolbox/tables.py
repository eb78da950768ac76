"""Tables out of csv, tsv and xlsx files: named columns over rows of plain values, and the same as text."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from regrpo_jax.toolbox.encodings import decoded
from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.text_tables import Value, rows_of, typed_columns
from regrpo_jax.toolbox.workbooks import Sheet, read_workbook

TABLE_SUFFIXES = (".csv", ".tsv", ".xlsx")
MOST_COLUMNS = 1000  # of a table; a sheet with more keeps those that hold something
MOST_EMPTY = 20  # rows that are shown one by one
_SPECIAL = re.compile(r"[|\r\n]")
_MOST_TOLD = 5  # addresses in a message


class Table(NamedTuple):
    """A named table: the header and the rows below it.

    codes: columns whose digits are names, such as 007. unclear: columns whose numbers have two readings, with such a
    cell. notes: what a reader has to be told.
    """

    name: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[Value, ...]]
    codes: frozenset[str] = frozenset()
    unclear: Mapping[str, str] = {}
    notes: tuple[str, ...] = ()


def read_sheets(path: Path, name: str) -> list[Sheet]:
    """All cells of a table file by sheet (a csv file has one, named after it). ToolError, EmptyResult."""
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ToolError(f'"{name}" is no table ({", ".join(TABLE_SUFFIXES)}); read it with inspect_file_as_text.')
    sheets = read_workbook(path, name) if suffix == ".xlsx" else [_text_sheet(path, name)[0]]
    filled = [sheet for sheet in sheets if any(map(_filled, sheet.texts))]
    if not filled:
        raise EmptyResult(f'Get empty content from file "{name}": it has no cells.')
    return filled


def _text_sheet(path: Path, name: str) -> tuple[Sheet, str]:
    rows, delimiter = rows_of(decoded(path.read_bytes(), name), name, path.suffix.lower() == ".tsv")
    return Sheet(Path(name).stem, rows, rows), delimiter


def _filled(row: Sequence[str]) -> bool:
    return bool(row) and not (joined := "".join(row)).isspace() and joined != ""


def _width(row: Sequence[str]) -> int:
    """The number of cells, without empty ones at the end."""
    return max((place + 1 for place, cell in enumerate(row) if cell.strip()), default=0)


def identifier(text: str) -> str:
    """A name of letters, digits and underscores that no digit begins, and that SQLite does not keep for itself."""
    name = re.sub(r"\W+", "_", text.strip()).strip("_") or "table"
    return f"t_{name}" if name[0].isdigit() or name.lower().startswith("sqlite_") else name


def _different(wanted: Sequence[str]) -> tuple[str, ...]:
    """The names, with a number behind those that were there before; SQL does not tell capitals."""
    names: list[str] = []
    taken: set[str] = set()
    for want in wanted:
        name, copy = want, 2
        while name.lower() in taken:
            name, copy = f"{want}_{copy}", copy + 1
        names.append(name)
        taken.add(name.lower())
    return tuple(names)


def _header(row: Sequence[str], width: int) -> tuple[str, ...]:
    cells = [row[place].strip() if place < len(row) else "" for place in range(width)]
    return _different([cell or f"column_{place + 1}" for place, cell in enumerate(cells)])


def read_tables(path: Path, name: str) -> list[Table]:
    """The tables of a file: the first row that is not empty is the header. ToolError, EmptyResult."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return [_text_table(path, name)]
    sheets = read_sheets(path, name)
    names = _different([identifier(sheet.name) for sheet in sheets])
    clash = len({identifier(sheet.name).lower() for sheet in sheets}) < len(sheets)
    told = "; ".join(f'sheet "{sheet.name}" is table {name}' for sheet, name in zip(sheets, names, strict=True))
    return [
        _table(sheet, table, (f"Names of sheets that are alike: {told}.",) if clash else ())
        for sheet, table in zip(sheets, names, strict=True)
    ]


def _text_table(path: Path, name: str) -> Table:
    sheet, delimiter = _text_sheet(path, name)
    lines = [(number, row) for number, row in enumerate(sheet.texts, 1) if _filled(row)]
    if not lines:
        raise EmptyResult(f'Get empty content from file "{name}": it has no cells.')
    (first, header), *rows = lines
    for number, row in rows:
        if len(row) > len(header) and _width(row) > len(header):
            raise ToolError(
                f'"{name}" is no table: row {number} has {_width(row)} cells and the header, row {first}, has '
                f"{len(header)}, cut at {delimiter!r}; a cell that holds {delimiter!r} needs quotes around it. "
                "Read it with inspect_file_as_text."
            )
    columns = typed_columns([row for _, row in rows], len(header), delimiter)
    while len(columns) > 1 and not header[len(columns) - 1].strip() and not any(columns[-1].values):
        columns.pop()
    names = _header(header, len(columns))
    paired = dict(zip(names, columns, strict=True))
    return Table(
        identifier(sheet.name),
        names,
        list(zip(*(column.values for column in columns), strict=True)),
        frozenset(name for name, column in paired.items() if column.code),
        {name: column.unclear for name, column in paired.items() if column.unclear},
    )


def _table(sheet: Sheet, table: str, notes: tuple[str, ...]) -> Table:
    filled = [place for place, row in enumerate(sheet.texts) if _filled(row)]
    width = max(_width(sheet.texts[place]) for place in filled)
    kept = list(range(width))
    if width > MOST_COLUMNS:
        kept = sorted({column for place in filled for column, cell in enumerate(sheet.texts[place]) if cell.strip()})
    first = sheet.texts[filled[0]]
    header = _header([first[column] if column < len(first) else "" for column in kept], len(kept))
    rows = [
        tuple(row[column] if column < len(row) else None for column in kept)
        for row in (sheet.cells[place] for place in filled[1:])
    ]
    return Table(table, header, rows, notes=(*notes, *uncomputed_note(sheet)))


def uncomputed_note(sheet: Sheet) -> tuple[str, ...]:
    """What is to be said of formulas that have no computed value in the file."""
    if not sheet.uncomputed:
        return ()
    more = f" and {len(sheet.uncomputed) - _MOST_TOLD} more" if len(sheet.uncomputed) > _MOST_TOLD else ""
    told = ", ".join(sheet.uncomputed[:_MOST_TOLD])
    return (f'Formulas without a computed value in sheet "{sheet.name}": {told}{more}; they are told as formulas.',)


def sheet_text(sheet: Sheet) -> str:
    """The sheet as a table of Markdown, each cell as it is shown; without many empty rows or columns in a row."""
    filled = [place for place, row in enumerate(sheet.texts) if _filled(row)]
    if not filled:
        return ""
    width = max(map(len, sheet.texts))
    kept: Sequence[int] = range(width)
    if width > MOST_COLUMNS:
        kept = sorted({column for place in filled for column, cell in enumerate(sheet.texts[place]) if cell.strip()})
    lines: list[str] = []
    for before, place in itertools.pairwise([filled[0] - 1, *filled]):
        empty = place - before - 1
        lines += [_line([], kept)] * empty if empty <= MOST_EMPTY else [f"({empty:,} empty rows)"]
        lines.append(_line(sheet.texts[place], kept))
    return "\n".join([lines[0], f"| {' | '.join(['---'] * len(kept))} |", *lines[1:]])


def _line(row: Sequence[str], kept: Sequence[int]) -> str:
    if len(row) == len(kept) and not _SPECIAL.search("".join(row)):  # almost all
        return f"| {' | '.join(row)} |"
    return f"| {' | '.join(_escaped(row[place]) if place < len(row) else '' for place in kept)} |"


def _escaped(cell: str) -> str:
    """Pipes would end a cell of Markdown, line breaks a row."""
    return re.sub(r"(\\*)\|", r"\1\1\\|", cell).replace("\r\n", " ").replace("\n", " ").replace("\r", " ")
