"""Many episodes at once: none holds or loses the others, whatever it does."""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest

from regrpo_jax.agent.loop import Played
from regrpo_jax.environments import batch
from regrpo_jax.environments.batch import _in_threads, run_episodes, step_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits, Outcome
from regrpo_jax.environments.faults import Fault, FaultKind
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status, Step
from regrpo_jax.rollouts.shared_play import ResumedEpisode
from regrpo_jax.sandbox.results import Tape
from tests.environments.conftest import SANDBOX, make_task, turn
from tests.environments.small_tools import LOADER
from tests.toolbox.sandbox_checks import workers_of

# What each kind of episode does, and how it ends.
SCRIPTS: dict[str, tuple[tuple[str, ...], Outcome]] = {
    "right": (('x = read_text("a.txt")', "final_answer(int(x.split()[1]))"), Outcome.ANSWERED),
    "wrong": (("final_answer(17)",), Outcome.ANSWERED),
    "crash": (("crash()", "final_answer(42)"), Outcome.ANSWERED),
    "stuck": (("stuck()", "final_answer(42)"), Outcome.ANSWERED),
    "endless": (("while True: pass", "final_answer(42)"), Outcome.ANSWERED),
    "random": (("import random\nprint(random.random())", 'paint("red")', "final_answer(42)"), Outcome.ANSWERED),
    "chatty": (("no", "no", "no", "no"), Outcome.OUT_OF_STEPS),
}


def agent(task: Task, steps: tuple[Step, ...]) -> str:
    code = SCRIPTS[task.family][0][len(steps)]
    return code if code == "no" else turn(code)


def tasks_of(*families: str, times: int = 1) -> list[Task]:
    return [
        make_task(id=f"{family} {number}", family=family, tools=(), seed=number)
        for number in range(times)
        for family in families
    ]


@pytest.fixture(scope="module")
def short(environment: Environment) -> Iterator[Environment]:
    yield Environment(environment.pool, EpisodeLimits(max_steps=4))


def test_stuck_and_crashing_episodes_mixed_in(short: Environment) -> None:
    tasks = tasks_of(*SCRIPTS, "right", "right")
    told: list[tuple[int, int]] = []
    results = run_episodes(short, tasks, agent, progress=lambda done, all_of: told.append((done, all_of)))
    assert [result.task for result in results] == tasks
    assert [result.outcome for result in results] == [SCRIPTS[task.family][1] for task in tasks]
    assert [result.success for result in results] == [task.family not in ("wrong", "chatty") for task in tasks]
    assert told == [(number, len(tasks)) for number in range(1, len(tasks) + 1)]
    statuses = {
        result.task.family: result.steps[0].observation.status for result in results if result.steps[0].observation
    }
    assert (statuses["crash"], statuses["stuck"]) == (Status.TOOL_ERROR, Status.TIMEOUT)


def test_one_worker_or_eight_byte_for_byte(short: Environment) -> None:
    faults = (Fault(FaultKind.TIMEOUT, "read_text", calls=(1,)), Fault(FaultKind.GARBLED_OUTPUT, "search"))
    tasks = [
        replace(task, faults=faults) for task in [*tasks_of("right", "random", "chatty", times=4), *tasks_of("crash")]
    ]
    with Environment.start(replace(SANDBOX, workers=8, spares=0), loader=LOADER, limits=short.limits) as eight:
        many = run_episodes(eight, tasks, agent)
        again = run_episodes(eight, tasks, agent)
    with Environment.start(replace(SANDBOX, workers=1), loader=LOADER, limits=short.limits) as one:
        assert run_episodes(one, tasks, agent) == many == again


def test_who_may_take_longer_is_not_late() -> None:
    """Each has its own time: a turn that repeats many actions has more."""
    release = threading.Event()

    def play(number: int) -> str:
        if number == 0:
            release.wait()
        else:
            time.sleep(0.4)
        return "played"

    try:
        found = _in_threads(play, lambda number: "late", lambda number: (0.2, 600.0, math.inf)[number], 3, 3, None)
    finally:
        release.set()
    assert found == ["late", "played", "played"]


def test_a_turn_has_time_for_the_actions_that_bring_its_episode_back(short: Environment) -> None:
    (task,) = tasks_of("right")
    with short.reset(task) as episode:
        for number in range(3):
            assert episode.actions_due == 1 + number
            seen = episode.step(turn(f"print({number})"))
        assert seen.text == "2"
    texts = [turn(f"print({number})") for number in range(3)]
    told = [(text, Played(Status.OK, str(number)), Tape()) for number, text in enumerate(texts)]
    with ResumedEpisode(short, task, told) as resumed:
        assert resumed.actions_due == 1 + len(told)
        assert resumed.step(turn("print(7)")).text == "7" and resumed.actions_due == 2 + len(told)


def test_an_agent_that_hangs_or_raises_loses_its_own_episode_alone(short: Environment) -> None:
    release = threading.Event()

    def odd(task: Task, steps: tuple[Step, ...]) -> str:
        if task.family == "wrong" and steps == ():
            release.wait()
        if task.family == "chatty" and len(steps) == 1:
            raise RuntimeError("no endpoint")
        return agent(task, steps)

    try:
        results = run_episodes(short, tasks_of("wrong", "wrong", "chatty", "right", "right"), odd, seconds=1.5)
    finally:
        release.set()
    assert [result.outcome for result in results] == [Outcome.INFRA_ERROR] * 3 + [Outcome.ANSWERED] * 2
    assert "1.5 seconds" in results[0].error and "no endpoint" in results[2].error
    assert all(result.success for result in results[3:]) and all(result.dropped for result in results[:3])


def test_killed_workers_lose_only_the_episodes_they_played() -> None:
    with Environment.start(SANDBOX, loader=LOADER) as environment:
        killed = threading.Event()

        def killer(task: Task, steps: tuple[Step, ...]) -> str:
            if task.family == "wrong" and len(steps) == 0 and not killed.is_set():
                return turn("x = 1")
            if task.family == "wrong" and not killed.is_set():
                killed.set()
                episode = next(one for one in environment._with_worker if one.task is task)
                assert episode._session is not None and episode._session._worker is not None
                assert episode._session._worker in workers_of(environment.pool)
                episode._session._worker.kill()
            return turn("final_answer(42)")

        results = run_episodes(environment, tasks_of("wrong", "right", "right", "right"), killer)
    assert [result.outcome for result in results] == [Outcome.INFRA_ERROR] + [Outcome.ANSWERED] * 3
    assert [result.success for result in results] == [False, True, True, True]


def test_a_task_that_cannot_be_played_is_told_and_the_others_go_on(short: Environment) -> None:
    bad = make_task(id="bad", family="right", faults=(Fault(FaultKind.TIMEOUT, "crash"),))
    good = tasks_of("right")[0]
    results = run_episodes(short, [bad, good], agent)
    assert results[0].dropped and "not among the episode's tools" in results[0].error and results[1].success
    with pytest.raises(UserError, match="cannot be played"):
        run_episodes(short, [bad], agent)


def test_turns_in_lockstep_with_more_episodes_than_workers(short: Environment) -> None:
    tasks = tasks_of("right", "random", "crash", "stuck", "chatty", times=2)
    episodes = [short.reset(task) for task in tasks]
    while alive := [episode for episode in episodes if not episode.done]:
        turns = [agent(episode.task, tuple(episode.steps)) for episode in alive]
        observations = step_episodes(short, alive, turns)
        assert observations == [episode.steps[-1].observation for episode in alive]
    lockstep = [episode.result for episode in episodes]
    assert lockstep == run_episodes(short, tasks, agent)


def test_lockstep_mistakes_are_told(short: Environment) -> None:
    episode = short.reset(make_task())
    with pytest.raises(UserError, match="1 episodes and 0 turns"):
        step_episodes(short, [episode], [])
    with pytest.raises(UserError, match="two turns at once"):
        step_episodes(short, [episode, episode], ["", ""])
    episode.step(turn("final_answer(1)"))
    with pytest.raises(UserError, match="is over"):
        step_episodes(short, [episode], [turn("1")])
    bad = short.reset(make_task(tools=("fly",)))
    assert step_episodes(short, [bad], [turn("1")])[0].status == Status.INFRA_ERROR
    assert bad.outcome == Outcome.INFRA_ERROR
    assert run_episodes(short, [], agent) == []


def test_a_failing_progress_leaves_nothing_running(short: Environment) -> None:
    def interrupted(done: int, all_of: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_episodes(short, tasks_of("right", times=6), agent, progress=interrupted)
    assert run_episodes(short, tasks_of("right"), agent)[0].success


class SlowQueue:
    """A thread that put a result is held up right after it, as a busy machine may do."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue = queue.SimpleQueue()

    def put(self, value: object) -> None:
        self._queue.put(value)
        if isinstance(value, tuple):
            time.sleep(0.1)

    def __getattr__(self, name: str) -> object:
        return getattr(self._queue, name)


def test_a_thread_that_is_held_up_after_its_result_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "queue", SimpleNamespace(SimpleQueue=SlowQueue, Empty=queue.Empty))
    found: list[list[int]] = []

    def play() -> None:
        found.append(_in_threads(lambda number: number, lambda number: -number, lambda number: 60.0, 6, 2, None))

    thread = threading.Thread(target=play, daemon=True)
    thread.start()
    thread.join(120)
    assert found == [[0, 1, 2, 3, 4, 5]]
