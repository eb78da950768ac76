"""Quotas are exact, and no two attempts of any slots take the same situation."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.engine.slots import plan_slots, quotas
from regrpo_jax.errors import UserError
from regrpo_jax.records.audit import PAPER_SHARES as SHARES
from regrpo_jax.records.types import ErrorType

PAPER_SHARES = {ErrorType(name): share for name, share in SHARES.items()}
shares_strategy = st.dictionaries(st.sampled_from(list(ErrorType)), st.floats(0, 1), min_size=1).filter(
    lambda shares: sum(shares.values()) > 0.01
)


@given(records=st.integers(0, 5000), shares=shares_strategy)
def test_quotas_add_up_and_are_less_than_one_off(records: int, shares: dict[ErrorType, float]) -> None:
    counts = quotas(records, shares)
    total = sum(shares.values())
    assert sum(counts.values()) == records
    assert all(abs(counts[kind] - records * share / total) < 1 for kind, share in shares.items())


def test_the_papers_shares_of_two_thousand_records() -> None:
    assert list(quotas(2000, PAPER_SHARES).values()) == [588, 492, 616, 304]


@given(records=st.integers(1, 300), clean=st.integers(0, 50), seed=st.integers(0, 5))
def test_no_two_attempts_take_the_same_situation(records: int, clean: int, seed: int) -> None:
    slots = plan_slots(records, clean, PAPER_SHARES, seed)
    taken = Counter((slot.error_type, slot.situation_number(attempt)) for slot in slots for attempt in range(4))
    assert [slot.number for slot in slots] == list(range(records + clean))
    assert max(taken.values()) == 1
    assert Counter(slot.error_type for slot in slots)[None] == clean


def test_another_seed_is_another_order_of_the_same_types() -> None:
    first, again, other = (plan_slots(200, 0, PAPER_SHARES, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert Counter(slot.error_type for slot in first) == Counter(slot.error_type for slot in other)


@pytest.mark.parametrize("shares", [{ErrorType.ARG_INVALID: 0.0}, {ErrorType.ARG_INVALID: -1, ErrorType.CODE_ERROR: 2}])
def test_shares_that_mean_nothing_are_refused(shares: dict[ErrorType, float]) -> None:
    with pytest.raises(UserError, match="shares"):
        quotas(10, shares)


def test_other_types_take_over_where_a_slots_own_is_used_up() -> None:
    slots = plan_slots(6, 0, {ErrorType.ARG_INVALID: 0.5, ErrorType.TOOL_MISMATCH: 0.5}, seed=0)
    others = (ErrorType.CODE_ERROR, ErrorType.NON_COMMIT)
    for slot in slots:
        own = [slot.tried(attempt, 3, others, 6) for attempt in range(3)]
        assert own == [(slot.error_type, slot.situation_number(attempt)) for attempt in range(3)]
        assert {slot.tried(attempt, 3, others, 6)[0] for attempt in (3, 4)} == set(others)
        assert slot.tried(7, 3, (), 6) == (slot.error_type, slot.situation_number(7))
    later = [slot.tried(attempt, 3, others, 6) for slot in slots for attempt in range(3, 9)]
    assert len(set(later)) == len(later)
