"""SIGTERM while a stage trains, sent for real."""

import os
import signal

import pytest

from regrpo_jax.errors import Preempted
from regrpo_jax.training.preemption import Preemption


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
    with pytest.raises(Preempted), Preemption().listening():
        try:
            told()
        except Preempted:
            told()
            done.append("written")
            raise
    assert done == ["written"]


def test_the_handler_before_it_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Preemption().listening():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
