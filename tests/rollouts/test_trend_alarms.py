"""The course of a stage: what is alarming is told, what chance explains is not."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from regrpo_jax.evaluation.trend_alarms import course, trend_alarms, window

UPDATES = 40
Change = Callable[[float], dict[str, float | None]]  # of how much of the stage has passed, 0 .. 1


def history(change: Change = lambda passed: {}, *, noise: float = 0.03) -> list[dict[str, float | None]]:
    """A stage that learns, with chance in it, and what `change` makes of it."""
    chance = random.Random(0)
    told = []
    for update in range(UPDATES):
        passed = update / (UPDATES - 1)
        values: dict[str, float | None] = {
            "episodes": 128.0,
            "dropped": 0.0,
            "success": 0.6 + 0.2 * passed,
            "first_attempt_success": 0.4,
            "failed": 0.5,
            "recovery": 0.5 + 0.3 * passed,
            "reflections": 0.5,
            "needless": 0.01,
            "reflection_tokens": 12.0,
            "malformed": 0.0,
            "truncated": 0.0,
            "useful_groups": 0.5,
        }
        for name in ("success", "first_attempt_success", "recovery"):
            values[name] = (values[name] or 0.0) + chance.gauss(0, noise)
        told.append(values | change(passed))
    return told


def test_a_stage_that_learns_is_quiet() -> None:
    assert trend_alarms(history()) == []
    assert trend_alarms([]) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {"first_attempt_success": 0.4 - 0.25 * t}, "fail on purpose"),
        (lambda t: {"success": 0.7 - 0.4 * t}, "the policy gets worse"),
        (lambda t: {"needless": 0.12 * t}, "of the actions that went well are followed by a reflection"),
        (lambda t: {"reflections": 0.5 if t < 0.5 else 0.0}, "reflections collapse from 1.00 to 0.00"),
        (lambda t: {"reflection_tokens": 12 - 11 * t}, "reflections shrink from"),
        (lambda t: {"reflection_tokens": 12 + 40 * t}, "reflections grow from"),
        (lambda t: {"truncated": t}, "at the end, 88% of the episodes ran out of tokens"),
        (lambda t: {"malformed": t}, "at the end, 88% of the reflections are malformed"),
        (lambda t: {"dropped": 64.0 * t}, "at the end, 566 of 1846 episodes were dropped as trouble"),
        (lambda t: {"useful_groups": 0.0 if t > 0.8 else 0.5}, "in 8 of 40 updates no group had anything to prefer"),
        (lambda t: {"dropped": 64.0 if t == 0 else 0.0}, "earlier, in 1 update, first in update 1 of the stage: 64 of"),
    ],
)
def test_each_trouble_is_told_once(change: Change, words: str) -> None:
    found = trend_alarms(history(change))
    assert sum(words in alarm for alarm in found) == 1, found
    assert all(words in alarm or alarm.startswith("earlier") for alarm in found), found


def test_failing_more_while_recovering_less_is_not_on_purpose() -> None:
    found = trend_alarms(history(lambda t: {"first_attempt_success": 0.4 - 0.3 * t, "recovery": 0.6 - 0.3 * t}))
    assert not any("on purpose" in alarm for alarm in found)


def test_chance_is_no_alarm() -> None:
    """A fall of 6 points is within the spread of single updates here, and beyond it there."""
    change: Change = lambda t: {"first_attempt_success": 0.4 - 0.08 * t}  # noqa: E731
    wild = history(change, noise=0.0)
    chance = random.Random(1)
    for values in wild:
        values["first_attempt_success"] = (values["first_attempt_success"] or 0.0) + chance.gauss(0, 0.2)
    assert not any("on purpose" in alarm for alarm in trend_alarms(wild))
    assert any("on purpose" in alarm for alarm in trend_alarms(history(change, noise=0.0)))


def test_a_bare_retry_never_reflected_so_nothing_collapses() -> None:
    bare = {"reflections": 0.0, "reflection_tokens": None, "needless": 0.0}
    assert trend_alarms(history(lambda t: dict(bare))) == []


def test_no_failures_left_to_reflect_on_is_no_collapse() -> None:
    assert trend_alarms(history(lambda t: {"failed": 0.5 * (1 - t), "reflections": 0.5 * (1 - t)})) == []


def test_few_updates_have_levels_but_no_course() -> None:
    short = history(lambda t: {"success": 0.9 - t, "needless": 0.2})[:3]
    assert len(found := trend_alarms(short)) == 1 and "20%" in found[0]
    assert course([1.0, None, 0.0, 0.5]) is None
    assert [window(updates) for updates in (1, 3, 4, 8, 20, 40, 400)] == [1, 3, 2, 2, 5, 10, 10]


def test_lines_may_lack_what_had_no_value() -> None:
    assert trend_alarms([{"episodes": 4.0, "dropped": 0.0}] * 10) == []
