"""Groups of episodes, all together: turns are written for many at once, and their actions run beside one another.

    groups, counts = collect_groups(environment, policy, states, settings, seed=update)

Without `patience` all wait for the slowest action, and the same seed gives the same rollouts, however many workers the
sandbox has. With it an action that takes longer holds back its own episode alone. Each episode still draws from its own
random numbers, but with whom it is computed depends on the clock then, and so do the last digits of its log-probs. A
journal hears of each episode as it ends, so that what was played is safe before the last one has.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from smolagents.tools import Tool

from regrpo_jax.agent.loop import EpisodeLoop, Move, Played
from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.policy import Branch, EpisodePrompt, Policy, PolicyError, Session, WriteRequest
from regrpo_jax.agent.prompt import instruction_text, observation_text, placeholders, system_text
from regrpo_jax.agent.rollout import Rollout, RolloutGroup, check_rollout
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.records.types import ImageReference, Turn
from regrpo_jax.rollouts.shared_play import Action, Node, OracleFailed, SharedPlay, expected_observations
from regrpo_jax.rollouts.states import TaskState

Expected = MutableMapping[str, tuple[str, ...] | None]  # task id -> see `expected_observations`


@dataclass(frozen=True)
class CollectSettings:
    """loop: rules of an episode. branches: episodes of a group. tools: all that are loaded, by name; those of a task
    stand in the first turn of its conversations; brief, system: how, see `agent.prompt.system_text`. image_folder:
    where the tasks' pictures are kept as files, under their SHA-256. turn_seconds: that the environment may need for
    one action; the sandbox ends every action long before, so only a fault of ours takes so long. seconds: that all
    actions of the collection may take together, then it is broken off; None for any time. Sampling, and the
    compilation that comes with it, is not counted. patience: seconds in which no action
    ends, then episodes go on without those that still run.
    """

    loop: LoopSettings
    branches: int
    tools: Mapping[str, Tool]
    brief: bool
    image_folder: Path
    turn_seconds: float = 600.0
    seconds: float | None = None
    patience: float | None = None
    system: str = ""

    def system_text(self, task: Task) -> str:
        """The first turn of a task's conversations."""
        return system_text(task.tools, self.tools, brief=self.brief, template=self.system)


class Journal(Protocol):
    """What is told of a collection while it goes on."""

    def begun(self, group: RolloutGroup, planned: int) -> None:
        """A group is about to be played; it has none of its `planned` rollouts yet."""

    def finished(self, rollout: Rollout) -> None:
        """An episode has ended, dropped ones included; its books are checked."""


@dataclass
class Counts:
    """What a collection was made of. seconds: by part. actions: that branches asked for; runs: that were really run,
    because branches which do the same share an episode. refused: states that could not be started, with why."""

    episodes: int = 0
    dropped: int = 0
    actions: int = 0
    runs: int = 0
    retried: int = 0
    sampled_tokens: int = 0
    refused: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


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
    drop a rollout: it is in its group and counted, but never trains. UserError when no state can be started, or the
    actions took longer than `settings.seconds`: to drop the episodes that still run would favour the short ones, and
    make what is learnt depend on the speed of the machine.
    """
    known = [state if isinstance(state, TaskState) else TaskState(state) for state in states]
    counts = Counts()
    with SharedPlay(environment, [state.task for state in known], seconds=settings.turn_seconds) as play:
        collection = _Collection(play, policy, known, settings, seed, first_group, counts, journal)
        collection.prepare({} if expected is None else expected)
        collection.play_all()
        counts.actions, counts.runs, counts.retried = play.asked, play.runs, play.retried
        return collection.groups(), counts


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
    ) -> None:
        self._play, self._policy, self._states, self._settings = play, policy, states, settings
        self._seed, self._first_group, self._counts, self._journal = seed, first_group, counts, journal
        self._started: list[int] = []  # numbers of the states that were, in the order of the session's groups
        self._images: list[tuple[ImageReference, ...]] = []
        self._empty: list[RolloutGroup] = []  # the groups without their rollouts
        self._loops: dict[Branch, EpisodeLoop] = {}
        self._histories: dict[Branch, list[str]] = {}
        self._playing: dict[Branch, tuple[Node, str]] = {}  # whose action is under way, and the turn that it is of
        self._rollouts: dict[Branch, Rollout] = {}  # of the episodes that have ended
        self._session: Session

    def prepare(self, expected: Expected) -> None:
        """Plays what comes before, and what the oracles expect; begins the session."""
        begun = time.monotonic()
        self._ask_oracles(expected)
        prompts = []
        for number, earlier in enumerate(self._earlier()):
            state = self._states[number]
            if earlier is None or state.task.id not in expected:
                continue
            images = _image_files(state.task, self._settings.image_folder)
            prompts.append(EpisodePrompt(self._turns(state, earlier), images, self._first_group + number))
            self._images.append(images)
            for branch in range(self._settings.branches):
                loop = EpisodeLoop(self._settings.loop, expected[state.task.id])
                for text, played in zip(state.before, earlier, strict=True):
                    loop.replayed(text, played)
                self._loops[len(self._started), branch] = loop
                self._histories[len(self._started), branch] = list(state.before)
            self._started.append(number)
        if not prompts:
            raise UserError(f"no state can be started: {'; '.join(self._counts.refused[:3])}")
        try:
            self._session = self._policy.start(prompts, self._settings.branches, self._seed)
        except PolicyError as error:
            raise UserError(str(error)) from error
        self._empty = [self._empty_group(place) for place in range(len(self._started))]
        if self._journal is not None:
            for group in self._empty:
                self._journal.begun(group, self._settings.branches)
        self._spent("prepare", begun)

    def _ask_oracles(self, expected: Expected) -> None:
        unknown = [number for number, state in enumerate(self._states) if state.task.id not in expected]
        if not unknown:
            return
        tasks = [state.task for state in self._states]
        for number, texts in expected_observations(self._play, tasks, unknown).items():
            if isinstance(texts, OracleFailed):
                self._counts.refused.append(str(texts))
            else:
                expected[tasks[number].id] = texts

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

    def _turns(self, state: TaskState, earlier: Sequence[Played]) -> tuple[Turn, ...]:
        turns = [
            Turn("system", self._settings.system_text(state.task)),
            Turn("user", instruction_text(state.task.instruction, state.task.images)),
        ]
        for number, (text, played) in enumerate(zip(state.before, earlier, strict=True)):
            turns += [Turn("assistant", text), Turn("user", observation_text(number, played.text))]
        return tuple(turns)

    def play_all(self) -> None:
        """Rounds of writing, acting and observing until no episode is left."""
        while live := [branch for branch, loop in self._loops.items() if not loop.done]:
            self._check_time(len(live))
            self._round(live)

    def _check_time(self, live: int) -> None:
        taken, allowed = self._counts.seconds.get("act", 0.0), self._settings.seconds
        if allowed and taken > allowed:
            raise UserError(
                f"the actions of this collection have taken {taken:.0f} seconds, {live} of {len(self._loops)} episodes "
                f"are not over; config.online.collect_seconds={allowed:g} allows no more: raise it, or set it to None"
            )

    def _round(self, live: Sequence[Branch]) -> None:
        loops = self._loops
        begun = time.monotonic()
        writing = [branch for branch in live if branch not in self._playing]
        requests = [WriteRequest(branch, loops[branch].opening(), loops[branch].budget) for branch in writing]
        turns = self._session.write(requests)
        self._counts.sampled_tokens += sum(len(turn.tokens) for turn in turns)
        begun = self._spent("write", begun)
        moved = set()
        for branch, turn in zip(writing, turns, strict=True):
            if loops[branch].write_down(turn) is Move.PLAY:
                action = Action(self._started[branch[0]], tuple(self._histories[branch]), turn.text)
                self._playing[branch] = self._play.begin(action), turn.text
            else:
                moved.add(branch)
        begun = self._spent("books", begun)
        moved |= self._observed()
        begun = self._spent("act", begun)
        going_on = [branch for branch in live if branch in moved and not loops[branch].done]
        told = self._session.observe([(branch, loops[branch].user_text()) for branch in going_on])
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
            partial = path.with_name(f"{path.name}.partial")
            partial.write_bytes(file.content)
            partial.replace(path)
        found.append(ImageReference(placeholder, str(path)))
    return tuple(found)
