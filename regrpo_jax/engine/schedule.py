"""All slots by several threads, committed in the order of the slots.

Duplicates are found when a slot is committed, against the slots before it; the slot then goes on with its next
attempt. Since both depend only on earlier slots, any number of threads commits the same records.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from regrpo_jax.engine.fill import Workshop, fill
from regrpo_jax.engine.journal import Entry, Journal
from regrpo_jax.engine.slots import Slot
from regrpo_jax.records import content_key

_LOOK_AHEAD = 16  # slots a thread


@dataclass
class Committed:
    """What the run has: (slot, entry) with a record, in order; slots that stayed empty; everything refused."""

    filled: list[tuple[Slot, Entry]] = field(default_factory=list)
    empty: list[Slot] = field(default_factory=list)
    rejects: list[dict[str, Any]] = field(default_factory=list)


def fill_slots(
    shop: Workshop, slots: Sequence[Slot], journal: Journal, threads: int, progress: Callable[[Committed], None]
) -> Committed:
    """Fill and commit every slot. Exceptions of `fill` end it; what was finished by then is in the journal."""
    committed, seen = Committed(), set[tuple[str, ...]]()
    futures: dict[tuple[int, int], Future[Entry]] = {}

    def work(slot: Slot, first: int) -> Entry:
        entry = fill(shop, slot, first)
        journal.add(entry)
        return entry

    executor = ThreadPoolExecutor(threads, thread_name_prefix="data-engine")

    def order(slot: Slot, first: int) -> None:
        if (slot.number, first) not in journal.entries and (slot.number, first) not in futures:
            futures[slot.number, first] = executor.submit(work, slot, first)

    def entry_of(slot: Slot, first: int) -> Entry:
        order(slot, first)
        future = futures.pop((slot.number, first), None)
        return journal.entries[slot.number, first] if future is None else future.result()

    try:
        for position, slot in enumerate(slots):
            for later in slots[position : position + _LOOK_AHEAD * threads]:
                order(later, 0)
            _commit(shop, slot, entry_of, seen, committed)
            progress(committed)
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
    return committed


def _commit(
    shop: Workshop,
    slot: Slot,
    entry_of: Callable[[Slot, int], Entry],
    seen: set[tuple[str, ...]],
    committed: Committed,
) -> None:
    first = 0
    while first < shop.most_attempts(slot):
        entry = entry_of(slot, first)
        committed.rejects += entry.rejects
        if entry.record is None:
            break
        key = (str(slot.error_type is None), *content_key(entry.record))
        if key not in seen:
            seen.add(key)
            committed.filled.append((slot, entry))
            return
        committed.rejects.append(_duplicate(slot, entry))
        first = entry.attempt + 1
    committed.empty.append(slot)


def _duplicate(slot: Slot, entry: Entry) -> dict[str, Any]:
    assert entry.record is not None
    return {
        "slot": slot.number,
        "attempt": entry.attempt,
        "error_type": None if slot.error_type is None else str(slot.error_type),
        "rules": ["duplicate"],
        "reasons": ["duplicate: an earlier record has the same task and actions"],
        "record": entry.record,
    }
