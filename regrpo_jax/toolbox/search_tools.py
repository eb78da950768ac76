"""`search` and `ask_search_agent` over a local corpus.

A corpus named by a relative path is the task's own: it lies behind the tools, where only they read it, or else in the
workspace. One named by an absolute path is read once and shared by all episodes.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.corpus import Hit, Index, pages_of, query_words, read_corpus
from regrpo_jax.toolbox.failures import EmptyResult, ToolError, Unavailable
from regrpo_jax.toolbox.files import quoted
from regrpo_jax.toolbox.signatures import CheckedTool

MOST_HITS = 20
_MOST_TITLES = 8
_MOST_ANSWER = 2_000  # characters of a page that answers
_CLEARLY_BETTER = 1.3  # times the score of the next page
QUERY = {"type": "string", "description": "what to search for"}


@functools.lru_cache(maxsize=4)
def _index(corpus: str, files: tuple[tuple[str, int, int], ...]) -> Index:
    return Index(read_corpus(Path(corpus)))


@functools.lru_cache(maxsize=4)
def _index_behind(corpus: str, files: tuple[tuple[str, bytes], ...]) -> Index:
    return Index(pages_of(corpus, dict(files)))


def _behind(corpus: str) -> tuple[tuple[str, bytes], ...]:
    """The files of a corpus that is behind the tools, with their contents; () when it is not there."""
    names = [name for name in behind.names() if name == corpus or name.startswith(f"{corpus}/")]
    return tuple((name, behind.read(name) or b"") for name in names)


def _stamps(path: Path) -> tuple[tuple[str, int, int], ...]:
    files = sorted(path.rglob("*")) if path.is_dir() else [path] if path.is_file() else []
    return tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file())


class _CorpusTool(CheckedTool):
    """A tool with a corpus; "" is none."""

    name = "corpus_tool"
    description = "Searches a corpus."
    inputs: dict[str, Any] = {"query": QUERY}
    output_type = "string"

    def __init__(self, corpus: str = "") -> None:
        super().__init__()
        self.corpus = corpus

    def forward(self, query: str) -> str:
        raise NotImplementedError

    def warm_up(self) -> None:
        if self.corpus and Path(self.corpus).is_absolute():
            self.index()

    @functools.cached_property
    def _shared(self) -> Index:
        return Index(read_corpus(Path(self.corpus)))

    def index(self) -> Index:
        """The corpus, ready to be searched. Unavailable when none is configured or it cannot be read."""
        if not self.corpus:
            raise Unavailable(
                f"{self.name} is unavailable: set `corpus` to a folder of texts, or `search_engine` to an endpoint, in "
                "the toolset's settings."
            )
        try:
            if Path(self.corpus).is_absolute():
                return self._shared
            if files := _behind(self.corpus):
                return _index_behind(self.corpus, files)
            # The workspace's folder is the same for all episodes: its name alone would not tell corpora apart.
            path = Path.cwd() / self.corpus
            return _index(str(path), _stamps(path))
        except UserError as error:
            raise Unavailable(f"{self.name} is unavailable: {error}.") from error


def _titles(hits: list[Hit]) -> str:
    return quoted([hit.page.title for hit in hits[:_MOST_TITLES]])


def _checked(query: str) -> str:
    if not query_words(query):
        raise ToolError("The query has no words.")
    return query


class SearchTool(_CorpusTool):
    name = "search"
    description = "Searches a corpus of texts and returns the best pages: number, title and a passage of each."
    inputs = {
        "query": QUERY,
        "k": {"type": "integer", "description": "how many pages", "nullable": True},
    }
    output_type = "string"

    def forward(self, query: str, k: int | None = 10) -> str:
        index = self.index()
        hits = index.search(_checked(query), max(1, min(MOST_HITS, k or 10)))
        if not hits:
            raise EmptyResult(f'No results found for "{query}" in {len(index.pages)} pages.')
        note = "" if hits[0].whole else f'No page has all words of "{query}"; pages with some of them:\n\n'
        return note + "\n\n".join(f"{place} - {hit.page.title}: {hit.snippet}" for place, hit in enumerate(hits, 1))


class AskSearchAgent(_CorpusTool):
    name = "ask_search_agent"
    description = (
        "Answers a query with the one page of a corpus that fits it best. A query that fits many pages equally well is "
        "ambiguous: the answer then lists them."
    )
    inputs = {"query": QUERY}
    output_type = "string"

    def forward(self, query: str) -> str:
        index = self.index()
        hits = index.search(_checked(query), MOST_HITS)
        if not hits or not hits[0].whole:
            close = f" Pages with some of its words: {_titles(hits)}." if hits else ""
            raise EmptyResult(f'No results found for "{query}".{close}')
        best = _best(query, hits)
        if best is None:
            count = index.count(query)
            raise EmptyResult(
                f'Ambiguous query: "{query}" fits {count} pages equally well: {_titles(hits)}. '
                "Add a word that tells them apart."
            )
        text = best.page.text
        cut = " ..." if len(text) > _MOST_ANSWER else ""
        return f"{best.page.title}: {text[:_MOST_ANSWER]}{cut}"


def _best(query: str, hits: list[Hit]) -> Hit | None:
    """The page that answers: the only one, the only one whose title has all the words, or one that fits far better."""
    wanted = set(query_words(query))
    titled = [hit for hit in hits if wanted <= set(query_words(hit.page.title))]
    exact = [hit for hit in titled if set(query_words(hit.page.title)) == wanted]
    for few in (exact, titled, hits):
        if len(few) == 1:
            return few[0]
    if titled:
        return None
    return hits[0] if hits[0].score > _CLEARLY_BETTER * hits[1].score else None
