"""What is behind the tools: taken whole, read by name, replaced by the next."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.failures import Unavailable
from regrpo_jax.toolbox.search_tools import AskSearchAgent

FILES = st.dictionaries(st.text(min_size=1), st.binary(), max_size=5)
PAGES = b'{"title": "Ann (pilot)", "text": "Ann flies."}\n{"title": "Bob (cook)", "text": "Bob cooks."}\n'


@pytest.fixture(autouse=True)
def nothing_behind() -> Iterator[None]:
    yield
    behind.install({})


@settings(deadline=None)
@given(FILES, FILES, st.text())
def test_the_latest_contents_are_read_by_name(first: dict[str, bytes], second: dict[str, bytes], other: str) -> None:
    for files in (first, second):
        behind.install(files)
        assert behind.names() == sorted(files)
        assert {name: behind.read(name) for name in files} == files
    assert behind.read(other) == second.get(other)


def test_what_was_given_may_change_afterwards() -> None:
    files = {"a": b"1"}
    behind.install(files)
    files["a"] = b"2"
    assert behind.read("a") == b"1"


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize(
    "files",
    [{"library.jsonl": PAGES}, {"library.jsonl/one.md": b"# Ann (pilot)\nAnn flies.\n", "other.md": b"# Ann\nno"}],
)
def test_a_corpus_behind_the_tools_is_searched_and_changes_with_the_task(files: dict[str, bytes]) -> None:
    ask = AskSearchAgent("library.jsonl")
    behind.install(files)
    assert ask("Ann") == "Ann (pilot): Ann flies."
    behind.install({"library.jsonl": PAGES.replace(b"flies", b"sails")})
    assert ask("Ann") == "Ann (pilot): Ann sails."
    behind.install({})
    with pytest.raises(Unavailable, match="does not exist"):
        ask("Ann")
