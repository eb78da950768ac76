"""Shares over rollouts: what was dropped is told, and over two in a hundred are an alarm."""

from __future__ import annotations

import pytest

from regrpo_jax.evaluation.rollout_metrics import alarms, dropped_alarm, rollout_metrics
from tests.data.rollout_groups import make_group


@pytest.mark.parametrize("lost", [0, 3])
def test_dropped_and_lost_episodes_lower_success_at_worst_alone(lost: int) -> None:
    rollouts = make_group(2, branches=8, dropped=(1, 4)).rollouts
    told = rollout_metrics(rollouts, lost=lost)
    right = sum(rollout.success for rollout in rollouts if not rollout.dropped)
    assert (told["episodes"], told["dropped"]) == (6.0, 2.0 + lost)
    assert told["success"] == pytest.approx(right / 6)
    assert told["success_at_worst"] == pytest.approx(right / (8 + lost))
    assert told["dropped_share"] == pytest.approx((2 + lost) / (8 + lost))


def test_of_nothing_nothing_is_told() -> None:
    told = rollout_metrics([])
    assert told["success_at_worst"] is told["dropped_share"] is None and alarms(told) == []
    assert rollout_metrics([], lost=2)["success_at_worst"] == 0.0


@pytest.mark.parametrize(("dropped", "episodes", "alarming"), [(0, 0, 0), (2, 100, 0), (3, 100, 1), (1, 49, 1)])
def test_more_than_two_in_a_hundred_are_an_alarm(dropped: int, episodes: int, alarming: int) -> None:
    assert len(dropped_alarm(dropped, episodes)) == alarming
    values = {"episodes": float(episodes - dropped), "dropped": float(dropped), "truncated": None, "malformed": None}
    assert len(alarms(values)) == alarming
