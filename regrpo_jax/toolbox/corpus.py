"""A folder of texts as a search engine: SQLite's FTS5, in memory, the same answers every time.

A corpus is a folder of .txt and .md files (first line: the title), .jsonl files with `title` and `text` on each
line, or one such file. A task's own corpus is such files as well, behind its tools (`behind.py`).
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from regrpo_jax.errors import UserError

MOST_BYTES = 256 * 2**20  # of a corpus
_SUFFIXES = (".txt", ".md", ".jsonl")
_COMMON = (
    "a an and are as at be by did do does for from had has have how in is it its me of on or tell that the their "
    "there this to was were what when where which who whom whose why will with according web about find much many"
)
_STOPWORDS = frozenset(_COMMON.split())


class Page(NamedTuple):
    """A document of the corpus."""

    title: str
    text: str
    source: str


class Hit(NamedTuple):
    """A page that fits a query; a larger `score` fits better. `whole`: it has all words of the query."""

    page: Page
    score: float
    snippet: str
    whole: bool


def _pages(content: bytes, name: str) -> Iterator[Page]:
    text = content.decode("utf-8", "replace").replace("\r\n", "\n")
    if name.endswith(".jsonl"):
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                try:
                    record = json.loads(line)
                    yield Page(str(record["title"]), str(record["text"]), f"{name}:{number}")
                except (ValueError, KeyError, TypeError) as error:
                    raise UserError(f'{name}, line {number}: not {{"title": ..., "text": ...}} ({error})') from error
    else:
        first, _, rest = text.strip().partition("\n")
        if first:
            yield Page(first.lstrip("# ").strip(), rest.strip() or first, name)


def read_corpus(path: Path) -> list[Page]:
    """All pages of a corpus. UserError when it is missing, empty, too large or not as described above."""
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    elif path.is_file():
        files = [path]
    else:
        raise UserError(f"search corpus {path} does not exist; it is a folder of .txt, .md or .jsonl files")
    size = sum(file.stat().st_size for file in files)
    if size > MOST_BYTES:
        raise UserError(f"search corpus {path} has {size:,} bytes; at most {MOST_BYTES:,} are held in memory")
    root = path if path.is_dir() else path.parent
    return pages_of(str(path), {file.relative_to(root).as_posix(): file.read_bytes() for file in files})


def pages_of(corpus: str, files: Mapping[str, bytes]) -> list[Page]:
    """All pages of the contents by file name, in their order. UserError when there are none, or they cannot be read."""
    pages = [page for name, content in files.items() for page in _pages(content, name)]
    if not pages:
        raise UserError(f"search corpus {corpus} has no pages; it is a folder of .txt, .md or .jsonl files")
    return pages


def query_words(query: str) -> list[str]:
    """The words of a query that are looked for; all of them if it has only common ones."""
    words = re.findall(r"\w+", query.lower())[:40]
    return [word for word in words if word not in _STOPWORDS] or words


class Index:
    """Pages that can be searched."""

    def __init__(self, pages: list[Page]) -> None:
        self.pages = pages
        self._connection = sqlite3.connect(":memory:", check_same_thread=False)
        self._connection.execute("CREATE VIRTUAL TABLE pages USING fts5(title, text, tokenize='porter unicode61')")
        self._connection.executemany("INSERT INTO pages VALUES (?, ?)", [(page.title, page.text) for page in pages])

    def _matching(self, words: list[str], joint: str, most: int) -> list[tuple[int, float, str]]:
        expression = joint.join(f'"{word}"' for word in words)
        return self._connection.execute(
            "SELECT rowid, -bm25(pages, 4.0, 1.0), snippet(pages, 1, '', '', ' ... ', 40) FROM pages "
            "WHERE pages MATCH ? ORDER BY 2 DESC, rowid LIMIT ?",
            (expression, most),
        ).fetchall()

    def search(self, query: str, most: int = 10) -> list[Hit]:
        """Pages with all words of the query, best first; those with some of them if there are none."""
        words = query_words(query)
        if not words:
            return []
        for joint, whole in ((" AND ", True), (" OR ", False)):
            rows = self._matching(words, joint, most)
            if rows:
                return [Hit(self.pages[row - 1], score, " ".join(text.split()), whole) for row, score, text in rows]
        return []

    def count(self, query: str) -> int:
        """How many pages have all words of the query."""
        words = query_words(query)
        if not words:
            return 0
        expression = " AND ".join(f'"{word}"' for word in words)
        return self._connection.execute("SELECT count(*) FROM pages WHERE pages MATCH ?", (expression,)).fetchone()[0]
