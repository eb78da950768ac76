"""Which workers are used again after an episode, which are replaced, and that the log says why."""

from __future__ import annotations

import dataclasses
import logging
import select
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox.first_process import _LOOK_SECONDS
from regrpo_jax.sandbox.pool import SandboxPool
from tests.toolbox.sandbox_checks import INPUTS, pool, workers_of

LOGGER = "regrpo_jax.sandbox.pool"
LEFT = {
    "import os\nos.setpriority(os.PRIO_PROCESS, 1, 19)": "the episode left something behind: scheduling",
    "import os\nos.makedirs('deep/' * 40)": "folders too deep to delete",
    "import os, socket\nos.closerange(3, 256)\nwhile True: pass": "closed the sandbox's own channel",
}
ENDED = {
    "while True: pass": "Timeout: killed after 3 seconds",
    "import os\nos.kill(os.getpid(), 9)": "died of SIGKILL",
    "import os\nos._exit(0)": "ended its own process",
}


@pytest.fixture(scope="module")
def shared() -> Iterator[SandboxPool]:
    with pool() as a_pool:
        yield a_pool


def test_a_host_that_is_slow_to_close_keeps_its_worker(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A busy host may be held up for long between its steps: the end of the episode must not look like its own."""
    with pool() as a_pool, caplog.at_level(logging.DEBUG, LOGGER):
        (worker,) = workers_of(a_pool)
        ask = worker.ask

        def slow(request: dict[str, Any], *arguments: Any, **keywords: Any) -> Any:
            if request["do"] == "close":
                time.sleep(4 * _LOOK_SECONDS)  # the warm process looks at the episode meanwhile
            return ask(request, *arguments, **keywords)

        monkeypatch.setattr(worker, "ask", slow)
        for _ in range(3):
            with a_pool.open(INPUTS) as session:
                assert session.run("1").text == "1"
            assert workers_of(a_pool) == [worker]
    assert caplog.messages == []


@pytest.mark.parametrize("code", LEFT)
def test_a_worker_that_differs_is_replaced(shared: SandboxPool, code: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        with shared.open(INPUTS) as session:
            worker = session._worker
            assert worker is not None
            session.run(code)
        assert worker not in workers_of(shared)
    (message,) = caplog.messages
    assert message.startswith(f"a sandbox worker (process {worker.process.pid}) is replaced: ")
    assert LEFT[code] in message
    with shared.open(INPUTS) as session:
        assert session._worker is not worker and session.run("1").text == "1"


@pytest.mark.parametrize("code", ENDED)
def test_a_worker_whose_episode_hung_or_died_is_cleaned_and_used_again(
    shared: SandboxPool, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        for _ in range(2):
            with shared.open(INPUTS) as session:
                (worker,) = workers_of(shared)
                result = session.run(f"open('left.txt', 'w').write('here')\n{code}")
                assert ENDED[code] in result.text
                assert "left.txt" not in session.run("import os\nos.listdir()").text
            assert workers_of(shared) == [worker]
    assert caplog.messages == []


def test_without_a_namespace_it_is_replaced(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with pool() as a_pool, caplog.at_level(logging.DEBUG, LOGGER):
        (worker,) = workers_of(a_pool)
        monkeypatch.setattr(worker, "command", dataclasses.replace(worker.command, weak=True))
        with a_pool.open(INPUTS) as session:
            assert "SIGKILL" in session.run("import os\nos.kill(os.getpid(), 9)").text
        monkeypatch.undo()
        assert worker not in workers_of(a_pool)
    assert "nothing confines what is left of it" in caplog.messages[0]


def test_an_action_can_be_broken_off_from_another_thread() -> None:
    with pool(wall_seconds=300.0) as patient:
        with patient.open(INPUTS) as session:
            timer = threading.Timer(0.3, session.break_off)
            timer.start()
            result = session.run("while True: pass")
            assert result.status == Status.INFRA_ERROR and "broken off" in result.text
            timer.join()
        with patient.open(INPUTS) as session:
            assert session.run("1").text == "1"


def test_a_worker_whose_episode_ended_itself_unasked_is_replaced(
    shared: SandboxPool, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG, LOGGER):
        with shared.open(INPUTS) as session:
            worker = session._worker
            assert worker is not None
            session.run("import os, threading\nthreading.Timer(0.1, os._exit, (3,)).start()")
            assert select.select([worker.control], [], [], 10)[0], "the warm process tells of the end"
        assert worker not in workers_of(shared)
    (message,) = caplog.messages
    assert "a process of its episode ended by itself: {'who': 'action', 'exit': 3" in message
