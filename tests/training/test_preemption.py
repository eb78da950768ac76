"""SIGTERM while a stage trains, sent for real."""

import os
import signal
import sys
import time

import pytest

from regrpo_jax.errors import Preempted
from regrpo_jax.training.preemption import Preemption, insist


def told() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def test_what_is_not_held_is_broken_off() -> None:
    done = []
    with pytest.raises(Preempted), Preemption().listening():
        told()
        done.append("more")
    assert not done


def test_what_is_held_is_finished_first() -> None:
    done = []
    with pytest.raises(Preempted), Preemption().listening() as preemption:
        with preemption.held():
            told()
            done.append("this")
        done.append("more")
    assert done == ["this"]


def test_told_again_it_still_writes_down_what_was_learnt() -> None:
    done = []
    with pytest.raises(Preempted), Preemption().listening() as preemption:
        try:
            told()
        except Preempted:
            with preemption.held():
                told()
                done.append("written")
            raise
    assert done == ["written"]


class ToldWhileCollected:
    """As jax is called back by the garbage collector: Python drops what is raised there."""

    def __del__(self) -> None:
        told()
        time.sleep(0)  # Python looks for signals


def test_what_python_drops_is_raised_again(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", dropped.append)
    insist()
    done = []
    with pytest.raises(Preempted), Preemption().listening():
        ToldWhileCollected()
        done.append("went on")
        time.sleep(10)
        done.append("more")
    assert done == ["went on"] and not dropped


def test_the_handler_before_it_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Preemption().listening():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
