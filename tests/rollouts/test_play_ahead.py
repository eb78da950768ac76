"""Played ahead at a fixed lag: which policy plays which update, whatever the threads do, and what ends it."""

from __future__ import annotations

import threading
import time
from typing import Any

import jax.numpy as jnp
import pytest

from regrpo_jax.rollouts.play_ahead import PlayAhead, played_version

Tree = dict[str, Any]


def told(number: int, version: int, trainable: Tree) -> tuple[int, int, int]:
    return number, version, int(trainable["updates"])


def run(
    staleness: int, *, first: int = 1, last: int = 6, play: Any = told, slow: float = 0.0, at_once: int = 1
) -> list[tuple]:
    """A trainer whose policy is the number of its updates."""
    found = []
    with PlayAhead(play, staleness=staleness, first=first, last=last, at_once=at_once) as ahead:
        for number in range(first, last + 1):
            found.append(ahead(number, {"updates": jnp.asarray(number - 1)}))
            time.sleep(slow)
    return found


@pytest.mark.parametrize("staleness", [1, 2, 10])
@pytest.mark.parametrize("slow", [0.0, 0.02])
@pytest.mark.parametrize("at_once", [1, 3])
def test_every_update_is_played_by_the_promised_policy(staleness: int, slow: float, at_once: int) -> None:
    promised = [(n, max(0, n - 1 - staleness), max(0, n - 1 - staleness)) for n in range(1, 7)]
    assert run(staleness, slow=slow, at_once=at_once) == promised
    assert [played_version(n, staleness, 1) for n in range(1, 7)] == [version for _, version, _ in promised]


def test_after_a_restart_the_restored_policy_plays_first() -> None:
    assert [version for _, version, _ in run(2, first=4, last=9)] == [3, 3, 3, 4, 5, 6]


def test_the_next_updates_are_played_while_one_is_trained() -> None:
    begun, let_go = threading.Event(), threading.Event()

    def play(number: int, version: int, trainable: Tree) -> int:
        if number == 2:
            begun.set()
            assert let_go.wait(120)
        return number

    with PlayAhead(play, staleness=1, first=1, last=2) as ahead:
        assert ahead(1, {}) == 1
        assert begun.wait(120), "update 2 is played before the policy after update 1 is there"
        let_go.set()
        assert ahead(2, {}) == 2


def test_the_policy_is_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    array, let_go = jnp.arange(3), threading.Event()

    def play(number: int, version: int, trainable: Tree) -> list[int]:
        if number > 1:
            assert let_go.wait(120)
        return trainable["array"].tolist()

    with PlayAhead(play, staleness=1, first=1, last=2) as ahead:
        ahead(1, {"array": array})
        array.delete()  # as an update does that takes its memory
        let_go.set()
        assert ahead(2, {"array": jnp.zeros(3, int)}) == [0, 1, 2]


def test_an_update_begins_beside_one_whose_last_episodes_are_slow() -> None:
    second_is_over = threading.Event()

    def play(number: int, version: int, trainable: Tree) -> tuple[int, int]:
        if number == 1:
            assert second_is_over.wait(120), "update 2 waits for update 1, although its policy is there"
        if number == 2:
            second_is_over.set()
        return number, version

    assert run(1, last=3, play=play, at_once=2) == [(1, 0), (2, 0), (3, 1)]


def test_an_error_of_a_later_update_does_not_lose_an_earlier_one() -> None:
    failed = threading.Event()

    def play(number: int, version: int, trainable: Tree) -> int:
        if number == 2:
            failed.set()
            raise RuntimeError("the sandbox is gone")
        assert failed.wait(120)
        return number

    with PlayAhead(play, staleness=1, first=1, last=4, at_once=2) as ahead:
        assert ahead(1, {}) == 1
        with pytest.raises(RuntimeError, match="the sandbox is gone"):
            ahead(2, {})


def test_an_error_reaches_the_trainer_when_it_asks_for_that_update() -> None:
    def play(number: int, version: int, trainable: Tree) -> int:
        if number == 3:
            raise RuntimeError("the sandbox is gone")
        return number

    trained = []
    with (
        pytest.raises(RuntimeError, match="the sandbox is gone"),
        PlayAhead(play, staleness=3, first=1, last=6) as ahead,
    ):
        for number in range(1, 7):
            trained.append(ahead(number, {}))
    assert trained == [1, 2]
    assert not any(thread.is_alive() for thread in ahead._threads)


def test_leaving_waits_for_what_is_played_and_plays_nothing_more() -> None:
    played, begun = [], threading.Event()

    def play(number: int, version: int, trainable: Tree) -> int:
        if number == 2:
            begun.set()
            time.sleep(0.1)
        played.append(number)
        return number

    with pytest.raises(KeyboardInterrupt), PlayAhead(play, staleness=1, first=1, last=9) as ahead:
        ahead(1, {})
        assert begun.wait(120)
        raise KeyboardInterrupt
    assert played == [1, 2]
    assert not any(thread.is_alive() for thread in ahead._threads)
