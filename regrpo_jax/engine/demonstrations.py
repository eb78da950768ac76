"""Demonstrations for a warm start: episodes of an agent that can do everything and does not always decide well.

Skills (copying a name, reading a picture, writing a call) are always shown right. Decisions are not: misleading hints
are followed, many repairs are hasty, half of the retries come without a reflection, some reflections are longer than
they need to be and some are needless. What a policy then lacks is what online training can give it. The observations
are those of the real tools.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from regrpo_jax.agent.policy import REFLECTION_OPENING
from regrpo_jax.agent.prompt import instruction_text, observation_text, placeholders, system_text
from regrpo_jax.agent.shown_pictures import PictureLimits
from regrpo_jax.engine.cases import CleanStep
from regrpo_jax.engine.drills import drills_of, seen_drills
from regrpo_jax.engine.shards import write_images, write_shards
from regrpo_jax.engine.showing import Showing, Sight, without_places
from regrpo_jax.engine.suite_source import FINAL_THOUGHT
from regrpo_jax.engine.tool_shapes import loaded_tools
from regrpo_jax.engine.writing import IMAGE_FOLDER, images_of
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.recovery import FAILURES
from regrpo_jax.environments.task import Task
from regrpo_jax.records.actions import FINAL_ANSWER
from regrpo_jax.records.reflection import render_reflection
from regrpo_jax.records.types import ImageReference, Observation
from regrpo_jax.sandbox.results import SandboxError
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import LOADERS, Attempt, Plan, Repair, make_suite, plan_of
from regrpo_jax.suites.toolrepair.plan import call, is_visual
from regrpo_jax.workers.settings import RaySettings

STEM = "demonstrations"
PROFILE = "compact"  # whose tasks name their tools, so that the system turn is one line
NO_ERROR = "None"  # the error type of a needless reflection; no record has it
RETRY_THOUGHT = "try again."
_QUOTED = re.compile(r'"([^"]*)"')
_SHARD_RECORDS = 5000
Script = Generator[str, Observation, None]


@dataclass(frozen=True)
class Habits:
    """How the demonstrating agent decides; each number is a probability.

    careful: that a repair is the right one, where a hasty one can be thought of. reflecting: that an episode's retries
    open with a reflection. long: that its reflections write down what leads to the fix. needless: that a reflecting
    episode also reflects on an observation that is fine. trusting: that a hint is followed without looking.

    diagnosis: where it says what went wrong, in a "reflection" block or in the "thought" before the retry. Decisions
    are the same in both; with "thought" every retry thinks, since there is no gate that could ask for it.
    """

    careful: float = 0.4
    reflecting: float = 0.5
    long: float = 0.5
    needless: float = 0.2
    trusting: float = 0.7
    diagnosis: str = "reflection"


@dataclass(frozen=True)
class Demonstration:
    """What was played: assistant turns, what came back after each but perhaps the last, and its pictures in order."""

    task: Task
    turns: tuple[str, ...]
    observations: tuple[Observation, ...]
    images: tuple[ImageReference, ...] = ()


def script_of(plan: Plan, rng: Random, habits: Habits, *, visual: bool = False) -> Script:
    """Yields the turns of a demonstration and is sent the observation of each.

    It ends after the answer, or after a repair that failed as well: from there on nothing is worth showing.

    Args:
      visual: failures are seen in pictures, not told by a status, and so is the answer.
    """
    careful, reflecting = rng.random() < habits.careful, rng.random() < habits.reflecting
    long, thinking = rng.random() < habits.long, habits.diagnosis == "thought"
    said, seen = "", None  # what the next turn says before it acts
    for attempt in plan.attempts:
        code = _first_code(attempt, rng, habits)
        seen = yield _turn(said, attempt.thought, code)
        said = ""
        if seen.status in FAILURES or (visual and attempt.repair is not None and code == attempt.code):
            repair = _repair(attempt, careful)
            told = repair.reflection(long)
            if thinking:
                said = diagnosing_thought(told.error_type.value, told.evidence, told.fix_plan)
            elif reflecting:
                said = render_reflection(told)
            seen = yield _turn(said, RETRY_THOUGHT, repair.code)
            said = ""
            if seen.status in FAILURES or (visual and repair is not attempt.repair):
                return
        if reflecting and rng.random() < habits.needless:
            quoted = without_places(seen.text)
            said = diagnosing_thought(NO_ERROR, quoted, "go on") if thinking else needless_reflection(quoted)
    answer = value_in(seen.text) if seen is not None and not visual else plan.answer
    yield _turn(said, FINAL_THOUGHT, call(FINAL_ANSWER, answer))


def _turn(said: str, thought: str, code: str) -> str:
    """A block stands before the turn, a thought becomes part of the turn's own."""
    if not said or said.startswith(REFLECTION_OPENING):
        return said + CleanStep(thought, code).turn()
    return CleanStep(f"{said} {thought}", code).turn()


def diagnosing_thought(error_type: str, evidence: str, fix_plan: str) -> str:
    """What a reflection block says, word for word, as a thought."""
    return f"{error_type}: {evidence}, so {fix_plan}."


def needless_reflection(observation: str) -> str:
    """A block that reflects on what is fine; written out, since no `Reflection` may have this error type."""
    return f"Reflection:\n- ErrorType: {NO_ERROR}\n- Evidence: {observation}\n- FixPlan: go on\n"


def value_in(observation: str) -> str:
    """The value that an observation tells: its last quoted text, or all of it."""
    quoted = _QUOTED.findall(observation)
    return quoted[-1] if quoted else observation


def _first_code(attempt: Attempt, rng: Random, habits: Habits) -> str:
    looks = bool(attempt.direct) and rng.random() >= habits.trusting
    return attempt.direct if looks else attempt.code


def _repair(attempt: Attempt, careful: bool) -> Repair:
    if attempt.repair is None:
        raise RuntimeError(f"{attempt.code}: failed, but its task's plan has no repair")
    return attempt.repair if careful or attempt.hasty is None else attempt.hasty


def demonstrate(
    environment: Environment, task: Task, rng: Random, habits: Habits, showing: Showing | None = None
) -> Demonstration:
    """Plays a task; the same for the same task and random numbers.

    Raises:
      SandboxError: the sandbox failed.
    """
    script = script_of(plan_of(task), rng, habits, visual=is_visual(task))
    turns, observations = [next(script)], []
    sight = Sight(showing, task, instruction_text(task.instruction, task.images))
    with environment.reset(task) as episode:
        while FINAL_ANSWER not in turns[-1]:
            seen = episode.step(turns[-1])
            if episode.done:
                raise SandboxError(f"the demonstration of task {task.id} ended early: {seen.text}")
            observations.append(sight.seen(episode, seen))
            try:
                turns.append(script.send(seen))
            except StopIteration:
                break
    return Demonstration(task, tuple(turns), tuple(observations), tuple(sight.images))


def record_of(demonstration: Demonstration, number: int) -> dict[str, Any]:
    """The episode as a clean trajectory is written (id, image, answer, conversations); steps count all actions."""
    task = demonstration.task
    conversation = [
        {"role": "system", "content": system_text(task.tools, loaded_tools(LOADERS[PROFILE]), brief=True)},
        {"role": "user", "content": instruction_text(task.instruction, task.images)},
    ]
    for step, turn in enumerate(demonstration.turns):
        conversation.append({"role": "assistant", "content": turn})
        if step < len(demonstration.turns) - 1:
            told = observation_text(step, demonstration.observations[step].text)
            conversation.append({"role": "user", "content": told})
    return {
        "id": f"demonstration_{number:06d}_{task.family}",
        "image": images_of(task, placeholders(task.images), demonstration.images, conversation),
        "answer": plan_of(task).answer,
        "conversations": conversation,
    }


def write_demonstrations(
    folder: Path,
    count: int,
    seed: int,
    *,
    families: Sequence[str] = (),
    difficulties: Sequence[int] = (1, 2, 3),
    surprises: float = 0.7,
    drills: float = 1.5,
    pictured: float = 3.0,
    habits: Habits | None = None,
    workers: int = 2,
    allow_unisolated: bool = False,
    pictures: PictureLimits | None = None,
    ray: RaySettings | None = None,
) -> list[Path]:
    """Plays `count` tasks of the training split and writes them and their drills, with their images, into a folder.

    The same arguments give the same bytes, whatever the number of workers.

    Args:
      folder: made if missing; gets `demonstrations-*.jsonl`, in the form of clean trajectories, and `images/`.
      seed: of the tasks and of the decisions.
      families: of the compact profile; () is all of them.
      surprises: share of tasks whose natural first action fails.
      drills: short exercises per episode, see `drills`; may be a fraction.
      pictured: more of them about the picture, per episode with a picture of cards.
      habits: how the agent decides.
      workers: sandboxed processes.
      allow_unisolated: as `SandboxSettings` has it.
      pictures: which of those that tools make are shown; None for none.
      ray: where the processes are; None for this machine.
    Returns:
      the shards.
    Raises:
      UserError, SandboxError: as `Environment.start`, `make_suite` and `demonstrate`.
    """
    tasks = make_suite("train", count, seed, PROFILE, surprises=surprises, difficulties=difficulties, chosen=families)
    chosen = habits or Habits()
    showing = None if pictures is None else Showing(pictures, folder / IMAGE_FOLDER)
    sandbox = SandboxSettings(workers=workers, allow_unisolated=allow_unisolated)

    def play(number: int) -> Demonstration:
        return demonstrate(environment, tasks[number], Random(f"{seed}/{number}/demonstration"), chosen, showing)

    with (
        Environment.start(sandbox, loader=LOADERS[PROFILE], ray=ray) as environment,
        ThreadPoolExecutor(workers) as threads,
        _bar() as bar,
    ):
        played = list(bar.track(threads.map(play, range(count)), total=count, description=STEM))
    records = []
    for number, demonstration in enumerate(played):
        records.append(record_of(demonstration, number))
        rng = Random(f"{seed}/{number}/drills")
        records += seen_drills(demonstration.images, number)
        records += drills_of(demonstration.task, demonstration.observations, number, rng, drills, pictured)
    write_images(folder, tasks)
    return write_shards(folder, STEM, records, _SHARD_RECORDS)


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, transient=True)
