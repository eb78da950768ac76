"""The small text tools of the compact profile: real files, real SQLite, few words.

Each reads what its task has put behind the tools (`toolbox.behind`) and says in one line what a repair needs. Names
are always quoted. Which tools only the held-out split has is said in `compact_toolset.py`.
"""

from __future__ import annotations

import configparser
import contextlib
import csv
import io
import json
import sqlite3
import xml.etree.ElementTree
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

from regrpo_jax.suites.toolrepair_tools.quoting import listed, q
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.failures import EmptyResult, ToolError
from regrpo_jax.toolbox.signatures import CheckedTool

PEOPLE_DATABASE = "people.db"
PLACES = "places.csv"  # which person is where
DESKS = "desks.csv"  # which tool reads which format


def text_input(description: str, nullable: bool = False) -> dict[str, Any]:
    return {"type": "string", "description": description} | ({"nullable": True} if nullable else {})


def pairs_of(name: str) -> list[list[str]]:
    """The rows of a small csv file behind the tools; none when there is no such file."""
    content = behind.read(name)
    return [] if content is None else list(csv.reader(io.StringIO(content.decode("utf-8"), newline="")))


def note_lines(content: bytes) -> dict[str, str]:
    """The lines "key value" of a note."""
    return dict(line.split(" ", 1) for line in content.decode("utf-8").splitlines() if " " in line)


def _notes() -> Iterator[tuple[str, dict[str, str]]]:
    for name in behind.names():
        if name.endswith(".txt"):
            yield name.removesuffix(".txt"), note_lines(behind.read(name) or b"")


def _where_notes_are() -> str:
    """Who or what each note is for, and, where people stand between, who is where."""
    notes = [f"{q(lines['by'])} at {q(stem)}" for stem, lines in _notes() if "by" in lines]
    people = [f"{q(place)} is {q(person)}" for place, person in pairs_of(PLACES)]
    return " ".join(listed(facts) for facts in (people, notes) if facts)


class Read(CheckedTool):
    name = "read"
    description = "The total of a note."
    inputs = {"name": text_input("name of the note")}
    output_type = "string"
    missing, blank = "NotFound", "Blank"

    def forward(self, name: str) -> str:
        lines = dict(_notes()).get(name)
        if lines is None:
            raise ToolError(f"{self.missing}. {_where_notes_are() or f'no {q(name)}.'}")
        if "total" not in lines:
            raise EmptyResult(f"{self.blank}. {_where_notes_are()}")
        return f"total {q(lines['total'])}"


class Unfold(Read):
    name = "unfold"


class _Texts(HTMLParser):
    """The pieces of text between the tags."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.pieces: list[str] = []
        self.feed(source)

    def handle_data(self, data: str) -> None:
        self.pieces += [data.strip()] if data.strip() else []


def total_of(text: str, ending: str) -> str:
    """The total in a file of that format; ValueError or LookupError when the text is not of it."""
    match ending:
        case "csv" | "tsv":
            header, row = csv.reader(text.splitlines(), delimiter="," if ending == "csv" else "\t")
            return dict(zip(header, row, strict=True))["total"]
        case "json":
            return str(json.loads(text)["total"])
        case "xml":
            return str(xml.etree.ElementTree.fromstring(text).attrib["total"])
        case "html":
            pieces = _Texts(text).pieces
            return pieces[pieces.index("total") + 1]
        case "ini":
            parser = configparser.ConfigParser()
            parser.read_string(text)
            return parser["sheet"]["total"]
        case "log":
            return next(line.split("total=")[1] for line in text.splitlines() if "total=" in line)
    raise LookupError(ending)


class Opener(CheckedTool):
    """Reads the total of a file, if its desk does that file's format."""

    description = "The total of a file of the format that this tool reads."
    inputs = {"name": text_input("name of the file, without its ending")}
    output_type = "string"

    def forward(self, name: str) -> str:
        found = [file for file in behind.names() if file.rpartition(".")[0] == name and file != DESKS]
        if not found:
            raise ToolError(f"NotFound. no {q(name)}.")
        ending, desks = found[0].rpartition(".")[2], pairs_of(DESKS)
        reads = [form for form, tool in desks if tool == self.name]
        if ending in reads:
            return f"total {q(total_of((behind.read(found[0]) or b'').decode('utf-8'), ending))}"
        which = ", ".join(f"{q(form)} in {q(tool)}" for form, tool in desks)
        raise ToolError(f"{self.refusal(reads)}. {q(name)} is {q(ending)}." + f" Use {which}." * bool(which))

    def refusal(self, reads: list[str]) -> str:
        return f"Format {q(reads[0])}" if reads else "Unavailable"


class HeldoutOpener(Opener):
    """The same with a refusal of its own: the tool is there and chokes on the format."""

    def refusal(self, reads: list[str]) -> str:
        return "Garbled"


OPENERS = ("load", "scan", "parse", "view", "fetch", "pick")
HELD_OUT_OPENERS = ("lens", "probe", "sieve", "reel")


def _rows(query: str, *arguments: str) -> list[tuple[str, ...]]:
    content = behind.read(PEOPLE_DATABASE)
    if content is None:
        raise EmptyResult("Empty. no rows.")
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        database.deserialize(content)
        return database.execute(query, arguments).fetchall()


class Search(CheckedTool):
    name = "search"
    description = "The pay of a person; a city, a year or a team as detail tells people of one name apart."
    inputs = {"name": text_input("the person"), "detail": text_input("city, year or team", nullable=True)}
    output_type = "string"

    def forward(self, name: str, detail: str | None = None) -> str:
        rows = _rows("SELECT city, year, team, pay FROM people WHERE name = ? ORDER BY place", name)
        found = [row for row in rows if detail is None or detail in row[:-1]]
        if not found:
            raise EmptyResult("Empty. no rows.")
        if len(found) == 1:
            return f"pay {q(found[0][-1])}"
        counts = [Counter(row[column] for row in found if row[column]) for column in range(len(found[0]) - 1)]
        raise ToolError(
            "Ambiguous. " + listed(f"{number} in {q(word)}" for one in counts for word, number in one.items())
        )


class Consult(CheckedTool):
    name = "consult"
    description = "The pay of a person in a year."
    inputs = {"name": text_input("the person"), "year": text_input("the year", nullable=True)}
    output_type = "string"

    def forward(self, name: str, year: str | None = None) -> str:
        rows = _rows("SELECT year, state, pay FROM terms WHERE name = ? ORDER BY place", name)
        if not rows:
            raise EmptyResult("Empty. no rows.")
        wanted = [row for row in rows if row[0] == (year or rows[0][0]) and row[1] == "valid"]
        if wanted:
            return f"pay {q(wanted[0][2])}"
        raise ToolError("Stale. " + listed(f"{q(row[0])} is {row[1]}" for row in rows))
