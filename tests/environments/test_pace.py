"""When a turn is late: a multiple of what turns take, never less than a moment, and generous while little is known."""

from __future__ import annotations

import pytest

from regrpo_jax.environments.pace import Pace


def noted(*seconds: float) -> Pace:
    pace = Pace()
    for one in seconds:
        pace.note(one)
    return pace


def test_little_is_known_at_first() -> None:
    assert noted().patience == noted(*[0.01] * 15).patience == 2.0


def test_it_is_a_multiple_of_what_nearly_all_turns_take() -> None:
    assert noted(*[0.01] * 100).patience == 0.15, "a busy machine holds any turn up for a moment"
    assert noted(*[0.1] * 90, *[1.5] * 10).patience == pytest.approx(6.0)
    assert noted(*[0.1] * 99, 50.0).patience == pytest.approx(0.4), "one that was stuck is no measure"


def test_what_is_long_ago_is_forgotten() -> None:
    assert noted(*[9.0] * 1000, *[0.1] * 256).patience == pytest.approx(0.4)
