"""`table_query`: SQL over a table file, in a SQLite database in memory that can only be read."""

from __future__ import annotations

import re
import sqlite3

from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.files import existing_file
from regrpo_jax.toolbox.signatures import CheckedTool
from regrpo_jax.toolbox.tables import Table, Value, read_tables

MOST_ROWS = 200  # of a result
MOST_STEPS = 20_000_000  # of SQLite's machine for one query
MOST_COLUMNS = 1000
_STEPS_BETWEEN_LOOKS = 100_000
_LONGEST_VALUE = 2**20  # bytes
# They would make two runs differ, or reach beyond the tables.
_FORBIDDEN_FUNCTIONS = frozenset({"random", "randomblob", "load_extension", "writefile", "readfile", "edit"})
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE})


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _only_read(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if (second or "").lower() in _FORBIDDEN_FUNCTIONS else sqlite3.SQLITE_OK
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _database(tables: list[Table]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    for table in tables:
        if len(table.columns) > MOST_COLUMNS:
            raise ToolError(f'"{table.name}" has {len(table.columns)} columns; at most {MOST_COLUMNS} can be queried.')
        connection.execute(f"CREATE TABLE {_quoted(table.name)} ({', '.join(map(_quoted, table.columns))})")
        places = ", ".join("?" * len(table.columns))
        connection.executemany(f"INSERT INTO {_quoted(table.name)} VALUES ({places})", table.rows)
    steps = 0

    def look() -> bool:
        nonlocal steps
        steps += _STEPS_BETWEEN_LOOKS
        return steps > MOST_STEPS

    connection.set_authorizer(_only_read)
    connection.set_progress_handler(look, _STEPS_BETWEEN_LOOKS)
    return connection


def schema_text(tables: list[Table]) -> str:
    """The tables with their columns, as SQL needs to name them."""
    shown = []
    for table in tables:
        columns = ", ".join(name if re.fullmatch(r"[^\W\d]\w*", name) else _quoted(name) for name in table.columns)
        shown.append(f"{table.name}({columns}) with {len(table.rows)} rows")
    return "Tables: " + "; ".join(shown) + "."


def _explained(error: sqlite3.Error, tables: list[Table]) -> str:
    words = str(error)
    if any(refusal in words for refusal in ("not authorized", "authorization denied", "prohibited")):
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
        connection = _database(tables)
        try:
            cursor = connection.execute(sql)
            if cursor.description is None:
                raise ToolError(f"SQL error: only SELECT is allowed. {schema_text(tables)}")
            rows = cursor.fetchmany(MOST_ROWS + 1)
        except (sqlite3.Error, sqlite3.Warning, ValueError) as error:
            raise ToolError(_explained(error, tables)) from error  # type: ignore[arg-type]
        finally:
            connection.close()
        if not rows:
            raise EmptyResult(f"No rows found. {schema_text(tables)}")
        lines = [" | ".join(column[0] for column in cursor.description)]
        lines += [" | ".join(map(_shown, row)) for row in rows[:MOST_ROWS]]
        if len(rows) > MOST_ROWS:
            lines.append(f"(more than {MOST_ROWS} rows; add LIMIT, WHERE or an aggregate)")
        return "\n".join(lines)
