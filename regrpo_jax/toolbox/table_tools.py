"""`table_query`: SQL over a table file, in a SQLite database in memory that can only be read."""

from __future__ import annotations

import contextlib
import re
import sqlite3

from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.files import existing_file
from regrpo_jax.toolbox.signatures import CheckedTool
from regrpo_jax.toolbox.sums import no_text_in_sums
from regrpo_jax.toolbox.tables import MOST_COLUMNS, Table, read_tables
from regrpo_jax.toolbox.text_tables import Value

MOST_ROWS = 200  # of a result
MOST_STEPS = 20_000_000  # of SQLite's machine for one query
_STEPS_BETWEEN_LOOKS = 100_000
_LONGEST_VALUE = 2**20  # bytes
# They would make two runs differ, or reach beyond the tables.
_FORBIDDEN_FUNCTIONS = frozenset({"random", "randomblob", "load_extension", "writefile", "readfile", "edit"})
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _needs_quotes(name: str) -> bool:
    """Whether SQL takes the bare name for something else: a keyword, a number, several words."""
    if not re.fullmatch(r"[^\W\d]\w*", name):
        return True
    try:
        with contextlib.closing(sqlite3.connect(":memory:")) as nothing:  # SQLite alone knows its keywords
            found = nothing.execute(f"SELECT {name} FROM (SELECT 'told' AS {_quoted(name)})").fetchone()
        return found != ("told",)
    except sqlite3.Error:
        return True


def _shown_name(name: str) -> str:
    return _quoted(name) if _needs_quotes(name) else name


def _database(tables: list[Table], reasons: list[str]) -> sqlite3.Connection:
    """The tables in memory. reasons: is given what else there is to say of a query that fails."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    for table in tables:
        if len(table.columns) > MOST_COLUMNS:
            raise ToolError(f'"{table.name}" has {len(table.columns)} columns; at most {MOST_COLUMNS} can be queried.')
        columns = (_quoted(name) + " TEXT" * (name in table.codes) for name in table.columns)
        connection.execute(f"CREATE TABLE {_quoted(table.name)} ({', '.join(columns)})")
        places = ", ".join("?" * len(table.columns))
        connection.executemany(f"INSERT INTO {_quoted(table.name)} VALUES ({places})", table.rows)
    steps = 0

    def look() -> bool:
        nonlocal steps
        steps += _STEPS_BETWEEN_LOOKS
        return steps > MOST_STEPS

    unclear = {(table.name, column): cell for table in tables for column, cell in table.unclear.items()}

    def only_read(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            return sqlite3.SQLITE_DENY if (second or "").lower() in _FORBIDDEN_FUNCTIONS else sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_READ and (cell := unclear.get((first or "", second or ""))):
            reasons.append(
                f'column {_shown_name(second or "")} holds "{cell}", whose comma or point may stand before decimals or '
                "between thousands; read it with inspect_file_as_text"
            )
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY

    no_text_in_sums(connection, reasons)
    connection.set_authorizer(only_read)
    connection.set_progress_handler(look, _STEPS_BETWEEN_LOOKS)
    return connection


def schema_text(tables: list[Table]) -> str:
    """The tables with their columns, as SQL needs to name them."""
    shown = []
    for table in tables:
        columns = ", ".join(map(_shown_name, table.columns))
        shown.append(f"{_shown_name(table.name)}({columns}) with {len(table.rows)} rows")
    return " ".join(["Tables: " + "; ".join(shown) + ".", *_notes(tables)])


def _notes(tables: list[Table]) -> list[str]:
    return list(dict.fromkeys(note for table in tables for note in table.notes))


def _explained(error: sqlite3.Error, tables: list[Table], reasons: list[str]) -> str:
    words = str(error)
    if reasons:
        words = reasons[0]
    elif any(refusal in words for refusal in ("not authorized", "authorization denied", "prohibited")):
        words = f"only SELECT is allowed ({words})"
    elif words == "interrupted":
        words = f"the query takes more than {MOST_STEPS:,} steps"
    return f"SQL error: {words}. {schema_text(tables)}"


def _shown(value: Value | bytes) -> str:
    return "" if value is None else str(value)


class TableQuery(CheckedTool):
    name = "table_query"
    description = (
        "Answers a SELECT over a csv, tsv or xlsx file (SQLite). The table is named after the file, or after each "
        "sheet; the first row names the columns. A wrong name is told together with all tables and columns."
    )
    inputs = {
        "file_path": {"type": "string", "description": "name of the file"},
        "sql": {"type": "string", "description": "one SELECT statement"},
    }
    output_type = "string"

    def forward(self, file_path: str, sql: str) -> str:
        tables = read_tables(existing_file(file_path), file_path)
        reasons: list[str] = []
        connection = _database(tables, reasons)
        try:
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise ToolError(f"SQL error: only SELECT is allowed. {schema_text(tables)}")
            rows = cursor.fetchmany(MOST_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise ToolError(_explained(error, tables, reasons)) from error  # type: ignore[arg-type]
        finally:
            connection.close()
        if not rows:
            raise EmptyResult(f"No rows found. {schema_text(tables)}")
        lines = [" | ".join(column[0] for column in cursor.description)]
        lines += [" | ".join(map(_shown, row)) for row in rows[:MOST_ROWS]]
        if len(rows) > MOST_ROWS:
            lines.append(f"(more than {MOST_ROWS} rows; add LIMIT, WHERE or an aggregate)")
        return "\n".join([*lines, *_notes(tables)])
