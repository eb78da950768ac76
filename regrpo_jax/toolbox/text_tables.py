"""Tables written as text: what separates their cells, and which of them are numbers, decided column by column.

Nothing is guessed at: what may be read in two ways is told to be so, and what is text stays as it is written.
"""

from __future__ import annotations

import collections
import csv
import io
import itertools
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.numerals import continental, english

Value = str | int | float | None
_DELIMITERS = "\t|;,"  # the last ones are the likeliest to be inside a cell
_LOOKED_AT = 50  # rows, to find what separates cells
_MOST_FIELD = 2**20  # characters of a cell
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]*)(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,9}")  # what most are
_BEGINS = frozenset("0123456789+-.")
_CODE = re.compile(r"[-+]?(?:0[0-9]+|[0-9]{19,})")  # 007 is not 7, and no float holds 20 digits
_NOTHING = frozenset(("-", "–", "—", ".", "?", "na", "n/a", "#n/a", "nan", "null", "none", "nil"))


class Column(NamedTuple):
    """The values of a column. code: its digits are names, not numbers. unclear: a cell that has two readings, or ""."""

    values: Sequence[Value]
    code: bool = False
    unclear: str = ""


def rows_of(text: str, name: str, tabs: bool) -> tuple[list[list[str]], str]:
    """The cells of all rows as they are written, and what separates them. ToolError for what is no table."""
    text = text.removeprefix("\ufeff")
    if told := re.match(r"sep=(.)\r?\n", text):
        return _read(text[told.end() :], told[1], name), told[1]
    delimiter = "\t" if tabs else _delimiter(text, name)
    return _read(text, delimiter, name), delimiter


def _read(text: str, delimiter: str, name: str, most: int | None = None) -> list[list[str]]:
    csv.field_size_limit(_MOST_FIELD)
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=most is None)
    try:
        return list(reader) if most is None else [row for _, row in zip(range(most), reader, strict=False)]
    except csv.Error as error:
        raise ToolError(f'"{name}" is no table: {error} (line {reader.line_num}).') from error


def _delimiter(text: str, name: str) -> str:
    """What cuts most of the first rows into the same number of cells, more than one; a comma where nothing does."""

    def fit(delimiter: str) -> tuple[float, int]:
        widths = [len(row) for row in _read(text, delimiter, name, _LOOKED_AT) if any(map(str.strip, row))]
        width, count = max(collections.Counter(widths).items(), key=lambda item: (item[1], item[0]), default=(1, 0))
        return (count / len(widths), width) if width > 1 else (0.0, 1)

    best = max(_DELIMITERS, key=fit)
    return best if fit(best)[1] > 1 else ","


def typed_columns(rows: Sequence[Sequence[str]], width: int, delimiter: str) -> list[Column]:
    """The columns of the rows below the header: numbers where all cells of a column are numbers of one writing.

    In a column that is also text, only numbers as Python writes them are numbers.
    """
    texts = [list(map(str.strip, cells)) for cells in itertools.zip_longest(*rows, fillvalue="")][:width]
    texts += [[""] * len(rows)] * (width - len(texts))
    columns = [_plain_column(cells) for cells in texts]
    written = [None if column is not None else _writings(cells) for cells, column in zip(texts, columns, strict=True)]
    seen = {next(iter(readings)) for readings in written if readings is not None and len(readings) == 1}
    return [
        column if column is not None else _chosen(cells, readings or {}, seen, delimiter)
        for cells, column, readings in zip(texts, columns, written, strict=True)
    ]


def _plain_column(cells: list[str]) -> Column | None:
    """A column of integers or codes; None for all others, which need a closer look."""
    if any(_CODE.fullmatch(cell) for cell in cells if cell[-1:].isdigit()):
        return Column([cell or None for cell in cells], code=True)
    if set("".join(cells)) <= set("0123456789+-") and all(_INTEGER.fullmatch(cell) for cell in cells if cell):
        return Column([int(cell) if cell else None for cell in cells])
    return None


def _writings(cells: list[str]) -> dict[str, list[Value]]:
    """The column's values by each way of writing numbers in which all of its cells are numbers (or say "none")."""
    found = {}
    for way, read in (("english", _english), ("continental", continental)):
        values: list[Value] = []
        for cell in cells:
            value = float(cell) if read is _english and _DECIMAL.fullmatch(cell) else _read_as(cell, read)
            if value is None:
                break
            values.append(None if value == "" else value)
        else:
            found[way] = values
    return found


def _english(digits: str) -> str | None:
    return digits if _NUMBER.fullmatch(digits) else english(digits)


def _read_as(cell: str, read: Callable[[str], str | None]) -> Value:
    """The number, the cell itself where it says that there is none, None where it is neither."""
    if not cell or cell.casefold() in _NOTHING:
        return cell
    sign, digits = ("-", cell[1:]) if cell[0] in "-−" else ("", cell.removeprefix("+"))
    plain = read(digits.strip())
    if plain is None:
        return None
    return int(sign + plain) if plain.isdigit() and len(plain) < 19 else _float(sign + plain)


def _float(text: str) -> float | None:
    """None for what is too large for a float."""
    value = float(text)
    return value if math.isfinite(value) else None


def _chosen(cells: list[str], readings: dict[str, list[Value]], seen: set[str], delimiter: str) -> Column:
    """The column in the way of writing that it shares with the rest of the file."""
    if not readings:
        return Column([_mixed(cell) for cell in cells])
    if len(readings) == 1 or readings["english"] == readings["continental"]:
        return Column(next(iter(readings.values())))
    if len(seen) == 1 and (delimiter != "," or seen == {"english"}):
        return Column(readings[next(iter(seen))])
    if not seen and delimiter != ";":
        return Column(readings["english"])
    pairs = zip(cells, readings["english"], readings["continental"], strict=True)
    return Column([cell or None for cell in cells], unclear=next(cell for cell, one, other in pairs if one != other))


def _mixed(cell: str) -> Value:
    if cell[:1] not in _BEGINS:
        return cell or None
    if _INTEGER.fullmatch(cell):
        return int(cell)
    value = _float(cell) if _NUMBER.fullmatch(cell) and "e" not in cell.casefold() else None
    return (cell or None) if value is None else value
