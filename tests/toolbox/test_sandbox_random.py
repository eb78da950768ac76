"""Random and mutated actions: the host lives, nothing hangs, nothing is left (more: experiments/sandbox_fuzz)."""

from __future__ import annotations

from experiments.sandbox_fuzz.fuzz import run_actions


def test_random_actions() -> None:
    report = run_actions(300, seed=20, workers=2)
    assert report.actions == 300
    assert report.problems == []
    assert sum(report.statuses.values()) == 300
    assert "infra_error" not in report.statuses
    assert len(report.statuses) >= 3  # they are not all the same kind of wrong
