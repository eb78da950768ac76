"""Records and rollouts from workers on Ray, undisturbed, with workers killed, and with a machine that dies.

python experiments/ray_workers/measure.py --records=200 --tasks=48

Every line is compared byte for byte with what processes of this machine make. The machine that dies is a Ray node of
its own, a second set of Ray's processes here, whose first process is killed; all machines share the cores of this one,
so the seconds say what Ray costs and not what more machines would gain.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import resource
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from absl import app, flags
from ml_collections import ConfigDict

from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.config.base_config import base_config
from regrpo_jax.environments.environment import Environment
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.run.run import Run
from regrpo_jax.stages import data
from regrpo_jax.stages.online import playing
from regrpo_jax.suites.toolrepair import make_suite
from regrpo_jax.workers.pool import RemotePool
from tests.rollouts.scripted_policy import ScriptedPolicy
from tests.rollouts.templates import renderer
from tests.rollouts.test_collect import Actors, fields

_RECORDS = flags.DEFINE_integer("records", 200, "RoT records of the data engine.")
_TASKS = flags.DEFINE_integer("tasks", 48, "tasks that are played, four branches each.")
_WORKERS = flags.DEFINE_integer("workers", 3, "workers.")
_DIGESTS: dict[str, str] = {}
_POOLS: list[RemotePool] = []
_STARTING: list[float] = []  # seconds until workers were there


def config_of(backend: str, address: str) -> ConfigDict:
    """The data stage's, and what plays takes of it."""
    config = base_config()
    config.data.source = "toolrepair"
    config.engine.records, config.engine.clean = _RECORDS.value, _RECORDS.value // 5
    config.environment.workers = _WORKERS.value
    config.workers.backend, config.workers.address = backend, address
    return config


def engine(config: ConfigDict, folder: Path) -> str:
    """Digest of everything that the data engine wrote."""
    data.run(Run(config, folder))
    files = [*sorted(path for path in (folder / "corpus").rglob("*") if path.is_file()), folder / "rejects.jsonl"]
    found = [f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in files]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def rollouts(config: ConfigDict, folder: Path) -> str:
    """Digest of the groups: tokens, labels, log-probs, turns, outcomes."""
    tasks = [task for task in make_suite("train", 2 * _TASKS.value, 4, surprises=0.8) if not task.images]
    tasks = tasks[: _TASKS.value]
    rules = LoopSettings(retries=1, max_steps=8, turn_tokens=400, episode_tokens=3000)
    settings = CollectSettings(rules, branches=4, tools={}, brief=False, image_folder=folder)
    policy = ScriptedPolicy(renderer("chatml"), Actors(tasks))
    with playing(config) as environment, patch.object(CollectSettings, "system_text", lambda *_: "Answer."):
        groups, counts = collect_groups(environment, policy, tasks, settings, seed=1)
    assert counts.dropped == 0
    told = [[group.prefix.tolist(), *map(fields, group.rollouts)] for group in groups]
    return hashlib.sha256(pickle.dumps(repr(told))).hexdigest()


@contextlib.contextmanager
def meanwhile(harm: Callable[[threading.Event], None]) -> Iterator[None]:
    """`harm`, once all workers were there, beside what is done; the event says that it is over."""
    over = threading.Event()
    _POOLS.clear()

    def do() -> None:
        while not _POOLS and not over.wait(0.05):
            pass
        harm(over)

    thread = threading.Thread(target=do)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def killing(seconds: float) -> contextlib.AbstractContextManager[None]:
    """Two workers are killed meanwhile, `seconds` and twice as long after all were there."""

    def kill(over: threading.Event) -> None:
        for _ in range(2):
            if not over.wait(seconds) and (there := _POOLS[-1].workers()):
                os.kill(there[0].process, signal.SIGKILL)

    return meanwhile(kill)


def dying_machine(node: object, cluster: object, seconds: float) -> contextlib.AbstractContextManager[None]:
    """All of a machine is gone, `seconds` after all workers were there."""

    def remove(over: threading.Event) -> None:
        if not over.wait(seconds):
            cluster.remove_node(node, allow_graceful=False)  # type: ignore[attr-defined]

    return meanwhile(remove)


def measure(name: str, what: Callable[[ConfigDict, Path], str], config: ConfigDict) -> None:
    """One line of the table."""
    began, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_utime
    _POOLS.clear()
    _STARTING.clear()
    with tempfile.TemporaryDirectory() as folder:
        digest = what(config, Path(folder))
    same = _DIGESTS.setdefault(what.__name__, digest) == digest
    seconds, host = time.monotonic() - began, resource.getrusage(resource.RUSAGE_SELF).ru_utime - used
    losses = _POOLS[-1].losses if _POOLS else 0
    told = f"{sum(_STARTING):.1f} | {seconds - sum(_STARTING):.1f} | {host:.1f} | {losses}"
    print(f"| {what.__name__} | {name} | {told} | {'same' if same else 'OTHER'} |", flush=True)


def main(_: list[str]) -> None:
    import ray
    from ray.cluster_utils import Cluster

    started = RemotePool.__init__

    def noted(pool: RemotePool, *arguments: object, **keywords: object) -> None:
        started(pool, *arguments, **keywords)  # type: ignore[arg-type]
        _POOLS.append(pool)

    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112 (Ray's own name)

    def timed(*arguments: Any, **keywords: Any) -> Environment:
        began = time.monotonic()
        environment = start(*arguments, **keywords)
        _STARTING.append(time.monotonic() - began)
        return environment

    start = Environment.start
    print(
        "| what | workers | s to start | s to play | CPU s of the run | lost | bytes |\n|---|---|---|---|---|---|---|"
    )
    with patch.object(RemotePool, "__init__", noted), patch.object(Environment, "start", timed):
        for what in (engine, rollouts):
            measure("local", what, config_of("local", ""))
        for what in (engine, rollouts):
            measure("Ray", what, config_of("ray", ""))
            with killing(2.0):
                measure("Ray, two killed", what, config_of("ray", ""))
        ray.shutdown()
        for what in (engine, rollouts):
            cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
            cluster.add_node(num_cpus=1)
            node = cluster.add_node(num_cpus=_WORKERS.value - 1)
            with dying_machine(node, cluster, 2.0):
                measure("Ray, 2 machines, one dies", what, config_of("ray", cluster.address))
            ray.shutdown()
            cluster.shutdown()


if __name__ == "__main__":
    app.run(main)
