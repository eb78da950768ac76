"""Random and mutated actions: the host lives, nothing hangs, nothing is left (more: experiments/sandbox_fuzz)."""

from __future__ import annotations

import pytest

from experiments.sandbox_fuzz.fuzz import run_actions


@pytest.mark.parametrize("native", [False, True], ids=["interpreted", "native"])
def test_random_actions(native: bool) -> None:
    report = run_actions(250, seed=20, native=native, workers=2)
    assert report.actions == 250
    assert report.problems == []
    assert sum(report.statuses.values()) == 250
    assert "infra_error" not in report.statuses
    assert len(report.statuses) >= 3  # they are not all the same kind of wrong
