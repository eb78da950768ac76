"""One episode: a task, played turn by turn until it is answered or its budget is used up.

An episode holds a worker of the sandbox only while it needs one. It can be parked between two turns and brought
back by running its earlier actions again: the same actions give the same observations, and what tools of the host
answered is on a tape, so these are asked once. So more episodes may be open than there are workers, and one whose
worker is lost with its machine is brought back in another one, where its action runs again. An action that does
not repeat itself (threads, process ids) is no reason to drop an episode: what the policy saw stands.
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

from regrpo_jax.agent.prompt import instruction_text
from regrpo_jax.environments.answers import CheckKind, check_answer
from regrpo_jax.environments.episode_result import EpisodeLimits, EpisodeResult, Outcome
from regrpo_jax.environments.faults import FaultKind
from regrpo_jax.environments.own_check import own_check
from regrpo_jax.environments.soft_faults import seconds as slow_seconds
from regrpo_jax.environments.task import Task
from regrpo_jax.environments.tool_faults import APPLY, settings_for, timeout_words
from regrpo_jax.environments.workspace import Workspace, action_seed
from regrpo_jax.errors import UserError
from regrpo_jax.records.actions import FINAL_ANSWER, extract_tool_calls, split_action
from regrpo_jax.records.reflection import parse_reflection
from regrpo_jax.records.types import Observation, Status, Step
from regrpo_jax.sandbox.results import ActionResult, SandboxError, Tape, TooLarge, ToolRun, WorkerLost
from regrpo_jax.toolbox.observation import truncate

NO_CODE = (
    "No code was found in this turn. Write a thought, then one fenced block of Python that calls tools:\n"
    "Thought: what to do and why\n\nCode:\n```py\nresult = tool(...)\nprint(result)\n```\n"
    "End the task with final_answer(...)."
)
_MOST_OPENINGS = 3
_MOST_LOSSES = 10  # of workers, in one turn


class Session(Protocol):
    """An open episode of a sandbox: `SandboxSession`, which says what each of these does."""

    def run(self, code: str, tape: Tape | None = None) -> ActionResult: ...
    def read_file(self, name: str, most_bytes: int | None = None) -> bytes: ...
    def files(self) -> dict[str, str]: ...
    def break_off(self) -> None: ...
    def close(self) -> None: ...


class Places(Protocol):
    """Where an episode gets a place to act from: `Environment`, which says what each of these does."""

    limits: EpisodeLimits

    def open_session(self, episode: Episode) -> Session: ...
    def place_for(self, episode: Episode) -> AbstractContextManager[None]: ...
    def leave(self, episode: Episode) -> None: ...


class Episode:
    """Made by `Environment.reset`; used by one thread at a time.

    seed: of the actions' random numbers, `action_seed` if None. Neither the task's own seed nor its id, which holds it,
    ever goes where actions run.
    """

    def __init__(self, environment: Places, task: Task, seed: int | None = None) -> None:
        self.environment, self.task = environment, task
        self.limits = environment.limits
        self.outcome = Outcome.RUNNING
        self.answer: Any = None
        self.steps: list[Step] = []
        self.tool_runs: list[tuple[ToolRun, ...]] = []
        self.images: dict[tuple[int, str], bytes] = {}
        self.error = ""
        self.seconds = 0.0
        self.followups = 0  # further messages of the user that have come
        self.asked_again = False  # whether the last turn brought one
        self._first_step = 0  # of those after the last message of the user
        self._checked = False  # what a check of the person's own says
        self.killed_in = ""  # the tool at whose work the last action was killed, if no fault of the task says why
        self.tape = Tape()  # of the next turn; one that was played before, after the same turns, brings its own
        self.differed = 0  # repetitions of actions, to bring the episode back, that came to something else
        self._workspace = Workspace.of(task)
        self.seed = action_seed(task.instruction, self._workspace.files) if seed is None else seed
        self._settings = settings_for(task.tools_after(len(task.followups)), task.faults)
        self._calls: Counter[str] = Counter()  # all calls of a tool so far
        self._since_start: list[tuple[str, ActionResult, Tape]] = []  # of the processes that now run, or are parked
        self._session: Session | None = None
        self._given_up = ""
        self._lock = threading.Lock()

    def __enter__(self) -> Episode:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    @property
    def done(self) -> bool:
        return self.outcome != Outcome.RUNNING

    @property
    def success(self) -> bool:
        """Whether the task was answered, and rightly."""
        checker = self.task.checker
        right = self._checked if checker.kind == CheckKind.FUNCTION else check_answer(checker, self.answer)
        return self.outcome == Outcome.ANSWERED and right

    @property
    def result(self) -> EpisodeResult:
        """What was played so far; of an episode that was given up, an infra error."""
        given_up = bool(self._given_up) and not self.done
        return EpisodeResult(
            task=self.task,
            outcome=Outcome.INFRA_ERROR if given_up else self.outcome,
            answer=self.answer,
            success=self.success,
            steps=tuple(self.steps),
            images=dict(self.images),
            tool_runs=tuple(self.tool_runs),
            error=self._given_up if given_up else self.error,
            seconds=self.seconds,
        )

    @property
    def actions_due(self) -> int:
        """How many actions the next turn may run: its own, after those that bring a parked episode back."""
        return 1 + len(self._since_start)

    def image(self, name: str) -> bytes:
        """The newest content of an image that an observation named, or of a file of the task. KeyError."""
        for (_, known), content in reversed(self.images.items()):
            if known == name:
                return content
        return self._workspace.files[name]

    def step(self, text: str) -> Observation:
        """Play one turn of the assistant (a reflection if any, a thought, a fenced code block).

        Never raises for what the turn or its code does. UserError when the episode is over, or the task itself does
        not fit the tools (a fault of a tool that is not there).
        """
        with self._lock:
            if self.done:
                raise UserError(f"the episode of task {self.task.id} is over ({self.outcome}); reset it")
            thought, code = split_action(text)
            self.asked_again = False
            tape, self.tape = self.tape, Tape()
            result, observation = self._observed(code, tape)
            tools = self.task.tools_after(len(self.task.followups))
            known = frozenset(tools) | {FINAL_ANSWER} if tools else None
            self.steps.append(
                Step(
                    index=len(self.steps),
                    thought=thought,
                    code=code,
                    tool_calls=extract_tool_calls(code, known),
                    observation=observation,
                    reflection=parse_reflection(text),
                    text=text,
                )
            )
            self.tool_runs.append(result.tool_calls)
            self._first_step = len(self.steps) if self.asked_again else self._first_step
            self._move_on(result)
        if self.done:
            self.close()
        return observation

    def _observed(self, code: str, tape: Tape) -> tuple[ActionResult, Observation]:
        self.killed_in = ""
        if not code.strip():
            return self._told(ActionResult(Status.INVALID_ACTION, NO_CODE, size=len(NO_CODE)))
        if self.seconds >= self.limits.seconds:
            self.outcome = Outcome.OUT_OF_TIME
            words = f"The {self.limits.seconds:g} seconds of this episode are used up."
            return self._told(ActionResult(Status.TIMEOUT, words, size=len(words)))
        try:
            return self._settled(code, tape)
        except SandboxError as error:
            return self._told(ActionResult(Status.INFRA_ERROR, f"the sandbox failed: {error}"))

    def _settled(self, code: str, tape: Tape) -> tuple[ActionResult, Observation]:
        """What came of the action, in another worker as often as one is lost meanwhile. SandboxError."""
        result: ActionResult | None = None
        for losses in range(_MOST_LOSSES + 1):
            try:
                with self.environment.place_for(self):
                    result = self._run(code, tape) if result is None else result
                    return self._told(*self._seen(result))
            except WorkerLost:
                if losses == _MOST_LOSSES or self._given_up:
                    raise
                self.environment.leave(self)
        raise AssertionError("unreachable")

    def _seen(self, result: ActionResult) -> tuple[ActionResult, tuple[str, ...]]:
        """What is taken from the workspace after the action, while it is as the action left it."""
        asks = result.ended and self.task.checker.kind == CheckKind.FUNCTION
        if self._session is None and (result.images or asks):  # it was lost after the action
            self._brought_back()
        kept = self._kept_images(result)
        if asks and self._session is not None:
            checker, calls = self.task.checker, (run for runs in (*self.tool_runs, result.tool_calls) for run in runs)
            told = (str(checker.value), result.final_answer, self._session, checker.expected, tuple(calls))
            self._checked = own_check(*told)
        return kept

    def _told(self, result: ActionResult, images: tuple[str, ...] = ()) -> tuple[ActionResult, Observation]:
        text = truncate(result.text, self.limits.observation_characters)
        return result, Observation(result.status, text, images, elapsed=result.elapsed, size=result.size)

    def _run(self, code: str, tape: Tape) -> ActionResult:
        session = self._session or self._brought_back()
        if self._given_up:
            return ActionResult(Status.INFRA_ERROR, self._given_up)
        result = session.run(code, tape)
        self.seconds += result.elapsed
        if result.status == Status.INFRA_ERROR:
            return result
        self._calls += Counter(result.called)
        if result.killed:  # its processes are replaced: the next ones start from the input files
            self._settings["calls"] = dict(self._calls)
            self._since_start = []
            words = self._after_a_kill(result.called)
            self.killed_in = "" if words else result.working
            return self._with_text(result, words)
        self._since_start.append((code, result, tape))
        if result.status == Status.INVALID_ACTION and self.task.tools:
            tools = {*self.task.tools_after(self.followups), FINAL_ANSWER}
            return self._with_text(result, f"Tools: {', '.join(sorted(tools))}.")
        if result.ended and self.followups < len(self.task.followups):
            return self._asked_again(result)
        return result

    def _asked_again(self, result: ActionResult) -> ActionResult:
        """An answer that ends nothing: the user goes on."""
        words = instruction_text(self.task.followups[self.followups].text, ())
        self.followups, self.asked_again = self.followups + 1, True
        told = self._with_text(result, words) if result.text else self._with_text(result, words, "")
        return dataclasses.replace(told, ended=False, final_answer=None)

    @staticmethod
    def _with_text(result: ActionResult, words: str, mark: str = "\n") -> ActionResult:
        added = f"{mark}{words}" if words else ""
        return dataclasses.replace(result, text=result.text + added, size=result.size + len(added.encode()))

    def _after_a_kill(self, called: Collection[str]) -> str:
        """What the faulty tools would have told, had they not been killed."""
        found = []
        for fault in self.task.faults:
            if fault.target in called and fault.kind == FaultKind.TIMEOUT and fault.parameters.get("hangs"):
                found.append(timeout_words(fault))
            elif fault.target in called and fault.kind == FaultKind.SLOW_ANSWER:
                found.append(
                    f"{fault.target} needs {slow_seconds(fault):g} seconds; with quick=True it answers at once."
                )
        return "\n".join(found)

    def _brought_back(self) -> Session:
        """A session in the state that the episode was parked in, as far as its actions repeat. SandboxError."""
        for attempt in range(_MOST_OPENINGS):
            self._session = session = self._opened()
            again = [session.run(code, tape.finished()) for code, _, tape in self._since_start]
            lost = next((result for result in again if result.killed or result.status == Status.INFRA_ERROR), None)
            if lost is None:
                break
            if attempt + 1 < _MOST_OPENINGS:  # chance may not strike twice
                self.park()
            elif not lost.killed:
                raise SandboxError(f"the episode cannot be brought back: {lost.text}")
        self.differed += sum(result != before for result, (_, before, _) in zip(again, self._since_start, strict=True))
        return session

    def _opened(self) -> Session:
        """A new session. Nothing has run in it, so a worker that died while it was idle costs no more than another."""
        for _ in range(_MOST_OPENINGS - 1):
            with contextlib.suppress(SandboxError):
                return self.environment.open_session(self)
        return self.environment.open_session(self)

    def _kept_images(self, result: ActionResult) -> tuple[ActionResult, tuple[str, ...]]:
        """Fetch the images that the action wrote; what is too large is left out, and the observation says so."""
        names, too_large, found = [], [], {}
        kept = sum(map(len, self.images.values()))
        room = min(self.limits.step_image_bytes, self.limits.episode_image_bytes - kept)
        for name in result.images:
            try:
                content = self._session.read_file(name, min(room, self.limits.image_bytes)) if self._session else b""
            except TooLarge:
                too_large.append(name)
                continue
            except OSError:
                continue
            if content:
                found[len(self.steps), name] = content
                names.append(name)
                room -= len(content)
        self.images |= found
        words = f"(not shown, as there is no room for so large an image: {', '.join(too_large)})" if too_large else ""
        return self._with_text(result, words), tuple(names)

    def _move_on(self, result: ActionResult) -> None:
        if result.status == Status.INFRA_ERROR or self._given_up:
            self.outcome, self.error = Outcome.INFRA_ERROR, self._given_up or result.text
        elif result.ended:
            self.outcome, self.answer = Outcome.ANSWERED, result.final_answer
        elif not self.done and len(self.steps) - self._first_step >= self.limits.max_steps:
            self.outcome = Outcome.OUT_OF_STEPS

    def open_arguments(self) -> tuple[Mapping[str, bytes], int, str, dict[str, Any]]:
        """What the sandbox opens this episode with."""
        return self._workspace.files, self.seed, APPLY, self._settings

    @property
    def behind(self) -> Mapping[str, bytes]:
        """What the sandbox gives to the tools of this episode, and to nobody else."""
        return self._workspace.behind

    def park(self) -> None:
        """Give the worker back; the next turn brings the episode back."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def give_up(self, reason: str) -> None:
        """End the episode as an infra error, from any thread; a turn that is being played is broken off."""
        self._given_up = reason
        session = self._session
        if session is not None:
            session.break_off()
        if self._lock.acquire(blocking=False):
            try:
                if not self.done:
                    self.outcome, self.error = Outcome.INFRA_ERROR, reason
            finally:
                self._lock.release()
            self.close()

    def close(self) -> None:
        """Give the worker back. May be called again; what was played can still be read."""
        self.environment.leave(self)
