"""Where tasks are played: a pool of workers, limits, and the bookkeeping of which episode has a worker now.

with Environment.start(SandboxSettings(), toolset_settings) as environment:
    with environment.reset(task) as episode:
        while not episode.done:
            observation = episode.step(policy(...))
    episode.success
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from regrpo_jax.environments.episode import Episode, Session
from regrpo_jax.environments.episode_result import EpisodeLimits
from regrpo_jax.environments.pace import Pace
from regrpo_jax.environments.task import Task
from regrpo_jax.sandbox.pool import LOADER, SandboxPool
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.toolbox.toolset import ToolsetSettings, with_server_tools
from regrpo_jax.workers.pool import RemotePool
from regrpo_jax.workers.ray_cluster import RayCluster
from regrpo_jax.workers.settings import RaySettings

_LOOK_SECONDS = 0.5  # between looks at whether there are more places


class Pool(Protocol):
    """Workers: `SandboxPool`, which says what each of these does, or `RemotePool`."""

    settings: SandboxSettings

    @property
    def places(self) -> int: ...
    def open(
        self,
        files: dict[str, Any],
        seed: int,
        *,
        behind: Any = None,
        wrap: str = "",
        wrap_settings: Any = None,
    ) -> Session: ...
    def close(self) -> None: ...


class Environment:
    """Episodes over a pool, as many at a time as one likes; those that are idle make room for those that act.

    The pool must not be used by others at the same time: they would wait for episodes that wait for a turn.
    """

    def __init__(self, pool: Pool, limits: EpisodeLimits | None = None) -> None:
        self.pool, self.limits = pool, limits or EpisodeLimits()
        self.pace = Pace()
        self._owns_pool = False
        self._changed = threading.Condition()
        self._with_worker: dict[Episode, None] = {}  # in the order in which they got it
        self._busy: set[Episode] = set()

    @classmethod
    def start(
        cls,
        sandbox: SandboxSettings | None = None,
        toolset_settings: Any = None,
        limits: EpisodeLimits | None = None,
        loader: str = LOADER,
        ray: RaySettings | None = None,
    ) -> Environment:
        """An environment with a pool of its own, which it closes. UserError, SandboxError as the pool.

        ray: where its workers are; None for processes of this machine.
        """
        if isinstance(toolset_settings, ToolsetSettings):
            toolset_settings = with_server_tools(toolset_settings)  # a worker has no network to ask a server
        pool: Pool
        if ray is None:
            pool = SandboxPool(sandbox, toolset_settings, loader=loader)
        else:
            sandbox = sandbox or SandboxSettings()
            pool = RemotePool(
                sandbox,
                toolset_settings,
                RayCluster(ray, sandbox.workers),
                loader=loader,
                folder=ray.folder,
                start_seconds=ray.start_seconds,
            )
        environment = cls(pool, limits)
        environment._owns_pool = True
        return environment

    def __enter__(self) -> Environment:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def close(self) -> None:
        """End all episodes that hold a worker, and the pool if it is ours."""
        with self._changed:
            holding = list(self._with_worker)
        if self._owns_pool:
            self.pool.close()
        for episode in holding:
            episode.give_up("the environment was closed")

    def reset(self, task: Task, seed: int | None = None) -> Episode:
        """A new episode; seed is that of the actions' random numbers, see `Episode`.

        Takes no worker yet. UserError for faults of files that the task does not have.
        """
        return Episode(self, task, seed)

    def open_session(self, episode: Episode) -> Session:
        """A session for an episode that has its place. SandboxError, UserError as `SandboxPool.open`."""
        files, seed, wrap, wrap_settings = episode.open_arguments()
        return self.pool.open(dict(files), seed, wrap=wrap, wrap_settings=wrap_settings, behind=episode.behind)

    @contextmanager
    def place_for(self, episode: Episode) -> Iterator[None]:
        """Let the episode use a worker; when all are taken, park an idle episode, or wait until one is idle."""
        with self._changed:
            self._changed.wait_for(lambda: episode not in self._busy)
            self._busy.add(episode)
        try:
            self._take_place(episode)
            yield
        finally:
            self._release(episode)

    def _take_place(self, episode: Episode) -> None:
        with self._changed:
            while episode not in self._with_worker:
                if len(self._with_worker) < self.pool.places:
                    self._with_worker[episode] = None
                    return
                idle = next((other for other in self._with_worker if other not in self._busy), None)
                if idle is None:
                    self._changed.wait(_LOOK_SECONDS)
                    continue
                self._busy.add(idle)
                self._changed.release()
                try:
                    idle.park()
                finally:
                    self._changed.acquire()
                    self._with_worker.pop(idle, None)
                    self._busy.discard(idle)
                    self._changed.notify_all()

    def _release(self, episode: Episode) -> None:
        with self._changed:
            self._busy.discard(episode)
            self._changed.notify_all()

    def leave(self, episode: Episode) -> None:
        """The episode needs its worker no more."""
        with self._changed:
            self._changed.wait_for(lambda: episode not in self._busy)
            if episode not in self._with_worker:
                return
            self._busy.add(episode)
        try:
            episode.park()
        finally:
            with self._changed:
                self._with_worker.pop(episode, None)
                self._busy.discard(episode)
                self._changed.notify_all()
