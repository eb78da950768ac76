"""Branches of one task that have done the same so far share one episode, until they differ.

The same actions give the same observations, which is also what parking an episode relies on. So an action that several
branches take after the same actions runs once, and a branch that goes another way gets an episode of its own, which
first does again what the branch has done. Tools of the host are not asked again: branches share the tape of the actions
that they share. Where a repetition comes to something else, what the branch saw stands.

Trouble of ours is tried again in a fresh episode, and so are two things that may be chance: a turn that takes much
longer than turns do, which would hold up all branches, and an action that was killed while a tool was at work. What
hung by chance is over in a moment then. A kill at the last attempt is the policy's own, whatever was at work: it is a
`timeout` or a `tool_error` like any other, because a policy that can have its failures dropped would learn to.

Actions run beside one another, as many as there are workers; which of them others wait for is the caller's to decide.
Several threads may let actions run, and wait.
"""

from __future__ import annotations

import concurrent.futures
import hashlib
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from regrpo_jax.agent.loop import Played
from regrpo_jax.agent.shown_pictures import NO_PICTURES, PictureLimits, shown_pictures
from regrpo_jax.environments.answers import answer_text
from regrpo_jax.environments.batch import step_episodes
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.episode_result import Outcome
from regrpo_jax.environments.task import Task
from regrpo_jax.records.actions import FINAL_ANSWER, split_action
from regrpo_jax.records.types import Observation, Status
from regrpo_jax.sandbox.results import Tape

History = tuple[str, ...]  # codes, in the order in which they ran
Node = tuple[int, History]  # number of the task, and what was done in it


@dataclass(frozen=True)
class Action:
    """A turn that a branch takes in a task after the turns of `before`."""

    task: int
    before: tuple[str, ...]
    turn: str

    @property
    def node(self) -> Node:
        """What it leads to; what the turns say beside their code is no difference."""
        return self.task, tuple(split_action(turn)[1] for turn in (*self.before, self.turn))


class ResumedEpisode(Episode):
    """An episode that does again what another one did before it takes a turn of its own.

    before: of each earlier turn its text, what came of it, and its tape.
    """

    def __init__(self, environment: Environment, task: Task, before: Sequence[tuple[str, Played, Tape]]) -> None:
        super().__init__(environment, task)
        self._before = list(before)

    @property
    def actions_due(self) -> int:
        return super().actions_due + len(self._before)

    def step(self, text: str) -> Observation:
        """As `Episode.step`. An earlier turn that now comes to something else is counted in `differed`.

        One that is killed now while a tool is at work, and was not before, counts as a kill of this turn.
        """
        tape, killed_in = self.tape, ""
        while self._before:
            turn, expected, known = self._before.pop(0)
            self.tape = known.finished()
            found = super().step(turn)
            if self.outcome == Outcome.INFRA_ERROR:
                return Observation(Status.INFRA_ERROR, self.error)
            if self.done or (found.status, found.text) != (expected.status, expected.text):
                self.differed += 1
                killed_in = killed_in or self.killed_in
                self.outcome, self.answer = Outcome.RUNNING, None  # as the branch saw it
                self.followups += expected.asked_again - self.asked_again
        self.tape = tape
        observation = super().step(text)
        self.killed_in = self.killed_in or killed_in
        return observation


class SharedPlay:
    """Plays the actions of many branches over some tasks.

    seconds: of one action at the last attempt; an episode that is late is given up as an infra error, so this is far
    above what the sandbox lets an action take. retries: after an infra error. hurried: others wait for an action, so
    that one which takes much longer than actions do is tried again soon; if it holds back nobody else, it is waited
    for. pictures: which of those that an action
    made are shown; image_folder: where, needed if any is. runs: actions that were really run; asked: actions that were
    asked for.
    """

    def __init__(
        self,
        environment: Environment,
        tasks: Sequence[Task],
        *,
        seconds: float = 600.0,
        retries: int = 3,
        hurried: bool = True,
        pictures: PictureLimits = NO_PICTURES,
        image_folder: Path = Path(),
    ) -> None:
        self._environment, self._tasks = environment, tasks
        self._pictures, self._image_folder = pictures, image_folder
        self._seconds, self._retries, self._hurried = seconds, retries, hurried
        self._played: dict[Node, Played] = {}
        self._tapes: dict[Node, Tape] = {}
        self._episodes: dict[Node, Episode] = {}  # where each open episode stands
        self._under_way: dict[Node, Future[Played]] = {}
        self._running: set[Episode] = set()
        self._books = threading.RLock()  # of what the threads change
        self._threads = ThreadPoolExecutor(environment.pool.settings.workers, thread_name_prefix="play")
        self._closed = False
        self.runs = self.asked = self.retried = 0

    def __enter__(self) -> SharedPlay:
        return self

    def __exit__(self, *unused: object) -> None:
        self._closed = True
        self._threads.shutdown(wait=False, cancel_futures=True)
        with self._books:
            for future in self._under_way.values():
                if future.cancelled():
                    future.set_running_or_notify_cancel()  # else who waits for it waits for ever
            left = [*self._episodes.values(), *self._running]
        for episode in left:
            episode.close()

    def play(self, actions: Sequence[Action]) -> list[Played]:
        """What comes of each action; the same for the same node, however often it is asked for."""
        nodes = [self.begin(action) for action in actions]
        over = self.wait(nodes)
        return [over[node] for node in nodes]

    def begin(self, action: Action) -> Node:
        """Lets an action run, if it neither has nor does; `wait` tells what came of it."""
        node = action.node
        with self._books:
            self.asked += 1
            if node not in self._played and node not in self._under_way:
                episode = self._episode(action, fresh=False)
                self._under_way[node] = self._threads.submit(self._settled, action, episode)
        return node

    def wait(self, nodes: Iterable[Node], patience: float | None = None) -> dict[Node, Played]:
        """What came of actions that were begun: of all, or of one and those that are over before nothing ends for long.

        Args:
          patience: seconds in which no action ends, then the others are not waited for; None for any time.
        """
        asked = set(nodes)
        with self._books:
            waiting = {self._under_way[node]: node for node in asked if node in self._under_way}
        running, over = set(waiting), set[Future[Played]]()
        while running:
            any_time = patience is None or (not over and len(waiting) == len(asked))
            ended, running = concurrent.futures.wait(
                running, None if any_time else patience, return_when=concurrent.futures.FIRST_COMPLETED
            )
            over |= ended
            if not ended:
                break
        with self._books:
            for future in over:
                self._played[waiting[future]] = future.result()
                self._under_way.pop(waiting[future], None)  # another thread may have waited for it too
            return {node: self._played[node] for node in asked if node in self._played}

    def _settled(self, action: Action, episode: Episode) -> Played:
        """What came of an action at its last attempt."""
        for attempt in range(self._retries + 1):
            if attempt:
                episode = self._episode(action, fresh=True)
            played = self._attempt(action, episode, attempt)
            if played.status != Status.INFRA_ERROR or attempt == self._retries or self._closed:
                break
            with self._books:
                self.retried += 1
        return played

    def _attempt(self, action: Action, episode: Episode, attempt: int) -> Played:
        seconds, node = self._seconds, action.node
        if self._hurried and attempt < self._retries:
            seconds = min(seconds, self._environment.pace.patience * 4**attempt)
        with self._books:
            self._running.add(episode)
            episode.tape = self._tapes.setdefault(node, Tape())
            self.runs += 1
        (observation,) = step_episodes(self._environment, [episode], [action.turn], seconds=seconds, threads=1)
        if episode.killed_in and attempt < self._retries:
            reason = f"an action was killed while {episode.killed_in} was at work"
            episode.give_up(reason)
            observation = Observation(Status.INFRA_ERROR, reason)
        with self._books:
            self._running.discard(episode)
            if not episode.done:
                self._episodes[node] = episode
        return self._with_pictures(action, episode, _played(episode, observation), observation.images)

    def _with_pictures(self, action: Action, episode: Episode, played: Played, names: Sequence[str]) -> Played:
        """What came of an action with the pictures that it made, as they are shown."""
        if not names or played.status == Status.INFRA_ERROR:
            return played
        with self._books:
            before = sum(len(self._played[node].pictures) for node in _earlier_nodes(action))
        made = [(name, episode.images[len(episode.steps) - 1, name]) for name in names]
        pictures, note = shown_pictures(made, self._pictures, self._image_folder, before)
        digests = tuple((name, hashlib.sha256(content).hexdigest()) for name, content in made)
        return replace(played, pictures=pictures, note=note, made=digests)

    def _episode(self, action: Action, *, fresh: bool) -> Episode:
        """The one that stands where the action begins, or a new one."""
        task, codes = action.node
        with self._books:
            stands = None if fresh else self._episodes.pop((task, codes[:-1]), None)
        if stands is not None:
            return stands
        earlier = zip(action.before, _earlier_nodes(action), strict=True)
        before = [(turn, self._played[node], self._tapes.get(node, Tape())) for turn, node in earlier]
        return ResumedEpisode(self._environment, self._tasks[task], before)


def _earlier_nodes(action: Action) -> list[Node]:
    task, codes = action.node
    return [(task, codes[: number + 1]) for number in range(len(action.before))]


def _played(episode: Episode, observation: Observation) -> Played:
    ended = episode.outcome if episode.done else ""
    if observation.status == Status.INFRA_ERROR:
        error = episode.result.error or observation.text
        return Played(Status.INFRA_ERROR, observation.text, "infra_error", error=error)
    runs = episode.tool_runs[-1] if episode.tool_runs else ()
    return Played(
        status=observation.status,
        text=observation.text,
        outcome=str(ended),
        success=episode.success,
        tool_calls=sum(run.name != FINAL_ANSWER for run in runs),
        calls=runs,
        answer=answer_text(episode.answer) if episode.outcome == Outcome.ANSWERED else "",
        asked_again=episode.asked_again,
    )


class OracleFailed(Exception):
    """What a task asks for cannot be known: its oracle met trouble of ours, or does not solve it."""


def expected_observations(
    play: SharedPlay, tasks: Sequence[Task], numbers: Sequence[int]
) -> dict[int, tuple[str, ...] | OracleFailed | None]:
    """What a perfect agent sees at each step but the last, for the tasks of these numbers.

    They are the oracle's observations without those of its planned failures. None for a task without an oracle, or one
    whose oracle goes one of many ways.
    """
    seen: dict[int, list[Played]] = {number: [] for number in numbers if tasks[number].judges_steps}
    under_way: dict[Node, int] = {}

    def go_on(number: int) -> None:
        if _goes_on(seen[number], tasks[number]):
            turns = [step.turn() for step in tasks[number].oracle[: len(seen[number]) + 1]]
            under_way[play.begin(Action(number, tuple(turns[:-1]), turns[-1]))] = number

    for number in seen:
        go_on(number)
    while under_way:  # each task goes on as soon as it can
        for node, played in play.wait(under_way, patience=0.0).items():
            number = under_way.pop(node)
            seen[number].append(played)
            go_on(number)
    unknown = dict.fromkeys(number for number in numbers if number not in seen)
    return unknown | {number: _right_observations(found, tasks[number]) for number, found in seen.items()}


def _goes_on(found: Sequence[Played], task: Task) -> bool:
    return len(found) < len(task.oracle) and not (found and found[-1].outcome)


def _right_observations(found: Sequence[Played], task: Task) -> tuple[str, ...] | OracleFailed | None:
    last = found[-1]
    if not last.success or len(found) != len(task.oracle):
        return OracleFailed(f"the oracle of task {task.id} ended with {last.outcome or last.status}: {last.error}")
    return tuple(one.seen for one, step in zip(found, task.oracle, strict=True) if not step.fails)[:-1]
