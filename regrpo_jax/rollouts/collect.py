"""Groups of episodes, all together: turns are written for many at once, and their actions run beside one another.

    groups, counts = collect_groups(environment, policy, states, settings, seed=update)

Without `patience` all wait for the slowest action, and the same seed gives the same rollouts, however many workers the
sandbox has. With it an action that takes longer holds back its own episode alone. Each episode still draws from its own
random numbers, but with whom it is computed depends on the clock then, and so do the last digits of its log-probs. A
journal hears of each episode as it ends, so that what was played is safe before the last one has.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from regrpo_jax.agent.loop import EpisodeLoop, Move, Played
from regrpo_jax.agent.policy import Branch, EpisodePrompt, Policy, PolicyError, Session, Told, WriteRequest
from regrpo_jax.agent.prompt import instruction_text, placeholders
from regrpo_jax.agent.rollout import Rollout, RolloutGroup, check_rollout
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.hosts.role import role
from regrpo_jax.records.types import ImageReference, Turn
from regrpo_jax.rollouts.collect_settings import CollectSettings, Counts, Expected, Journal
from regrpo_jax.rollouts.shared_play import Action, Node, OracleFailed, SharedPlay, expected_observations
from regrpo_jax.rollouts.states import TaskState


def collect_groups(
    environment: Environment,
    policy: Policy,
    states: Sequence[Task | TaskState],
    settings: CollectSettings,
    *,
    seed: int,
    first_group: int = 0,
    expected: Expected | None = None,
    journal: Journal | None = None,
) -> tuple[list[RolloutGroup], Counts]:
    """One group of `settings.branches` episodes from each state that can be started.

    seed: of the sampling; each group draws from it and its own number, counted from first_group. expected: kept
    between collections, so that no oracle plays twice. journal: told of every group and rollout at once. Infra errors
    drop a rollout: it is in its group and counted, but never trains. CannotBegin when no state can be started, or the
    conversation of one is no prompt. UserError when the actions took longer than `settings.seconds`: to drop the
    episodes that still run would favour the short ones, and make what is learnt depend on the speed of the machine.
    """
    known = [state if isinstance(state, TaskState) else TaskState(state) for state in states]
    counts = Counts()
    with (
        ThreadPoolExecutor(1, thread_name_prefix="oracles") as aside,
        SharedPlay(
            environment,
            [state.task for state in known],
            seconds=settings.turn_seconds,
            hurried=settings.patience is None,
            pictures=settings.pictures,
            image_folder=settings.image_folder,
        ) as play,
    ):
        collection = _Collection(play, policy, known, settings, seed, first_group, counts, journal, aside)
        collection.prepare({} if expected is None else expected)
        collection.play_all()
        counts.actions, counts.runs, counts.retried = play.asked, play.runs, play.retried
        return collection.groups(), counts


class CannotBegin(UserError):
    """A state that cannot be started: its conversation is no prompt for the policy, or what comes before it failed."""


class _Collection:
    """The episodes of one call, by the number of their state and of their branch."""

    def __init__(
        self,
        play: SharedPlay,
        policy: Policy,
        states: Sequence[TaskState],
        settings: CollectSettings,
        seed: int,
        first_group: int,
        counts: Counts,
        journal: Journal | None,
        aside: ThreadPoolExecutor,
    ) -> None:
        self._play, self._policy, self._states, self._settings = play, policy, states, settings
        self._seed, self._first_group, self._counts, self._journal = seed, first_group, counts, journal
        self._aside = aside
        self._expected: Expected = {}
        self._started: list[int] = []  # numbers of the states that were, in the order of the session's groups
        self._images: list[tuple[ImageReference, ...]] = []
        self._empty: list[RolloutGroup] = []  # the groups without their rollouts
        self._loops: dict[Branch, EpisodeLoop] = {}
        self._histories: dict[Branch, list[str]] = {}
        self._playing: dict[Branch, tuple[Node, str]] = {}  # whose action is under way, and the turn that it is of
        self._rollouts: dict[Branch, Rollout] = {}  # of the episodes that have ended
        self._refused: set[int] = set()  # groups whose oracle failed
        self._oracles: Future[dict[int, tuple[str, ...] | OracleFailed | None]] | None = None
        self._session: Session

    def prepare(self, expected: Expected) -> None:
        """Plays what comes before, and begins the session; oracles go on until the first turns are written.

        Turns that come before are judged at once, so that these wait for their oracles.
        """
        begun = time.monotonic()
        self._expected = expected
        tasks = [state.task for state in self._states]
        if unknown := [number for number, task in enumerate(tasks) if task.id not in expected]:
            self._oracles = self._aside.submit(expected_observations, self._play, tasks, unknown)
        if any(state.before for state in self._states):
            self._hear_oracles()
        prompts = []
        for number, earlier in enumerate(self._earlier()):
            state = self._states[number]
            if earlier is None or (self._oracles is None and state.task.id not in expected):
                continue
            task_images = _image_files(state.task, self._settings.image_folder)
            asked = Told(instruction_text(state.task.instruction, state.task.images), task_images)
            told = [asked]
            for branch in range(self._settings.branches):
                loop = EpisodeLoop(self._settings.loop, expected.get(state.task.id), asked)
                replayed = [loop.replayed(text, played) for text, played in zip(state.before, earlier, strict=True)]
                told = [asked, *replayed]
                self._loops[len(self._started), branch] = loop
                self._histories[len(self._started), branch] = list(state.before)
            images = tuple(image for one in told for image in one.images)
            prompts.append(EpisodePrompt(self._turns(state, told), images, self._first_group + number))
            self._images.append(images)
            self._started.append(number)
        if not prompts:
            raise self._nothing_started()
        try:
            self._session = self._policy.start(prompts, self._settings.branches, self._seed)
        except PolicyError as error:
            raise CannotBegin(str(error)) from error
        self._empty = [self._empty_group(place) for place in range(len(self._started))]
        self._spent("prepare", begun)

    def _nothing_started(self) -> CannotBegin:
        return CannotBegin(f"no state can be started: {'; '.join(self._counts.refused[:3])}")

    def _hear_oracles(self) -> None:
        """Waits for the oracles, if they have not been heard."""
        if self._oracles is None:
            return
        asked, self._oracles = self._oracles, None
        for number, texts in asked.result().items():
            if isinstance(texts, OracleFailed):
                self._counts.refused.append(str(texts))
            else:
                self._expected[self._states[number].task.id] = texts

    def _begin_groups(self) -> None:
        """Before the first turns are judged: what is expected, without the groups of which nobody knows it."""
        self._hear_oracles()
        for place, group in enumerate(self._empty):
            branches = [(place, branch) for branch in range(self._settings.branches)]
            if group.task_id not in self._expected:
                self._refused.add(place)
                self._session.finish(branches)
                for branch in branches:
                    del self._loops[branch]
                continue
            for branch in branches if not self._states[self._started[place]].before else ():
                self._loops[branch].expect(self._expected[group.task_id])
            if self._journal is not None:
                self._journal.begun(group, self._settings.branches)
        if not self._loops:
            raise self._nothing_started()

    def _earlier(self) -> list[list[Played] | None]:
        """What came of the turns before the policy's own; None for a state that cannot be started."""
        found: list[list[Played] | None] = [[] for _ in self._states]
        for place in range(max((len(state.before) for state in self._states), default=0)):
            numbers = [
                number
                for number, state in enumerate(self._states)
                if found[number] is not None and place < len(state.before)
            ]
            actions = [
                Action(number, self._states[number].before[:place], self._states[number].before[place])
                for number in numbers
            ]
            for number, played in zip(numbers, self._play.play(actions), strict=True):
                before = found[number]
                assert before is not None
                before.append(played)
                if played.outcome:
                    found[number] = None
                    words = f"task {self._states[number].task.id} is over after the turns before: {played.outcome}"
                    self._counts.refused.append(f"{words} {played.error}".rstrip())
        return found

    def _turns(self, state: TaskState, told: Sequence[Told]) -> tuple[Turn, ...]:
        turns = [Turn("system", self._settings.system_text(state.task)), Turn("user", told[0].text)]
        for text, one in zip(state.before, told[1:], strict=True):
            turns += [Turn("assistant", text), Turn("user", one.text)]
        return tuple(turns)

    def play_all(self) -> None:
        """Rounds of writing, acting and observing until no episode is left."""
        first = True
        while live := [branch for branch, loop in self._loops.items() if not loop.done]:
            self._check_time(len(live))
            self._round(live, first)
            first = False

    def _check_time(self, live: int) -> None:
        taken, allowed = self._counts.seconds.get("act", 0.0), self._settings.seconds
        if allowed and taken > allowed:
            raise UserError(
                f"the actions of this collection have taken {taken:.0f} seconds, {live} of {len(self._loops)} episodes "
                f"are not over; config.online.collect_seconds={allowed:g} allows no more: raise it, or set it to None"
            )

    def _round(self, live: Sequence[Branch], first: bool) -> None:
        loops = self._loops
        begun = time.monotonic()
        writing = [branch for branch in live if branch not in self._playing]
        requests = [WriteRequest(branch, loops[branch].opening(), loops[branch].budget) for branch in writing]
        turns = self._session.write(requests)
        self._counts.sampled_tokens += sum(len(turn.tokens) for turn in turns)
        begun = self._spent("write", begun)
        if first:
            self._begin_groups()
            begun = self._spent("prepare", begun)
            live = [branch for branch in live if branch in loops]
        moved = set()
        for branch, turn in zip(writing, turns, strict=True):
            if branch[0] in self._refused:
                continue
            if loops[branch].write_down(turn) is Move.PLAY:
                action = Action(self._started[branch[0]], tuple(self._histories[branch]), turn.text)
                self._playing[branch] = self._play.begin(action), turn.text
            else:
                moved.add(branch)
        begun = self._spent("books", begun)
        moved |= self._observed()
        begun = self._spent("act", begun)
        going_on = [branch for branch in live if branch in moved and not loops[branch].done]
        told = self._session.observe([(branch, loops[branch].user_turn()) for branch in going_on])
        for branch, heard in zip(going_on, told, strict=True):
            loops[branch].heard(heard)
        self._finish([branch for branch in live if loops[branch].done])
        self._spent("observe", begun)

    def _observed(self) -> set[Branch]:
        """The branches whose actions are over, which they have been told."""
        if not self._playing:
            return set()
        over = self._play.wait((node for node, _ in self._playing.values()), self._settings.patience)
        back = {branch: text for branch, (node, text) in self._playing.items() if node in over}
        for branch, text in back.items():
            self._loops[branch].observed(over[self._playing.pop(branch)[0]])
            self._histories[branch].append(text)
        return set(back)

    def _finish(self, ended: Sequence[Branch]) -> None:
        """Closes the books of episodes and tells of them."""
        self._session.finish(ended)
        for branch in ended:
            group = self._empty[branch[0]]
            rollout = self._loops[branch].rollout(
                task_id=group.task_id,
                group=group.group,
                branch=branch[1],
                policy_version=self._policy.version,
                seed=self._seed,
            )
            check_rollout(rollout)
            self._rollouts[branch] = rollout
            self._counts.episodes += 1
            self._counts.dropped += rollout.dropped
            if self._journal is not None:
                self._journal.finished(rollout)

    def _empty_group(self, place: int) -> RolloutGroup:
        number = self._started[place]
        state, prefix = self._states[number], self._session.prefixes[place]
        return RolloutGroup(
            group=self._first_group + number,
            task_id=state.task.id,
            family=state.task.family,
            error_type=str(state.task.error_type or ""),
            prefix=prefix.tokens,
            positions=prefix.positions,
            images=prefix.images,
            image_files=self._images[place],
            rollouts=(),
            start=state.start,
            forced=state.forced,
        )

    def groups(self) -> list[RolloutGroup]:
        """All groups with all their rollouts, in the order of the branches."""
        return [
            replace(group, rollouts=tuple(self._rollouts[place, branch] for branch in range(self._settings.branches)))
            for place, group in enumerate(self._empty)
            if place not in self._refused
        ]

    def _spent(self, part: str, begun: float) -> float:
        now = time.monotonic()
        self._counts.seconds[part] = self._counts.seconds.get(part, 0.0) + now - begun
        return now


def _image_files(task: Task, folder: Path) -> tuple[ImageReference, ...]:
    """The pictures that the policy is shown, as files under their SHA-256."""
    contents = {file.name: file for file in task.files}
    found = []
    for placeholder, name in placeholders(task.images).items():
        file = contents[name]
        path = folder / f"{file.digest}{Path(name).suffix}"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f"{path.name}.{role().index}.partial")  # processes share the folder
            partial.write_bytes(file.content)
            partial.replace(path)
        found.append(ImageReference(placeholder, str(path)))
    return tuple(found)
