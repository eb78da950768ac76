"""Three workers of a real Ray on this machine, whose processes are really killed: records and rollouts stay the same.

What becomes of a loss at any other moment is tried without Ray, in `test_lost_workers.py`.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ml_collections import ConfigDict

from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.config.base_config import base_config
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Status
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.run.run import Run
from regrpo_jax.sandbox import kernel
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.stages import data
from regrpo_jax.stages.online import playing
from regrpo_jax.suites.toolrepair import make_suite
from regrpo_jax.workers.pool import RemotePool
from regrpo_jax.workers.ray_cluster import RayCluster, RayWorker, connect
from regrpo_jax.workers.settings import RaySettings
from tests.environments.conftest import turn
from tests.rollouts.scripted_policy import ScriptedPolicy
from tests.rollouts.templates import renderer
from tests.rollouts.test_collect import Actors, fields


@pytest.fixture(scope="module", autouse=True)
def started() -> Iterator[None]:
    """A Ray of this machine, as a run starts it; SIGTERM stays what it was."""
    before = signal.getsignal(signal.SIGTERM)
    connect(RaySettings(), 3)
    assert signal.getsignal(signal.SIGTERM) == before, "a training could not write its last checkpoint"
    yield
    ray.shutdown()


@pytest.fixture
def kills(monkeypatch: pytest.MonkeyPatch) -> set[int]:
    """Numbers of actions, from 0, at which the worker that begins them is killed."""
    chosen: set[int] = set()
    numbers, ask = itertools.count(), RayWorker.ask

    def asking(worker: RayWorker, what: str, *arguments: Any, **keywords: Any) -> Any:
        if what == "run" and next(numbers) in chosen:
            threading.Timer(0.003, os.kill, (worker.process, signal.SIGKILL)).start()
        return ask(worker, what, *arguments, **keywords)

    monkeypatch.setattr(RayWorker, "ask", asking)
    return chosen


@pytest.fixture
def losses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why workers were lost."""
    found: list[str] = []
    lost = RemotePool.lost

    def losing(pool: RemotePool, worker: Any, reason: str) -> None:
        before = pool.losses
        lost(pool, worker, reason)
        if pool.losses > before:
            found.append(reason)

    monkeypatch.setattr(RemotePool, "lost", losing)
    return found


def config_of(backend: str) -> ConfigDict:
    config = base_config()
    config.data.source = "toolrepair"
    config.engine.records, config.engine.clean = 20, 4
    config.environment.workers, config.workers.backend = 3, backend
    return config


def digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_data_engine_writes_the_same_bytes(tmp_path: Path, kills: set[int], losses: list[str]) -> None:
    data.run(Run(config_of("local"), tmp_path / "local"))
    kills |= {8, 30}
    data.run(Run(config_of("ray"), tmp_path / "ray"))
    assert len(losses) == 2, losses
    here, there = (tmp_path / name for name in ("local", "ray"))
    assert digests(here / "corpus") == digests(there / "corpus")
    for name in ("rejects.jsonl", "summary.json"):
        assert (here / name).read_bytes() == (there / name).read_bytes()


def rollouts(environment: Environment, tasks: list[Task], folder: Path) -> list[RolloutGroup]:
    rules = LoopSettings(retries=1, max_steps=8, turn_tokens=400, episode_tokens=3000)
    settings = CollectSettings(rules, branches=4, tools={}, brief=False, image_folder=folder)
    policy = ScriptedPolicy(renderer("chatml"), Actors(tasks))
    groups, counts = collect_groups(environment, policy, tasks, settings, seed=1)
    assert counts.dropped == 0 and len(groups) == len(tasks)
    return groups


def all_fields(groups: list[RolloutGroup]) -> list[Any]:
    return [[group.prefix.tolist(), *map(fields, group.rollouts)] for group in groups]


def test_rollouts_are_the_same_and_a_sleeping_action_is_done_again(
    tmp_path: Path,
    kills: set[int],
    losses: list[str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(CollectSettings, "system_text", lambda self, task: "Answer.")
    tasks = [task for task in make_suite("train", 9, 4, surprises=0.8) if not task.images]
    with playing(config_of("local")) as environment:
        here = all_fields(rollouts(environment, tasks, tmp_path))
    kills |= {6, 15}
    with playing(config_of("ray")) as environment:
        assert isinstance(environment.pool, RemotePool)
        assert all_fields(rollouts(environment, tasks, tmp_path)) == here
        assert len(losses) == 2, losses
        while environment.pool.places < 3:  # those that took their places
            time.sleep(0.05)
        with environment.reset(tasks[0]) as episode, caplog.at_level(logging.WARNING):
            assert episode.step(turn("x = 6")).status == Status.OK
            worker = episode._session._worker  # type: ignore[union-attr]
            sandboxes = kernel.descendants(worker.process)
            assert sandboxes, "the walls stand around an action, there too"
            threading.Timer(1.0, os.kill, (worker.process, signal.SIGKILL)).start()
            began = time.monotonic()
            seen = episode.step(turn("import time\ntime.sleep(2)\nprint(x * 7)"))
            assert (seen.status, seen.text) == (Status.OK, "42") and time.monotonic() - began > 2
        assert "is gone" in caplog.text and len(losses) == 3
        deadline = time.monotonic() + 60
        while sandboxes & set(kernel.processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not sandboxes & set(kernel.processes()), "nothing of the action outlives its worker"


def test_what_ray_has_no_room_for_is_told() -> None:
    settings, chosen = SandboxSettings(workers=1), RaySettings(cpus=99.0, resources={"tools": 1.0})
    with pytest.raises(UserError, match=r"0 of 1 workers .* each takes 99 CPU, 1 tools, and Ray has \d+ CPU, 0 tools"):
        RemotePool(settings, None, RayCluster(chosen, 1), start_seconds=2.0)


def test_a_cluster_that_is_not_there_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=rf"Ray at 127\.0\.0\.1:{port} cannot be reached: .*config\.workers\.address"):
        connect(RaySettings(address=f"127.0.0.1:{port}"), 1)
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UserError, match="RAY_ADDRESS is 'ray://head:10001'; the run must be in the cluster"):
        connect(RaySettings(), 1)


def test_without_the_package_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"config\.workers\.backend='ray' needs the package ray.*regrpo_jax\[ray\]"):
        Environment.start(SandboxSettings(), ray=RaySettings())
