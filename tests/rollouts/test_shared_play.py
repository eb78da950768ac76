"""Branches that share what they did: tools of the host are asked once, and a repetition that differs drops nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from regrpo_jax.environments.environment import Environment
from regrpo_jax.records.types import Status
from regrpo_jax.rollouts.shared_play import Action, SharedPlay
from regrpo_jax.sandbox.pool import SandboxPool
from tests.environments.conftest import SANDBOX, make_task, turn
from tests.environments.small_tools import LOADER


class Asked:
    """Answers with how often it was asked; the first time, if told so, only after the turn was given up."""

    def __init__(self) -> None:
        self.questions: list[str] = []

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        return f"{question} {len(self.questions)}"


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def environment(asked: Asked) -> Iterator[Environment]:
    settings = replace(SANDBOX, wall_seconds=3.0)
    with SandboxPool(settings, loader=LOADER, remote_tools={"ask": asked}) as pool, Environment(pool) as made:
        yield made


def test_branches_share_the_tape_of_what_they_share(environment: Environment, asked: Asked) -> None:
    first, second = turn("x = ask('a')\nprint(x)"), turn("y = ask('b')\nprint(x, y)")
    with SharedPlay(environment, [make_task(tools=())]) as play:
        assert play.play([Action(0, (), first)] * 3)[0].text == "a 1"
        branches = [
            Action(0, (first,), second),
            Action(0, (first,), turn("print(x)")),
            Action(0, (first,), turn("x * 2")),
        ]
        assert [played.text for played in play.play(branches)] == ["a 1 b 2", "a 1", "a 1a 1"]
        last = [Action(0, (first, second), turn(code)) for code in ("print(y)", "print(y, x)", "1", "ask('c')")]
        assert [played.text for played in play.play(last)] == ["b 2", "b 2 a 1", "1", "c 3"]
    assert asked.questions == ["a", "b", "c"]


def test_an_action_that_is_tried_again_asks_on_where_it_was(environment: Environment, asked: Asked) -> None:
    code = "import os\nx = ask('a')\nif x.endswith('1'): stuck()\nprint(x)"
    with SharedPlay(environment, [make_task(tools=())]) as play:
        (played,) = play.play([Action(0, (), turn(code))])
    assert (played.status, played.outcome) == (Status.TIMEOUT, "") and asked.questions == ["a"]
    assert play.retried == 3, "a tool may hang by chance"


def test_what_does_not_repeat_is_no_reason_to_drop(environment: Environment) -> None:
    once = turn("import os\nx = os.getpid()\nprint(x, os.stat('/proc/self').st_ctime_ns)")
    answers = turn("import os\nif os.getpid() % 2: final_answer(0)\nprint('on')")
    with SharedPlay(environment, [make_task(tools=())]) as play:
        for begun in (once, answers):
            (first,) = play.play([Action(0, (), begun)])
            if not first.outcome:
                branches = [Action(0, (begun,), turn(f"print('b{number}')")) for number in range(4)]
                assert [(one.text, one.outcome) for one in play.play(branches)] == [(f"b{n}", "") for n in range(4)]
