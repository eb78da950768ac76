"""A worker that is lost at any moment changes nothing that anybody sees: its episode is brought back elsewhere."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from regrpo_jax.environments.answers import AnswerChecker, CheckKind
from regrpo_jax.environments.batch import run_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import EpisodeLimits, EpisodeResult, Outcome
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status, Step
from regrpo_jax.sandbox.pool import SandboxPool
from regrpo_jax.sandbox.results import ActionResult, Tape, TooLarge
from regrpo_jax.workers import likeness
from regrpo_jax.workers.place import Order, _moved
from regrpo_jax.workers.pool import RemotePool
from tests.environments.conftest import SANDBOX, make_task, turn
from tests.environments.small_tools import LOADER
from tests.workers.lossy_cluster import LossyCluster
from tests.workers.own_checks import CHECK

CODES = (
    "x = read_text('a.txt')\nprint(x)\npaint('blue')",
    "y = ask('a')\nprint(x, y)\nopen('kept.txt', 'w').write(y)",
    "print(open('kept.txt').read(), x)\nfinal_answer(int(x.split()[1]))",
)
TASK = make_task(tools=(), checker=AnswerChecker(CheckKind.FUNCTION, CHECK))
SETTINGS = dataclasses.replace(SANDBOX, wall_seconds=5.0, workers=2, spares=0)


class Asked:
    """A tool of the host that answers with how often it was asked."""

    def __init__(self) -> None:
        self.questions: list[str] = []

    def __call__(self, question: str) -> str:
        self.questions.append(question)
        return f"{question} {len(self.questions)}"


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[LossyCluster]:
    """Sandboxes that all tests share."""
    made = LossyCluster()
    yield made
    made.end()


@pytest.fixture
def cluster(sandboxes: LossyCluster) -> Iterator[LossyCluster]:
    sandboxes.losses, sandboxes.always, sandboxes.asked = {}, False, 0
    yield sandboxes
    sandboxes.losses, sandboxes.always = {}, False


def pool_of(cluster: LossyCluster, asked: Asked, workers: int = 1) -> RemotePool:
    settings = dataclasses.replace(SETTINGS, workers=workers)
    return RemotePool(settings, None, cluster, loader=LOADER, remote_tools={"ask": asked})


def agent(task: Task, steps: tuple[Step, ...]) -> str:
    return turn(CODES[len(steps)])


def played(pool: RemotePool | SandboxPool, tasks: tuple[Task, ...] = (TASK,)) -> list[EpisodeResult]:
    return run_episodes(Environment(pool), tasks, agent)


@pytest.fixture(scope="module")
def at_home() -> list[EpisodeResult]:
    with SandboxPool(SETTINGS, loader=LOADER, remote_tools={"ask": Asked()}) as pool:
        results = played(pool)
    assert [result.outcome for result in results] == [Outcome.ANSWERED] and results[0].success
    return results


def test_an_episode_elsewhere_is_one_at_home(cluster: LossyCluster, asked: Asked, at_home: list[EpisodeResult]) -> None:
    with pool_of(cluster, asked) as pool:
        assert played(pool) == at_home and pool.losses == 0
    assert asked.questions == ["a"]


def test_a_loss_at_any_question_is_seen_by_nobody(
    cluster: LossyCluster, asked: Asked, at_home: list[EpisodeResult]
) -> None:
    with pool_of(cluster, asked) as pool:
        played(pool)
        questions = cluster.asked
        assert questions >= 8, "opened, three actions, an answer of the host, pictures, the check, closed"
        for number in range(questions):
            for moment in ("before", "after"):
                cluster.losses, cluster.asked = {number: moment}, 0
                asked.questions.clear()
                assert played(pool) == at_home, (number, moment)
                assert asked.questions == ["a"], "what the host answered is on the tape of the run"
        assert pool.losses == 2 * questions


def test_several_losses_of_one_action(cluster: LossyCluster, asked: Asked, at_home: list[EpisodeResult]) -> None:
    with pool_of(cluster, asked) as pool:
        cluster.losses = dict.fromkeys(range(2, 30, 4), "after")
        assert played(pool) == at_home and pool.losses >= 5


def test_an_episode_that_loses_every_worker_is_an_infra_error(cluster: LossyCluster, asked: Asked) -> None:
    with pool_of(cluster, asked) as pool:
        cluster.always = True
        (result,) = played(pool)
        assert (result.outcome, result.dropped) == (Outcome.INFRA_ERROR, True) and "is gone" in result.error


def test_episodes_that_are_parked_when_there_are_fewer_places(
    cluster: LossyCluster, asked: Asked, at_home: list[EpisodeResult], caplog: pytest.LogCaptureFixture
) -> None:
    """One of two workers goes and none comes: idle episodes make room, and what they saw does not change."""
    with pool_of(cluster, asked, workers=2) as pool, caplog.at_level(logging.WARNING):
        environment = Environment(pool)
        episodes = [environment.reset(dataclasses.replace(TASK, id=str(number))) for number in range(3)]
        for number, code in enumerate(CODES):
            if number == 1:
                cluster.room_for_more.clear()
                cluster.losses = {cluster.asked: "before"}
            for episode in episodes:
                episode.step(turn(code))
            assert pool.places == (2 if number == 0 else 1)
        for number, episode in enumerate(episodes):
            seen = [step.observation.text for step in episode.steps if step.observation]
            right = [step.observation.text for step in at_home[0].steps if step.observation]
            assert seen == [text.replace("a 1", f"a {number + 1}") for text in right]
            assert episode.success and not episode.differed
        cluster.room_for_more.set()
        while pool.places < 2:
            time.sleep(0.01)
    assert "the worker on" in caplog.text and "is played elsewhere" in caplog.text


def test_who_needs_a_worker_waits_while_there_is_none(
    cluster: LossyCluster, asked: Asked, at_home: list[EpisodeResult]
) -> None:
    with pool_of(cluster, asked) as pool:
        cluster.losses = {3: "after"}
        cluster.room_for_more.clear()
        later = threading.Timer(1.0, cluster.room_for_more.set)
        later.start()
        assert played(pool) == at_home and pool.losses == 1
        later.join()


def test_a_cluster_without_room_is_told(cluster: LossyCluster, asked: Asked) -> None:
    cluster.room_for_more.clear()
    try:
        with pytest.raises(UserError, match=r"0 of 2 workers were there after 0\.3 seconds: each takes 1 CPU"):
            RemotePool(SETTINGS, None, cluster, loader=LOADER, start_seconds=0.3)
    finally:
        cluster.room_for_more.set()


def test_other_versions_there_are_refused(cluster: LossyCluster, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    cluster.looks.clear()
    versions = iter(["1.0", "2.0"])
    whose = threading.local()

    def version(name: str) -> str:
        if name != "sympy":
            return "1"
        whose.version = getattr(whose, "version", None) or next(versions)
        return whose.version

    monkeypatch.setattr(likeness, "_version", version)
    with pytest.raises(UserError, match=r"the worker on .*: sympy 2\.0 \(here 1\.0\): the same actions would come"):
        pool_of(cluster, asked)
    cluster.looks.clear()


def test_what_tools_read_there_is_compared(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("one\n")
    here = likeness.likeness((LOADER,), ".", (str(corpus),))
    assert here.difference(likeness.likeness((LOADER,), ".", (str(corpus),))) == ""
    corpus.write_text("another\n")
    assert str(corpus) in here.difference(likeness.likeness((LOADER,), ".", (str(corpus),)))
    corpus.unlink()
    with pytest.raises(UserError, match="does not exist"):
        likeness.likeness((LOADER,), ".", (str(corpus),))


def test_a_folder_that_is_not_there_is_told(cluster: LossyCluster, asked: Asked) -> None:
    with pytest.raises(UserError, match=r'the folder "/nowhere/at/all" cannot be entered .*config\.workers\.folder'):
        RemotePool(SETTINGS, None, cluster, loader=LOADER, folder="/nowhere/at/all")


def test_paths_below_the_run_are_moved_and_no_others() -> None:
    order = Order(SETTINGS, LOADER, b"", "/home/me/run", "/data/run")
    assert _moved("/home/me/run", order) == "/data/run"
    assert _moved("/home/me/run/suite/tasks.py", order) == "/data/run/suite/tasks.py"
    assert _moved("/home/me/running/x", order) == "/home/me/running/x"
    assert _moved("/corpora/all.jsonl", order) == "/corpora/all.jsonl"
    assert _moved("answers", order) == "answers"


def test_what_a_session_refuses_it_refuses_elsewhere_too(cluster: LossyCluster, asked: Asked) -> None:
    with (
        SandboxPool(SETTINGS, loader=LOADER, remote_tools={"ask": Asked()}) as home,
        pool_of(cluster, asked) as elsewhere,
    ):
        found = []
        for pool in (home, elsewhere):
            with pool.open({"a.txt": b"12345"}, seed=3) as session:
                results: list[ActionResult] = [
                    session.run("import random\nprint(random.random(), ask('a'))"),
                    session.run("ask('a', 'b', 'c')"),
                    session.run("ask('b')", Tape(complete=True)),
                    session.run("crash()"),
                    session.run("open('b.bin', 'wb').write(b'x' * 100)"),
                ]
                with pytest.raises(OSError):
                    session.read_file("nothing.txt")
                with pytest.raises(TooLarge):
                    session.read_file("b.bin", 10)
                found.append((results, session.read_file("b.bin"), session.files()))
            with pytest.raises(UserError, match="closed"):
                session.run("1")
            with pytest.raises(UserError, match="input file"):
                pool.open({"a.txt": Path("/nowhere")})
            with pytest.raises(UserError):
                pool.open({"../a.txt": b""})
        assert found[0] == found[1]
        assert [result.status for result in found[0][0]][-2:] == [Status.TOOL_ERROR, Status.OK]


def test_an_action_elsewhere_can_be_broken_off(cluster: LossyCluster, asked: Asked) -> None:
    with pool_of(cluster, asked) as pool, pool.open({}, seed=1) as session:
        threading.Timer(0.3, session.break_off).start()
        found = session.run("stuck()")
    assert (found.status, found.text) == (Status.INFRA_ERROR, "the action was broken off from outside")


def test_limits_of_pictures_hold_elsewhere(cluster: LossyCluster, asked: Asked) -> None:
    """Pictures that are fetched once more, after a loss, are not counted twice."""
    limits = EpisodeLimits(image_bytes=100, step_image_bytes=200, episode_image_bytes=250)
    made = turn("for n in range(2):\n    open(f'{n}.png', 'wb').write(b'x' * 100)")
    with pool_of(cluster, asked) as pool:
        seen = []
        for losses in ({}, {3: "before"}, {3: "after"}):
            cluster.losses, cluster.asked = losses, 0
            with Environment(pool, limits).reset(make_task(tools=())) as episode:
                seen.append((episode.step(made).images, dict(episode.images)))
        assert seen[0] == seen[1] == seen[2] and seen[0][0] == ("0.png", "1.png") and pool.losses == 2
