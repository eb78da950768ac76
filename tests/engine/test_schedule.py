"""Commits are in the order of the slots and free of duplicates, whatever the threads do and however often they stop."""

import random
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.engine import schedule
from regrpo_jax.engine.fill import Workshop
from regrpo_jax.engine.journal import Entry, Journal
from regrpo_jax.engine.schedule import Committed, fill_slots
from regrpo_jax.engine.slots import Slot, plan_slots
from regrpo_jax.records.audit import PAPER_SHARES as SHARES
from regrpo_jax.records.types import ErrorType

PAPER_SHARES = {ErrorType(name): share for name, share in SHARES.items()}
ATTEMPTS = 6


def shop() -> Workshop:
    """Only its number of attempts is looked at here: the filling itself is scripted."""
    parts: dict[str, Any] = dict.fromkeys(("source", "environment", "annotator", "annotate", "propose"))
    return Workshop(**parts, attempts=ATTEMPTS, synthetic=False, seed=0)


def scripted(kinds: int, seed: int, naps: bool) -> Any:
    """A filling that gives one of few contents, or nothing, as a function of slot and attempt alone."""

    def fill(_: Workshop, slot: Slot, first: int = 0) -> Entry:
        rejects = []
        for attempt in range(first, ATTEMPTS):
            rng = random.Random(f"{seed}/{slot.number}/{attempt}")
            if naps:
                time.sleep(random.random() * 0.002)
            if rng.random() < 0.5:
                rejects.append({"slot": slot.number, "attempt": attempt, "rules": ["scripted"]})
                continue
            content = f"task {rng.randrange(kinds)}"
            meta = {"failed_action": "a()", "failed_observation": "no", "corrected_action": "b()"}
            record = {"conversations": [{"role": "user", "content": content}], "rot_meta": meta}
            return Entry(slot.number, first, attempt, record, tuple(rejects))
        return Entry(slot.number, first, ATTEMPTS - 1, None, tuple(rejects))

    return fill


def committed_of(path: Path, slots: list[Slot], threads: int) -> Committed:
    journal = Journal(path)
    try:
        return fill_slots(shop(), slots, journal, threads, lambda _: None)
    finally:
        journal.close()


@settings(max_examples=25, deadline=None)
@given(kinds=st.integers(3, 60), seed=st.integers(0, 99), threads=st.integers(2, 7))
def test_any_number_of_threads_commits_the_same(tmp_path_factory, kinds: int, seed: int, threads: int) -> None:
    slots = plan_slots(30, 4, PAPER_SHARES, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "fill", scripted(kinds, seed, naps=False))
        alone = committed_of(tmp_path_factory.mktemp("one") / "journal", slots, 1)
        patch.setattr(schedule, "fill", scripted(kinds, seed, naps=True))
        many = committed_of(tmp_path_factory.mktemp("many") / "journal", slots, threads)
    assert alone == many
    contents = [(slot.error_type is None, str(entry.record)) for slot, entry in alone.filled]
    assert len(set(contents)) == len(contents)
    assert sorted([slot.number for slot, _ in alone.filled] + [slot.number for slot in alone.empty]) == list(range(34))


class Stopped(Exception):
    """What a test lets the run end with."""


def test_a_run_that_is_stopped_again_and_again_ends_with_the_same(tmp_path: Path, monkeypatch) -> None:
    slots = plan_slots(40, 0, PAPER_SHARES, 1)
    whole = scripted(12, 1, naps=True)
    monkeypatch.setattr(schedule, "fill", whole)
    expected = committed_of(tmp_path / "whole", slots, 3)
    rng, stops = random.Random(0), 0

    def failing(shop: Workshop, slot: Slot, first: int = 0) -> Entry:
        if rng.random() < 0.15:
            raise Stopped
        return whole(shop, slot, first)

    monkeypatch.setattr(schedule, "fill", failing)
    while True:
        try:
            found = committed_of(tmp_path / "stopped", slots, 3)
            break
        except Stopped:
            stops += 1
    assert stops
    assert found == expected
