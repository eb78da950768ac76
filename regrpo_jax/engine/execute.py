"""Near misses are really made: each in a fresh workspace, brought to the state before the step, and then repaired.

What is kept is what came back. A near miss that works after all is no failure, and a correction that does not get
the task done is no repair; both are refused with a reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from regrpo_jax.engine.answer_seen import answer_is_seen
from regrpo_jax.engine.cases import Failure, NearMiss, Situation
from regrpo_jax.engine.showing import Showing, Sight, picture_lines
from regrpo_jax.environments.answers import CheckKind
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.episode_result import Outcome
from regrpo_jax.environments.recovery import FAILURES
from regrpo_jax.records.execution import EXECUTED, RECORDED
from regrpo_jax.records.reasons import rule_of
from regrpo_jax.records.types import ErrorType, ImageReference, Observation, Status
from regrpo_jax.suites.toolrepair.plan import is_visual
from regrpo_jax.toolbox.failures import NOT_RECORDED

Check = Callable[[int, Observation, bool], None]  # (number of the step, what came back, is the episode over)
_TRIES = 3  # of an episode that the sandbox, not the action, let fail
# The right actions came to something else than where they were recorded: then recordings answer in the tools' place.
_OTHERWISE = frozenset(
    ["clean_step_fails", "earlier_step_fails", "repair_fails", "later_step_fails", "repair_unverified", "answer_unseen"]
)
_Made = TypeVar("_Made")
_Played = tuple[list[Observation], bool, Sight, list[set[bool | None]]]


class Refused(Exception):
    """Why a near miss does not become a record: "rule: sentence"."""


class _SandboxFailed(Exception):
    """The sandbox failed, which says nothing about the action."""


@dataclass(frozen=True)
class Shown:
    """What a clean trajectory came to. images: pictures that its actions made. recorded: actions whose calls recordings
    answered."""

    observations: tuple[Observation, ...]
    images: tuple[ImageReference, ...]
    recorded: frozenset[int]


def play_failure(
    environment: Environment, situation: Situation, near_miss: NearMiss, showing: Showing | None = None
) -> Failure:
    """Play the steps before, the near miss, the clean step and the rest in one episode.

    Where the clean steps do not come out with the tools of here, they are played with what was recorded of them. The
    near miss must fail by itself in either case, and not for want of a recording.

    Refused: the near miss does not fail, the clean step does not repair, or the episode cannot be played. UserError:
    the task does not fit the tools.
    """
    return _in_turn(situation, lambda chosen: _failure(environment, chosen, near_miss, showing))


def _in_turn(situation: Situation, play: Callable[[Situation], _Made]) -> _Made:
    """Play with the tools of here; where what is right does not come out, with recordings in their place."""
    try:
        return play(situation)
    except Refused as refusal:
        if situation.recorded is None or rule_of(str(refusal)) not in _OTHERWISE:
            raise
    return play(replace(situation, task=situation.recorded, recorded=None))


def _failure(environment: Environment, situation: Situation, near_miss: NearMiss, showing: Showing | None) -> Failure:
    index = situation.index
    turns = [step.turn() for step in situation.steps]
    turns.insert(index, near_miss.turn())
    kinds = ["before"] * index + ["failed", "corrected"] + ["after"] * (len(turns) - index - 2)

    def check(position: int, observation: Observation, done: bool) -> None:
        last = position == len(turns) - 1
        _check_step(kinds[position], observation, done and not last, near_miss)

    observations, answered, sight, marks = _played(environment, situation, turns, check, showing)
    failed = observations[index]
    if NOT_RECORDED in failed.text:
        raise Refused("near_miss_unrecorded: a tool that is not here has no recorded answer, which is no failure of it")
    if False in marks[index]:
        raise Refused("not_recorded: it calls a tool that is not here in another way than was recorded")
    shown, better = sight.pictures[index], sight.pictures[index + 1]
    same = sight.told_apart[index] == sight.told_apart[index + 1]
    if failed.status == Status.OK and same and failed.text.strip():
        raise Refused("near_miss_succeeds: it returned what the right action returns")
    seen = {picture.words for picture in shown} - {picture.words for picture in better}
    if failed.status == Status.OK and near_miss.error_type != ErrorType.NON_COMMIT and not (seen and better):
        raise Refused("near_miss_is_silent: no status and no picture tells that it failed, so that no gate would open")
    _check_answer(situation, observations, answered, skip=index)
    lines = picture_lines(tuple(picture for picture in shown if picture.words in seen or failed.status != Status.OK))
    recorded = _recorded(marks)
    kind = RECORDED if recorded else EXECUTED
    return Failure(
        situation, near_miss, tuple(observations), answered, kind, tuple(sight.images), lines, frozenset(recorded)
    )


def play_clean(environment: Environment, situation: Situation) -> tuple[Observation, ...]:
    """The observations of the clean trajectory. Refused when it does not solve its task."""
    return play_shown(environment, situation, None).observations


def play_shown(environment: Environment, situation: Situation, showing: Showing | None) -> Shown:
    """`play_clean`, with the pictures that its actions made, and which of them recordings answered."""
    return _in_turn(situation, lambda chosen: _shown(environment, chosen, showing))


def _shown(environment: Environment, situation: Situation, showing: Showing | None) -> Shown:
    turns = [step.turn() for step in situation.steps]

    def check(position: int, observation: Observation, done: bool) -> None:
        if observation.status != Status.OK or (done and position < len(turns) - 1):
            raise Refused(f"clean_step_fails: step {position} of the clean trajectory is {observation.status}")

    observations, answered, sight, marks = _played(environment, situation, turns, check, showing)
    _check_answer(situation, observations, answered, skip=-1)
    return Shown(tuple(observations), tuple(sight.images), _recorded(marks))


def _recorded(marks: Sequence[Collection[bool | None]]) -> frozenset[int]:
    """The actions of which recordings answered a call."""
    return frozenset(at for at, of_action in enumerate(marks) if True in of_action)


def _check_step(kind: str, observation: Observation, ended: bool, near_miss: NearMiss) -> None:
    status = observation.status
    if kind == "before" and (status != Status.OK or ended):
        raise Refused(f"earlier_step_fails: a step before the near miss is {status}")
    if kind == "failed":
        if ended:
            raise Refused("near_miss_ends: it ended the episode, so that nothing can be repaired")
        if status not in FAILURES and status != Status.OK:
            raise Refused(f"near_miss_status: its status is {status}")
        if status != Status.OK and near_miss.error_type == ErrorType.NON_COMMIT and near_miss.hint is None:
            raise Refused("non_commit_fails: leaving the answer open must not be an error of the code as well")
    if kind == "corrected" and status != Status.OK:
        raise Refused(f"repair_fails: the corrected action is {status} after the near miss")
    if kind == "after" and (status != Status.OK or ended):
        raise Refused(f"later_step_fails: a step after the repair is {status}")


def _check_answer(situation: Situation, observations: list[Observation], answered: bool, skip: int) -> None:
    """The episode ended with the right answer, and some tool really gave it, if it is a value that one can give."""
    if not answered:
        raise Refused("repair_unverified: the episode did not end with the right answer")
    task = situation.task
    if task.checker.kind == CheckKind.FUNCTION or task.in_a_world or is_visual(task):
        return
    seen = [observation.text for at, observation in enumerate(observations) if at != skip]
    code = [step.code for step in situation.steps]
    if len(situation.steps) > 1 and not answer_is_seen(
        task.checker.values, seen, situation.instruction, code, situation.tools
    ):
        raise Refused("answer_unseen: no observation of the trajectory holds the answer, or its parts")


def _played(
    environment: Environment, situation: Situation, turns: Sequence[str], check: Check, showing: Showing | None
) -> _Played:
    for _ in range(_TRIES):
        try:
            return _played_once(environment, situation, turns, check, showing)
        except _SandboxFailed as error:
            reason = str(error)
    raise Refused(f"infra_error: the sandbox failed {_TRIES} times: {reason}")


def _played_once(
    environment: Environment, situation: Situation, turns: Sequence[str], check: Check, showing: Showing | None
) -> _Played:
    observations, marks = list[Observation](), list[set[bool | None]]()
    sight = Sight(showing, situation.task, situation.instruction)
    with environment.reset(situation.task) as episode:
        for position, turn in enumerate(turns):
            observation = episode.step(turn)
            if observation.status == Status.INFRA_ERROR or episode.outcome == Outcome.INFRA_ERROR:
                raise _SandboxFailed(observation.text)
            observations.append(sight.seen(episode, observation))
            marks.append({run.recorded for run in episode.tool_runs[-1]})
            check(position, observation, episode.done)
        return observations, episode.success, sight, marks
