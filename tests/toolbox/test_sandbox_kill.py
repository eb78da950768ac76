"""Processes that die from outside: nothing hangs, nothing is left, the others go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from regrpo_jax.records.types import Status
from regrpo_jax.sandbox import kernel
from regrpo_jax.sandbox.results import SandboxError
from regrpo_jax.sandbox.session import RESTARTED
from tests.toolbox.sandbox_checks import INPUTS, pool, probe, workers_of

ROOT = Path(__file__).resolve().parents[2]


def gone(pids: set[int], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(kernel.is_over(pid) for pid in pids):
            return True
        time.sleep(0.02)
    return False


def test_a_killed_episode_is_an_error_of_the_action() -> None:
    with pool() as a_pool:
        expected = probe(a_pool)
        (worker,) = workers_of(a_pool)
        with a_pool.open(INPUTS) as session:
            (zygote,) = [
                pid for pid in kernel.descendants(worker.process.pid) if kernel._parent(pid) == worker.process.pid
            ]
            children = {pid for pid in kernel.descendants(zygote) if kernel._parent(pid) == zygote}
            child = max(children)  # the other one, which holds the tools, is older
            os.kill(child, signal.SIGKILL)
            result = session.run("1")
            assert (result.status, result.text) == (
                Status.TOOL_ERROR,
                f"killed: the action's process died of SIGKILL. {RESTARTED}",
            )
            assert session.run("1").text == "1"
        assert probe(a_pool) == expected


@pytest.mark.parametrize("during", ["an action", "between actions"])
def test_a_killed_worker_is_an_error_of_ours(during: str) -> None:
    with pool(workers=2, wall_seconds=20) as a_pool, a_pool.open(INPUTS) as other:
        expected = other.run("x = read_text('notes.txt')\nprint(x)")
        with a_pool.open(INPUTS) as session:
            (worker,) = {session._worker} - {None}
            everything = {worker.process.pid, *kernel.descendants(worker.process.pid)}
            assert len(everything) == 5  # bubblewrap, the two that stay, the tools and the action of the episode
            if during == "an action":
                subprocess.Popen(["sh", "-c", f"sleep 0.3; kill -9 {sorted(everything)[1]}"])
                result = session.run("sum(1 for _ in iter(int, 1))")
            else:
                os.kill(sorted(everything)[1], signal.SIGKILL)
                assert gone(everything - {worker.process.pid})
                result = session.run("1")
            assert result.status is Status.INFRA_ERROR
            assert gone(everything)
            assert session.run("1").text == "1"  # in another worker
        assert other.run("print(x)").text == expected.text  # and the other episode lives on


def test_a_worker_killed_while_it_waits_is_replaced() -> None:
    with pool() as a_pool:
        expected = probe(a_pool)
        (worker,) = workers_of(a_pool)
        os.kill(worker.process.pid, signal.SIGKILL)
        assert gone({worker.process.pid})
        assert probe(a_pool) == expected


def test_a_worker_that_stops_answering_does_not_hold_the_pool() -> None:
    with pool(wall_seconds=1.0) as a_pool, a_pool.open(INPUTS) as session:
        (worker,) = workers_of(a_pool)
        below = kernel.descendants(worker.process.pid)
        for pid in below:
            os.kill(pid, signal.SIGSTOP)
        assert session.run("1").status is Status.TIMEOUT
        assert gone(below)
        assert session.run("1").text == "1"


def test_nothing_outlives_the_pool() -> None:
    with pool(workers=2) as a_pool:
        sessions = [a_pool.open(INPUTS) for _ in range(2)]
        for session in sessions:
            session.run("import os, time\nif os.fork() == 0:\n    os.setsid()\n    time.sleep(1000)\n    os._exit(0)")
        pids = {worker.process.pid for worker in workers_of(a_pool)}
        pids |= set().union(*(kernel.descendants(pid) for pid in pids))
        assert len(pids) == 12
    assert all(kernel.is_over(pid) or not Path(f"/proc/{pid}").exists() for pid in pids)
    with pytest.raises((Exception,), match="closed|failed"):
        a_pool.open(INPUTS)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_host(number: int) -> None:
    code = (
        "import os, time\n"
        "from tests.toolbox.sandbox_checks import *\n"
        "with pool(workers=2, wall_seconds=100) as a_pool:\n"
        "    session = a_pool.open(INPUTS)\n"
        "    session.run('import os, time\\nif os.fork() == 0:\\n    os.setsid()\\n    time.sleep(1000)')\n"
        "    print('ready', flush=True)\n"
        "    session.run('while True: pass')\n"
    )
    host = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    assert host.stdout is not None and host.stdout.readline() == b"ready\n"
    time.sleep(0.2)
    below = kernel.descendants(host.pid)
    assert len(below) >= 9  # three of each worker, the episode's two and what it started
    host.send_signal(number)
    host.wait()
    host.stdout.close()
    assert gone(below)


def test_workers_that_cannot_start_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with pool() as a_pool:
        monkeypatch.setenv("PATH", "/nowhere")
        (worker,) = workers_of(a_pool)
        worker.kill()
        with pytest.raises(SandboxError):
            a_pool.open(INPUTS)
