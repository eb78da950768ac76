"""Warm workers, and who may use them: `SandboxPool.open` gives an episode a worker of its own.

A worker that something odd happened in is killed and replaced in the background; the spares make that nobody waits
for it. The log tells each reason at level DEBUG. One thread of the pool starts all workers,
because the kernel kills a worker together with the thread that started it.
"""

from __future__ import annotations

import importlib
import logging
import pickle
import queue
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.host_worker import HostWorker, Opening, modules_of
from regrpo_jax.sandbox.isolation import worker_command
from regrpo_jax.sandbox.results import SandboxError
from regrpo_jax.sandbox.session import SandboxSession
from regrpo_jax.sandbox.settings import SandboxSettings, Start

LOADER = "regrpo_jax.toolbox.toolset:load_toolset"
_CLEANING_SECONDS = 3.0
_log = logging.getLogger(__name__)


def tools_of_host(loader: str, toolset_settings: Any) -> Mapping[str, Callable[..., Any]]:
    """Of the tools that a loader makes, those that run outside of the sandbox, by name."""
    module, _, name = loader.partition(":")
    loaded = getattr(importlib.import_module(module), name)(toolset_settings)
    return {key: tool for key, tool in loaded.items() if getattr(tool, "remote", False)}


class SandboxPool:
    """Up to `settings.workers` episodes at the same time, each in a worker that has loaded the same tools.

    loader: "package.module:function", called as function(toolset_settings) in the workers, returns the tools by
    name. remote_tools: the tools that run on the host; loaded by the same function when first called if None.
    UserError when the tools cannot be loaded or isolation is required and not possible, SandboxError when workers
    do not start.
    """

    def __init__(
        self,
        settings: SandboxSettings | None = None,
        toolset_settings: Any = None,
        *,
        loader: str = LOADER,
        remote_tools: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.settings = settings or SandboxSettings()
        self._start = Start(self.settings, loader, pickle.dumps(toolset_settings))
        self._toolset_settings = toolset_settings
        self._remote_tools = remote_tools
        self._lock = threading.Lock()
        self._free = threading.Semaphore(self.settings.workers)
        self._ready: queue.Queue[HostWorker | Exception] = queue.Queue()
        self._orders: queue.Queue[Future[HostWorker] | None] = queue.Queue()
        self._all: set[HostWorker] = set()
        self._sessions: set[SandboxSession] = set()
        self._starting: set[threading.Thread] = set()
        self._closed = False
        self._starter = threading.Thread(target=self._start_workers, name="sandbox-starter", daemon=True)
        self._starter.start()
        try:
            for number in range(self.settings.workers + self.settings.spares):
                self._replace(wait=number == 0)  # the first one alone: a mistake in the settings is told at once
            while self._ready.qsize() < self.settings.workers and self._starting:
                next(iter(self._starting)).join(0.05)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SandboxPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def places(self) -> int:
        """How many episodes can act at the same time."""
        return self.settings.workers

    def _start_workers(self) -> None:
        while (order := self._orders.get()) is not None:
            try:
                readable = tuple(getattr(self._toolset_settings, "readable_paths", ()))
                command = worker_command(
                    self.settings, modules_of(self._start.loader, self._toolset_settings), readable
                )
                worker = HostWorker(command, self.settings, self._start)
                with self._lock:
                    self._all.add(worker)
                order.set_result(worker)
            except Exception as error:
                order.set_exception(error)

    def _new_worker(self) -> HostWorker:
        order: Future[HostWorker] = Future()
        self._orders.put(order)
        worker = order.result()
        try:
            worker.wait_ready()
        except BaseException:
            with self._lock:
                self._all.discard(worker)
            raise
        return worker

    def _replace(self, wait: bool = False) -> None:
        """Bring one more worker into the ready ones, in the background."""

        def bring() -> None:
            try:
                self._ready.put(self._new_worker())
            except Exception as error:
                self._ready.put(error)
            finally:
                with self._lock:
                    self._starting.discard(threading.current_thread())

        if wait:
            self._ready.put(self._new_worker())
            return
        thread = threading.Thread(target=bring, name="sandbox-replacement", daemon=True)
        with self._lock:
            if self._closed:
                return
            self._starting.add(thread)
        thread.start()

    def open(
        self,
        files: Mapping[str, bytes | Path] | None = None,
        seed: int = 0,
        *,
        behind: Mapping[str, bytes] | None = None,
        wrap: str = "",
        wrap_settings: Any = None,
        tool_seed: int | None = None,
    ) -> SandboxSession:
        """An episode with these files in its workspace; waits while all workers are in use.

        seed: of the action's random numbers. behind: files that only tools read, see `toolbox.behind`.
        wrap: "package.module:function" of an importable package, called once in the process of the episode's tools as
        function(tools, wrap_settings, tool_seed) and returning the tools to use; wrap_settings is plain data, tool_seed
        is `seed` if None. The process of the actions gets none of these but `seed`.
        UserError for files that cannot be read or named so and tools that cannot be set up, SandboxError when no worker
        can be had.
        """
        given = files or {}
        paths = {name: source for name, source in given.items() if isinstance(source, Path)}
        contents = {name: source for name, source in given.items() if not isinstance(source, Path)}
        opening = Opening(
            contents, seed, wrap, wrap_settings, dict(behind or {}), seed if tool_seed is None else tool_seed
        )
        self._free.acquire()
        try:
            session = SandboxSession(self, opening, paths)
        except BaseException:
            self._free.release()
            raise
        with self._lock:
            self._sessions.add(session)
        return session

    def take(self) -> HostWorker:
        """A ready worker. SandboxError."""
        for _ in range(self.settings.workers + self.settings.spares + 1):
            if self._closed:
                raise UserError("this pool is closed")
            try:
                worker = self._ready.get(timeout=self.settings.start_seconds)
            except queue.Empty:
                raise SandboxError("no worker became ready in time") from None
            if isinstance(worker, Exception):
                self._replace()
                raise SandboxError(f"a worker could not be replaced: {worker}") from worker
            if worker.alive():
                return worker
            self.discard(worker, "it was gone before it was used")
        raise SandboxError("workers die before they are used")

    def give_back(self, worker: HostWorker) -> None:
        """A worker whose episode is over: cleaned, or replaced where that does not work or its process had ended.

        The episode's channel must still be open here: its process ends when that closes, and whether the warm
        process sees this end before it is asked to clean up is then chance.
        """
        try:
            if worker.ended is None:
                worker.ask({"do": "close"})  # the news of an end that came first is read with the answer
            if worker.ended is not None:
                raise SandboxError(f"a process of its episode ended by itself: {worker.ended}")
        except (SandboxError, OSError) as error:
            self.discard(worker, str(error))
        else:
            self._ready.put(worker)

    def clean_up(self, worker: HostWorker, reason: str) -> None:
        """A worker whose episode's process hung or died: nothing that an episode which ends well could not leave.

        So it is cleaned and compared like any other, which takes milliseconds where a new worker takes a second of
        CPU time. It is replaced where it does not manage that soon, or where no namespace tells who belongs to it.
        """
        try:
            if worker.command.weak:
                raise SandboxError("nothing confines what is left of it")
            worker.ask({"do": "close"}, seconds=_CLEANING_SECONDS)
        except (SandboxError, OSError) as error:
            self.discard(worker, f"{reason} ({error})")
        else:
            self._ready.put(worker)

    def discard(self, worker: HostWorker, reason: str) -> None:
        """Kill a worker and order another; the reason goes to the log."""
        _log.debug("a sandbox worker (process %d) is replaced: %s", worker.process.pid, reason)
        worker.kill()
        with self._lock:
            self._all.discard(worker)
        self._replace()

    def finished(self, session: SandboxSession) -> None:
        """A session is closed: another may be opened."""
        with self._lock:
            self._sessions.discard(session)
        self._free.release()

    def remote_tools(self) -> Mapping[str, Callable[..., Any]]:
        """The tools that run on the host, by name."""
        with self._lock:
            if self._remote_tools is None:
                self._remote_tools = tools_of_host(self._start.loader, self._toolset_settings)
            return self._remote_tools

    def close(self) -> None:
        """Kill all workers, those of open sessions too. May be called again."""
        with self._lock:
            self._closed = True
        for thread in list(self._starting):
            thread.join()
        with self._lock:
            workers, self._all = list(self._all), set()
        for worker in workers:
            worker.kill()
        self._free.release(1_000_000)  # whoever waits for a worker is told that there will be none
        self._orders.put(None)
        self._starter.join()
