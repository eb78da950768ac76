"""Whatever a kill leaves of the last line, the lines before it are kept and the next ones fit behind them."""

import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.engine.journal import Entry, Journal
from regrpo_jax.errors import UserError

entries = st.lists(
    st.builds(
        Entry,
        slot=st.integers(0, 10**6),
        first_attempt=st.integers(0, 40),
        attempt=st.integers(0, 40),
        record=st.none() | st.dictionaries(st.text(), st.text(), max_size=3),
        rejects=st.lists(st.dictionaries(st.text(max_size=5), st.text(), max_size=2), max_size=2).map(tuple),
    ),
    max_size=6,
    unique_by=lambda entry: (entry.slot, entry.first_attempt),
)


@settings(max_examples=60, deadline=None)
@given(first=entries, cut=st.integers(0, 400), later=st.text())
def test_a_cut_line_is_dropped_and_nothing_else(tmp_path_factory, first: list[Entry], cut: int, later: str) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.jsonl"
    journal = Journal(path)
    for entry in first:
        journal.add(entry)
    journal.close()
    data = path.read_bytes()
    kept = data[: max(0, len(data) - cut)]
    path.write_bytes(kept)
    whole = kept.count(b"\n")
    reopened = Journal(path)
    assert list(reopened.entries.values()) == first[:whole]
    added = Entry(-1, 0, 0, {"text": later}, ())
    reopened.add(added)
    reopened.close()
    again = Journal(path)
    assert list(again.entries.values()) == [*first[:whole], added]
    again.close()


def test_threads_do_not_write_into_each_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    record = {"text": "x" * 20_000}

    def write(start: int) -> None:
        for slot in range(start, start + 50):
            journal.add(Entry(slot, 0, 0, record, ()))

    threads = [threading.Thread(target=write, args=(50 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    journal.close()
    again = Journal(tmp_path / "journal.jsonl")
    assert sorted(slot for slot, _ in again.entries) == list(range(400))
    again.close()


@pytest.mark.parametrize("line", ["[]", "{}", "no json", '{"slot": "a"}'])
def test_a_whole_line_that_is_no_entry_is_told(tmp_path: Path, line: str) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=r"journal\.jsonl, line 1"):
        Journal(path)
