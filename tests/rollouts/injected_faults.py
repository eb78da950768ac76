"""Trouble of ours, made on purpose: a share of all tool calls hangs, kills its process or fails as infrastructure.

The calls are drawn inside the sandbox, where the tools run; the host knows the same draws, and so which runs of which
actions were hit, without asking the code that has to cope with it. It is the host, too, that lets a call fail as
infrastructure, because nothing inside can. `experiments/online_faults` uses it as well.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from regrpo_jax.agent.rollout import Rollout
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.task import Task
from regrpo_jax.records.actions import FINAL_ANSWER, split_action
from regrpo_jax.records.types import Status
from regrpo_jax.rollouts.shared_play import SharedPlay
from regrpo_jax.sandbox.results import ActionResult, Tape
from regrpo_jax.sandbox.session import SandboxSession
from tests.rollouts.troubled_tools import WRAP, trouble_of

KINDS = ("hang", "crash", "infra")
RETRIES = inspect.signature(SharedPlay).parameters["retries"].default


class _Session:
    """A session of the sandbox that looks on: which of its runs met trouble."""

    def __init__(self, session: SandboxSession, trouble: Callable[[int], str], hit: Callable[[str], None]) -> None:
        self._session, self._trouble, self._hit = session, trouble, hit
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def run(self, code: str, tape: Tape | None = None) -> ActionResult:
        result = self._session.run(code, tape)
        made = sum(number for name, number in result.called.items() if name != FINAL_ANSWER)
        met = [trouble for call in range(made) if (trouble := self._trouble(self._calls + 1 + call))]
        if met:
            self._hit(met[0])
        ended = result.status == Status.INFRA_ERROR or bool(result.killed)
        self._calls = 0 if ended else self._calls + made
        if "infra" in met:
            return ActionResult(Status.INFRA_ERROR, "the service behind a tool is gone")
        return result


class FaultyEnvironment(Environment):
    """An environment of the compact suite in which tool calls meet trouble with probability `rate`.

    hits: how often which kind was met. seen: of each turn that was played, its episode, its number and the trouble.
    """

    rate, kinds, seed = 0.05, KINDS, 0

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.hits: Counter[str] = Counter()
        self.seen: list[tuple[Episode, int, str]] = []
        self._now: dict[Episode, str] = {}
        self._opened = itertools.count()
        self._books = threading.Lock()

    def open_session(self, episode: Episode) -> SandboxSession:
        files, seed, _, faults = episode.open_arguments()
        name = f"{self.seed}/{next(self._opened)}"
        settings = {"faults": faults, "session": name, "rate": self.rate, "kinds": list(self.kinds)}
        session = self.pool.open(dict(files), seed, wrap=WRAP, wrap_settings=settings, behind=episode.behind)
        with self._books:
            self._now.pop(episode, None)  # what met an earlier opening of this turn is tried again here

        def hit(trouble: str) -> None:
            with self._books:
                self.hits[trouble] += 1
                self._now[episode] = trouble

        trouble = functools.partial(trouble_of, name, rate=self.rate, kinds=tuple(self.kinds))
        return _Session(session, trouble, hit)  # type: ignore[return-value]

    @contextmanager
    def place_for(self, episode: Episode) -> Iterator[None]:
        number = len(episode.steps)
        try:
            with super().place_for(episode):
                yield
        finally:
            with self._books:
                self.seen.append((episode, number, self._now.pop(episode, "")))

    def runs_of(self, task: Task) -> dict[tuple[str, ...], list[str]]:
        """Of each sequence of codes that was played in a task, the trouble that each run of its last one met."""
        found: dict[tuple[str, ...], list[str]] = {}
        for episode, number, trouble in self.seen:
            if episode.task.id == task.id and len(episode.steps) > number:
                codes = tuple(step.code for step in episode.steps[: number + 1])
                found.setdefault(codes, []).append(trouble)
        return found

    def unhurt(self, task: Task, rollout: Rollout) -> bool:
        """Whether each action of a rollout came through in one of its attempts, all that it followed included."""
        attempts: dict[tuple[str, ...], list[bool]] = {}
        troubled: set[Episode] = set()
        for episode, number, trouble in self.seen:
            if trouble:
                troubled.add(episode)
            codes = tuple(step.code for step in episode.steps[: number + 1])
            if episode.task.id == task.id and len(attempts.setdefault(codes, [])) <= RETRIES:
                attempts[codes].append(episode not in troubled)
        codes = [split_action(turn.text)[1] for turn in rollout.turns]
        return all(any(attempts.get(tuple(codes[: number + 1]), [True])) for number in range(len(codes)))


def untouched(environment: FaultyEnvironment, task: Task, rollout: Rollout, before: Sequence[str] = ()) -> bool:
    """Whether every action of a rollout had a run without trouble, which its observation can be from.

    One that was killed in its last run is the policy's own doing, for all that anybody can know: its other runs were
    troubled too, or never came to it.
    """
    runs = environment.runs_of(task)
    codes = [split_action(text)[1] for text in before]
    for turn in rollout.turns:
        codes.append(split_action(turn.text)[1])
        ran = turn.status is not None and codes[-1].strip()
        met = runs.get(tuple(codes), ["infra"])
        if ran and "" not in met and met[-1] == "infra":
            return False
    return True
