"""Workers on machines of a cluster, in the place of `SandboxPool`: each plays one episode at a time.

A worker that is lost, with its process or its machine, is told by `WorkerLost`, once to each who asks something of it;
another is ordered at once and comes wherever there is room. Until it is there, there are fewer places. While there is
none at all, who needs one waits, and a line says so every minute: an episode is not dropped because machines are away.
"""

from __future__ import annotations

import logging
import os
import pickle
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.host_worker import modules_of
from regrpo_jax.sandbox.pool import LOADER, tools_of_host
from regrpo_jax.sandbox.results import SandboxError, WorkerLost
from regrpo_jax.sandbox.session import contents_of
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.workers.likeness import Likeness, likeness
from regrpo_jax.workers.place import About, Order
from regrpo_jax.workers.session import RemoteSession, Worker

_END_SECONDS = 10.0  # for a worker to put its processes away
_TOLD_SECONDS = 60.0  # between lines that say that there is no worker
_PAUSES = (1.0, 60.0)  # seconds between tries at a worker that does not start, the first and the longest
_log = logging.getLogger(__name__)


class NamedWorker(Worker, Protocol):
    """A worker, for people and for the log. machine: "" until it is known."""

    machine: str
    process: int

    @property
    def name(self) -> str: ...
    def end(self, seconds: float = 0.0) -> None: ...


class Cluster(Protocol):
    """Where workers come from: `RayCluster`, which says what each of these does."""

    def new_worker(self) -> NamedWorker: ...
    def room(self) -> str: ...


class RemotePool:
    """`settings.workers` workers that have loaded the same tools, as `SandboxPool` has them, somewhere on a cluster.

    folder: where they work there, see `RaySettings`. start_seconds: until all must be there. losses: workers that were
    lost so far. UserError when the cluster has no room, tools cannot be loaded, isolation is required and not possible,
    or a machine has other code or packages; SandboxError when sandboxes do not start.
    """

    def __init__(
        self,
        settings: SandboxSettings,
        toolset_settings: Any,
        cluster: Cluster,
        *,
        loader: str = LOADER,
        folder: str = "",
        start_seconds: float = 300.0,
        remote_tools: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.settings, self._cluster, self._start_seconds = settings, cluster, start_seconds
        self._loader, self._toolset_settings, self._remote_tools = loader, toolset_settings, remote_tools
        home = os.getcwd()
        own = replace(self.settings, workers=1, spares=0)
        self._order = Order(own, loader, pickle.dumps(toolset_settings), home, folder or home)
        readable = (*self.settings.readable, *getattr(toolset_settings, "readable_paths", ()))
        self._here = likeness(modules_of(loader, toolset_settings), home, readable)
        self._changed = threading.Condition()
        self._loading = threading.Lock()  # of the tools of the host
        self._machines: set[str] = set()  # of which was told what there is to tell
        self._bringing: set[threading.Thread] = set()
        self._living: dict[NamedWorker, None] = {}
        self._free: list[NamedWorker] = []
        self._trouble: Exception | None = None  # why the first ones cannot be had
        self._begun = self._closed = False
        self.losses = 0
        try:
            for _ in range(self.settings.workers):
                self._bring_one()
            self._wait_for_all()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> RemotePool:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    @property
    def places(self) -> int:
        """How many episodes can act at the same time now."""
        with self._changed:
            return max(1, len(self._living))

    def workers(self) -> list[NamedWorker]:
        """Those that live, as far as is known."""
        with self._changed:
            return list(self._living)

    def _wait_for_all(self) -> None:
        deadline = time.monotonic() + self._start_seconds
        with self._changed:
            while len(self._living) < self.settings.workers:
                if self._trouble is not None:
                    raise self._trouble
                if time.monotonic() >= deadline:
                    raise self._too_few()
                self._changed.wait(1.0)
            self._begun = True

    def _too_few(self) -> UserError:
        return UserError(
            f"{len(self._living)} of {self.settings.workers} workers were there after {self._start_seconds:g} seconds: "
            f"{self._cluster.room()}; lower config.environment.workers or what config.workers takes for each, or raise "
            "config.workers.start_seconds"
        )

    def _bring_one(self) -> None:
        """One more worker, in the background."""
        thread = threading.Thread(target=self._bring, name="new-worker", daemon=True)
        with self._changed:
            self._bringing.add(thread)
        thread.start()

    def _bring(self) -> None:
        try:
            self._brought()
        finally:
            with self._changed:
                self._bringing.discard(threading.current_thread())

    def _brought(self) -> None:
        pause = _PAUSES[0]
        while not self._closed:
            worker = self._cluster.new_worker()
            try:
                self._made_ready(worker)
            except (UserError, SandboxError) as error:
                worker.end()
                if not self._begun and not isinstance(error, WorkerLost):
                    with self._changed:
                        self._trouble = self._trouble or error
                        self._changed.notify_all()
                    return
                if not self._closed:
                    _log.warning("a worker could not be replaced: %s; it is tried again in %g seconds", error, pause)
                    with self._changed:
                        self._changed.wait_for(lambda: self._closed, pause)
                    pause = min(2 * pause, _PAUSES[1])
                continue
            with self._changed:
                if not self._closed:
                    self._living[worker] = None
                    self._free.append(worker)
                    self._changed.notify_all()
                    return
            worker.end(_END_SECONDS)

    def _made_ready(self, worker: NamedWorker) -> None:
        """UserError, SandboxError: what is wrong there."""
        asked: dict[str, Any] = {"wanted": lambda: not self._closed, "grace": 0.0}
        try:
            found: tuple[str, Likeness] = worker.ask("look", self._order, **asked).content()
            worker.machine, there = found
            if other := self._here.difference(there):
                raise UserError(
                    f"{other}: the same actions would come to something else; install there what is here, or the other "
                    "way round"
                )
            about: About = worker.ask("begin", **asked).content()
        except UserError as error:
            raise UserError(f"{worker.name}: {error}") from error
        worker.process = about.process
        self._warn(worker.machine, about)

    def _warn(self, machine: str, about: About) -> None:
        """Once of each machine: what a person must know of its workers."""
        with self._changed:
            known = machine in self._machines
            self._machines.add(machine)
        if not known and about.unisolated:
            _log.warning("code actions run WITHOUT isolation on %s: %s", machine, about.unisolated)
        if not known and about.niceness > 0:
            _log.warning(
                "workers on %s have niceness %d: beside other work there, actions can run out of time that would not "
                "here; start Ray there with RAY_worker_niceness=0",
                machine,
                about.niceness,
            )

    def open(
        self,
        files: Mapping[str, bytes | Path] | None = None,
        seed: int = 0,
        *,
        behind: Mapping[str, bytes] | None = None,
        wrap: str = "",
        wrap_settings: Any = None,
        tool_seed: int | None = None,
    ) -> RemoteSession:
        """As `SandboxPool.open`; files are read here.

        WorkerLost when the one that was to play is gone, or when none is free because one was lost: there is a place
        less then, which the caller is to know before it waits for one.
        """
        opening = {
            "files": contents_of(files or {}, self.settings),
            "seed": seed,
            "behind": dict(behind or {}),
            "wrap": wrap,
            "wrap_settings": wrap_settings,
            "tool_seed": tool_seed,
        }
        worker = self._take()
        try:
            worker.ask("open", opening).content()
        except WorkerLost as loss:
            self.lost(worker, str(loss))
            raise
        except BaseException:
            self.finished(worker)
            raise
        return RemoteSession(self, worker)

    def _take(self) -> NamedWorker:
        told = time.monotonic()
        with self._changed:
            while not self._free:
                if self._closed:
                    raise UserError("this pool is closed")
                if self._living:
                    raise WorkerLost("no worker is free, because one was lost")
                self._changed.wait(1.0)
                if time.monotonic() - told > _TOLD_SECONDS:
                    told = time.monotonic()
                    _log.warning("there is no worker; episodes wait until there is room for one")
            return self._free.pop(0)

    def lost(self, worker: NamedWorker, reason: str) -> None:
        """A worker is gone: another is ordered."""
        with self._changed:
            if self._closed or worker not in self._living:
                return
            del self._living[worker]
            self._free = [other for other in self._free if other is not worker]
            self.losses += 1
        _log.warning("%s; what it played is played elsewhere", reason)
        worker.end()
        self._bring_one()

    def finished(self, worker: NamedWorker) -> None:
        """Its session is closed: another may be opened."""
        with self._changed:
            if worker in self._living:
                self._free.append(worker)
                self._changed.notify_all()

    def remote_tools(self) -> Mapping[str, Callable[..., Any]]:
        """The tools that run on the host, which is here, by name."""
        with self._loading:
            if self._remote_tools is None:
                self._remote_tools = tools_of_host(self._loader, self._toolset_settings)
            return self._remote_tools

    def close(self) -> None:
        """Kill all workers, those of open sessions too. May be called again."""
        with self._changed:
            self._closed = True
            workers, self._living, self._free = list(self._living), {}, []
            self._changed.notify_all()
            bringing = list(self._bringing)
        for thread in bringing:
            thread.join()
        ending = [threading.Thread(target=worker.end, args=(_END_SECONDS,), daemon=True) for worker in workers]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()
