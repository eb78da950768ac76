"""Ray, as far as we need it: a connection, a process of ours on some machine of a cluster, questions to it.

Ray is imported here and when it is asked for. It starts the process where there is room, tells when it is gone, with
its machine or alone, and that is all it is relied on for: it restarts nothing and repeats no call by itself, because a
repeated call in a process that forgot its episode would come to something else.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.results import SandboxError, WorkerLost
from regrpo_jax.workers.place import Place, Told
from regrpo_jax.workers.settings import RaySettings

_LOOK_SECONDS = 0.2  # between looks at whether an answer is still wanted
_ABANDON_SECONDS = 10.0  # for an answer that is not wanted any more
_ANSWER_SECONDS = 30.0  # for a cluster to take a connection
_THREADS = 4  # of a place: an action, what is read beside it, and what breaks it off


def imported_ray() -> Any:
    """The library. UserError where it is not installed."""
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"config.workers.backend='ray' needs the package ray, here and on the machines of the workers: "
            f"pip install 'regrpo_jax[ray]' ({error})"
        ) from error
    return ray


class RayCluster:
    """Workers that Ray starts. workers: how many there will be; UserError as `connect`."""

    def __init__(self, chosen: RaySettings, workers: int) -> None:
        self._chosen, self._ray = chosen, connect(chosen, workers)

    def new_worker(self) -> RayWorker:
        """One more, as soon as there is room."""
        return RayWorker(self._ray, self._chosen)

    def room(self) -> str:
        """What a worker takes, and what there is."""
        chosen = self._chosen
        wanted = {"CPU": chosen.cpus, "memory": chosen.memory_gib * 2**30, **chosen.resources}
        wanted, there = {name: amount for name, amount in wanted.items() if amount}, self._ray.cluster_resources()
        each = ", ".join(f"{amount:g} {name}" for name, amount in wanted.items())
        has = ", ".join(f"{there.get(name, 0):g} {name}" for name in wanted)
        return f"each takes {each}, and Ray has {has} in all" if wanted else "Ray starts none"


def connect(chosen: RaySettings, workers: int) -> Any:
    """The library, connected; it stays so until the process ends. UserError when no cluster can be reached."""
    ray = imported_ray()
    if ray.is_initialized():
        return ray
    address = chosen.address or os.environ.get("RAY_ADDRESS", "")
    if address not in ("", "auto"):
        _check_answers(address)
    where = {"address": address} if address else _own_cluster(chosen, workers)
    with _our_signals():
        try:
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **where)
        except Exception as error:  # of many kinds: no server, another version of Ray or Python, another token
            words = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(
                f"Ray at {address or 'this machine'} cannot be reached: {words[0]}; see config.workers.address"
            ) from error
    return ray


def _check_answers(address: str) -> None:
    """UserError where nobody does: Ray would try for a quarter of an hour."""
    host, _, port = address.rpartition(":")
    if "/" in host or not port.isdecimal():
        raise UserError(f"RAY_ADDRESS is {address!r}; the run must be in the cluster: name HOST:PORT or 'auto'")
    try:
        socket.create_connection((host, int(port)), _ANSWER_SECONDS).close()
    except OSError as error:
        raise UserError(
            f"Ray at {address} cannot be reached: {error}; see config.workers.address, and whether `ray start --head` "
            "runs there"
        ) from error


def _own_cluster(chosen: RaySettings, workers: int) -> dict[str, Any]:
    """A Ray of this machine alone that has room for the workers, however few processors there are."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it tells nobody of itself
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 else: whatever runs beside would let actions run out of time
    return {
        "address": "local",
        "num_cpus": max(os.cpu_count() or 1, math.ceil(workers * chosen.cpus)),
        "resources": {name: workers * amount for name, amount in chosen.resources.items()} or None,
        "include_dashboard": False,
    }


@contextlib.contextmanager
def _our_signals() -> Any:
    """Ray takes SIGTERM for itself, which would end a training without its last checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class RayWorker:
    """A `Place` in a process of its own on some machine of the cluster. machine: "" until it is known."""

    def __init__(self, ray: Any, chosen: RaySettings) -> None:
        self._ray = ray
        self.machine, self.process = "", 0
        self._actor = (
            ray.remote(Place)
            .options(
                num_cpus=chosen.cpus,
                memory=int(chosen.memory_gib * 2**30) or None,
                resources=chosen.resources or None,
                max_concurrency=_THREADS,
                max_restarts=0,
                max_task_retries=0,
                scheduling_strategy="SPREAD",
            )
            .remote()
        )

    @property
    def name(self) -> str:
        """For people."""
        return f"the worker on {self.machine}" if self.machine else "a worker"

    def ask(
        self, what: str, *arguments: Any, wanted: Callable[[], bool] = lambda: True, grace: float = _ABANDON_SECONDS
    ) -> Told:
        """What the place answers. WorkerLost when it is gone, SandboxError when it fails in a way that nobody foresaw.

        wanted: asked again and again; once it says no, an answer that does not come within `grace` seconds counts as
        lost.
        """
        errors, deadline = self._ray.exceptions, math.inf
        if not self._ray.is_initialized():  # it would start one
            raise WorkerLost("the connection to Ray has ended")
        try:
            answer = self._actor.do.remote(what, *arguments)
            while not self._ray.wait([answer], timeout=_LOOK_SECONDS)[0]:
                if not wanted():
                    deadline = min(deadline, time.monotonic() + grace)
                if time.monotonic() >= deadline:
                    raise WorkerLost(f"{self.name} does not answer")
            return self._ray.get(answer)
        except errors.RayTaskError as error:
            raise SandboxError(f"{self.name} failed: {_last_line(error)}") from error
        except errors.RayError as error:
            raise WorkerLost(f"{self.name} is gone: {_first_line(error)}") from error

    def tell(self, what: str) -> None:
        """As `ask`, without waiting for anything, nor for news of its end."""
        if not self._ray.is_initialized():
            return
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._actor.do.remote(what)

    def end(self, seconds: float = 0.0) -> None:
        """Kills it. seconds: that it is given before to put things away."""
        if not self._ray.is_initialized():
            return
        with contextlib.suppress(Exception):
            if seconds:
                self._ray.wait([self._actor.do.remote("end")], timeout=seconds)
            self._ray.kill(self._actor)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
