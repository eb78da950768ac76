"""Branches that share what they did: tools of the host are asked once, and a repetition that differs drops nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.policy import Branch
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.pace import Pace
from regrpo_jax.records.types import Status
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.rollouts.shared_play import Action, SharedPlay
from regrpo_jax.sandbox.pool import SandboxPool
from tests.environments.conftest import SANDBOX, make_task, turn
from tests.environments.small_tools import LOADER
from tests.rollouts.scripted_policy import ScriptedPolicy
from tests.rollouts.templates import renderer


class Asked:
    """Answers with how often it was asked; the first time, if told so, only after the turn was given up."""

    def __init__(self) -> None:
        self.questions: list[str] = []

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        return f"{question} {len(self.questions)}"


class Held(Asked):
    """Keeps the question "slow" until it may be answered."""

    def __init__(self) -> None:
        super().__init__()
        self.free = threading.Event()

    def __call__(self, question: str) -> str:
        if question == "slow":
            assert self.free.wait(300)
        return question


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def environment(asked: Asked) -> Iterator[Environment]:
    settings = replace(SANDBOX, wall_seconds=3.0)
    with SandboxPool(settings, loader=LOADER, remote_tools={"ask": asked}) as pool, Environment(pool) as made:
        yield made


class Unhurried(Pace):
    """Gives nothing up early."""

    patience = 300.0  # type: ignore[assignment]


@pytest.fixture
def held() -> Iterator[tuple[Held, Environment]]:
    tool = Held()
    settings = replace(SANDBOX, wall_seconds=300.0)
    with SandboxPool(settings, loader=LOADER, remote_tools={"ask": tool}) as pool, Environment(pool) as made:
        made.pace = Unhurried()
        yield tool, made


def test_who_is_patient_for_a_moment_gets_what_is_over(held: tuple[Held, Environment]) -> None:
    tool, environment = held
    with SharedPlay(environment, [make_task(tools=())]) as play:
        slow = play.begin(Action(0, (), turn("print(ask('slow'))")))
        quick = play.begin(Action(0, (), turn("print(ask('quick'))")))
        assert play.begin(Action(0, (), turn("print(ask('slow'))"))) == slow, "it is under way"
        assert {node: found.text for node, found in play.wait([slow, quick], 0.0).items()} == {quick: "quick"}
        tool.free.set()
        assert {found.text for found in play.wait([slow, quick]).values()} == {"slow", "quick"}
        assert play.runs == 2


def test_a_slow_action_holds_back_its_own_episode_alone(held: tuple[Held, Environment], tmp_path: Path) -> None:
    tool, environment = held

    def script(branch: Branch, opening: str, number: int) -> str:
        if branch[1] == 1 and number == 3:
            tool.free.set()  # the other branch still waits for its first action
        asks = "slow" if (branch[1], number) == (0, 0) else f"{branch} {number}"
        return turn("final_answer(42)" if number == 3 else f"print(ask('{asks}'))").removeprefix(opening)

    rules = LoopSettings(turn_tokens=200, episode_tokens=5000, max_steps=8)
    settings = CollectSettings(rules, branches=2, tools={}, brief=False, image_folder=tmp_path, patience=0.0)
    task = make_task(tools=(), images=())
    with patch.object(CollectSettings, "system_text", lambda self, task: "Answer."):
        groups, counts = collect_groups(
            environment, ScriptedPolicy(renderer("chatml"), script), [task], settings, seed=1
        )
    first, second = groups[0].rollouts
    assert first.success and second.success and counts.dropped == 0
    assert [one.observation for one in first.turns] == ["slow", "(0, 0) 1", "(0, 0) 2", first.turns[3].observation]
    assert tool.questions == []


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
