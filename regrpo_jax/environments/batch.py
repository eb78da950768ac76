"""Many episodes at once: threads over the workers, a deadline for each episode, results in the order of the input.

An episode that is stuck, crashes or meets trouble of ours becomes an infra error of its own; the others neither
wait for it nor are lost with it. A deadline is a net under faults of ours and not a limit that an honest turn meets, or
a slow machine would drop what a fast one counts: the sandbox ends each action by itself, long before. With one worker
or with eight, the results are the same. Under asyncio, a single turn is `await asyncio.to_thread(episode.step, turn)`.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.episode_result import EpisodeResult
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import Observation, Status, Step

Agent = Callable[[Task, tuple[Step, ...]], str]
Progress = Callable[[int, int], None]
_T = TypeVar("_T")
_LOOK_SECONDS = 0.05  # between looks at the deadlines
_UNPLAYABLE = "the task cannot be played: "


def run_episodes(
    environment: Environment,
    tasks: Sequence[Task],
    agent: Agent,
    *,
    seconds: float | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[EpisodeResult]:
    """Play every task to its end with `agent(task, steps so far) -> turn`, called from several threads.

    seconds: of one episode, the agent's time included; then it is given up as an infra error, as it is when the
    agent raises or the task cannot be played. None waits for an agent as long as it takes. threads: as many as workers
    if None; more of them pay when the agent waits for a server. progress: called as progress(done, all) after each
    episode. UserError when no task at all can be played.
    """
    episodes = [environment.reset(task) for task in tasks]

    def play(number: int) -> EpisodeResult:
        episode = episodes[number]
        try:
            while not episode.done:
                episode.step(agent(episode.task, tuple(episode.steps)))
        except UserError as error:
            if not episode.done:
                episode.give_up(f"{_UNPLAYABLE}{error}")
        except Exception as error:
            episode.give_up(f"the agent failed: {type(error).__name__}: {error}")
        finally:
            episode.close()
        return episode.result

    def late(number: int) -> EpisodeResult:
        episodes[number].give_up("broken off" if seconds is None else f"not over after {seconds:g} seconds")
        return episodes[number].result

    def allowed(number: int) -> float:
        return math.inf if seconds is None else seconds

    results = _in_threads(play, late, allowed, len(tasks), threads or environment.pool.settings.workers, progress)
    if results and all(result.error.startswith(_UNPLAYABLE) for result in results):
        raise UserError(results[0].error)
    return results


def step_episodes(
    environment: Environment,
    episodes: Sequence[Episode],
    turns: Sequence[str],
    *,
    seconds: float = 120.0,
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[Observation]:
    """Play one turn of each episode, the way rollouts go: all policies' turns first, then all observations.

    There may be many more episodes than workers (see `episode.py`). seconds: of one action, of which a turn may run
    several to bring its episode back; an episode that is late, or whose task cannot be played, is given up as an infra
    error. UserError for an episode that is over.
    """
    if len(episodes) != len(turns):
        raise UserError(f"{len(episodes)} episodes and {len(turns)} turns; each episode needs one")
    if len({id(episode) for episode in episodes}) != len(episodes):
        raise UserError("the same episode cannot play two turns at once")
    over = next((episode for episode in episodes if episode.done), None)
    if over is not None:
        raise UserError(f"the episode of task {over.task.id} is over ({over.outcome}); reset it")

    def play(number: int) -> Observation:
        begun, actions = time.monotonic(), episodes[number].actions_due
        try:
            observation = episodes[number].step(turns[number])
            if observation.status != Status.INFRA_ERROR:
                environment.pace.note((time.monotonic() - begun) / actions)
            return observation
        except UserError as error:
            episodes[number].give_up(f"{_UNPLAYABLE}{error}")
            return Observation(Status.INFRA_ERROR, f"{_UNPLAYABLE}{error}")

    def late(number: int) -> Observation:
        reason = f"the turn was not over after {allowed(number):g} seconds"
        episodes[number].give_up(reason)
        return Observation(Status.INFRA_ERROR, reason)

    def allowed(number: int) -> float:
        return seconds * episodes[number].actions_due

    return _in_threads(play, late, allowed, len(episodes), threads or environment.pool.settings.workers, progress)


def _in_threads(
    play: Callable[[int], _T],
    late: Callable[[int], _T],
    allowed: Callable[[int], float],
    count: int,
    threads: int,
    progress: Progress | None,
) -> list[_T]:
    """play(0), play(1), ... on some threads; late(i), called here, in the place of one that takes over allowed(i) s.

    A thread that is late is left alone and another takes its place. The first exception is raised after all are done.
    """
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    finished: queue.SimpleQueue[tuple[int, _T | Exception]] = queue.SimpleQueue()
    deadlines: dict[int, float] = {}  # of those that have begun
    results: dict[int, _T | Exception] = {}
    replaced: set[int] = set()  # numbers whose threads were late

    def work() -> None:
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            deadlines[number] = time.monotonic() + allowed(number)
            try:
                finished.put((number, play(number)))
            except Exception as error:
                finished.put((number, error))
            if number in replaced:  # another thread works in the place of this one
                return

    def start_thread() -> None:
        threading.Thread(target=work, name="episodes", daemon=True).start()

    def finish(number: int, result: _T | Exception) -> None:
        if number not in results:
            results[number] = result
            if progress is not None:
                progress(len(results), count)

    for number in range(count):
        waiting.put(number)
    try:
        for _ in range(min(count, threads)):
            start_thread()
        while len(results) < count:
            with contextlib.suppress(queue.Empty):
                finish(*finished.get(timeout=_LOOK_SECONDS))
            now = time.monotonic()
            for number in [number for number, deadline in deadlines.copy().items() if now >= deadline]:
                if number not in results:
                    replaced.add(number)
                    finish(number, late(number))
                    start_thread()
    except BaseException:  # an interrupt, or the caller's progress: nothing of ours goes on behind its back
        while not waiting.empty():
            waiting.get()
        for number in deadlines.copy().keys() - results.keys():
            late(number)
        raise
    for number in range(count):
        if isinstance(results[number], Exception):
            raise results[number]  # type: ignore[misc]
    return [results[number] for number in range(count)]  # type: ignore[misc]
