"""The numbers of many episodes: what was dropped stands beside what counts."""

from __future__ import annotations

import pytest

from regrpo_jax.environments.episode_result import EpisodeResult, Outcome
from regrpo_jax.environments.recovery import COLUMNS, metrics, print_summary, summary, table_rows
from tests.environments.conftest import make_task


def results(right: int, wrong: int, dropped: int) -> list[EpisodeResult]:
    told = [Outcome.ANSWERED] * (right + wrong) + [Outcome.INFRA_ERROR] * dropped
    return [
        EpisodeResult(make_task(id=str(number)), outcome, 42, number < right, ()) for number, outcome in enumerate(told)
    ]


def test_dropped_episodes_count_as_failures_at_worst() -> None:
    told = metrics(results(3, 1, 2))
    assert (told["tasks"], told["dropped"], told["success"]) == (4.0, 2.0, 0.75)
    assert told["success_at_worst"] == pytest.approx(3 / 6) and told["dropped_share"] == pytest.approx(2 / 6)
    nothing = metrics([])
    assert nothing["success_at_worst"] is nothing["dropped_share"] is None


def test_every_row_of_the_table_tells_them() -> None:
    for section in table_rows(summary(results(3, 1, 2))):
        for cells in section.values():
            assert list(cells) == [label for label, _ in COLUMNS.values()]
            assert (cells["at worst"], cells["dropped"]) == ("50.0%", "2")


@pytest.mark.parametrize(("dropped", "alarming"), [(0, False), (1, False), (2, True)])
def test_more_than_two_in_a_hundred_are_an_alarm(
    dropped: int, alarming: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summary("a run", summary(results(60, 30, dropped)))
    printed = capsys.readouterr().out
    assert ("ALARM" in printed) == alarming
    assert ("are not counted (infra_error)" in printed) == bool(dropped)
