"""How probable, at temperature 1, a policy makes the right text of each skill, given everything before it.

Episodes are demonstrations of an agent that decides well, so that a part that has one right text is a skill:

  first     the natural first action                        error     the error type
  evidence  the words of the observation (a decision too)   fix       the plan, short or long, from the evidence
  act       the action, from the plan                       retry     the action without a reflection (a decision too)
  answer    the value, from the observation

and the drills of `engine.drills`: recall, caption, find, look, explain, tell.

    python -m experiments.recovery.skills --model=experiments/recovery/policy
"""

from __future__ import annotations

import argparse
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.batches import collate_images
from regrpo_jax.data.corpus import Corpus
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.images import PackedImages
from regrpo_jax.engine import drills
from regrpo_jax.engine.demonstrations import PROFILE, Demonstration, Habits, demonstrate, record_of
from regrpo_jax.engine.shards import write_images
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.recovery import FAILURES
from regrpo_jax.environments.task import Task
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.logprobs import token_logprobs
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.records.conversation import parse_trajectory
from regrpo_jax.records.reflection import split_reflection
from regrpo_jax.run.starting_policy import starting_policy
from regrpo_jax.sandbox.settings import SandboxSettings
from regrpo_jax.suites.toolrepair import LOADERS, make_suite, plan_of
from regrpo_jax.training.parallel import device_mesh

ROWS, LENGTH = 64, 192
FAMILIES = ("moved", "service", "search", "region", "colour", "sheet")
VALIDATION_SEED = 1_000_000  # tasks are held out by their names as well, see `words.split_of`
_GOOD = Habits(careful=1.0, reflecting=1.0, long=0.0, needless=0.0, trusting=1.0)
_LONG = replace(_GOOD, long=1.0)
_BARE = Habits(careful=1.0, reflecting=0.0, long=0.0, needless=0.0, trusting=1.0)
ORDER = (
    "first",
    "error",
    "evidence",
    "fix",
    "act",
    "retry",
    "answer",
    "caption",
    "find",
    "look",
    "recall",
    "explain",
    "tell",
)


@dataclass(frozen=True)
class Probe:
    """Tokens and, for each skill, the half-open range of tokens that it is made of.

    Where two probes of a task measure the same skill, their texts differ and both are right.
    """

    task: Task
    tokens: np.ndarray
    positions: np.ndarray
    images: PackedImages
    parts: tuple[tuple[str, int, int], ...]


def skill_table(
    functions: PolicyFunctions, variables: dict, reader: ConversationReader, workdir: Path,
    families: Sequence[str], count: int, seed: int,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Skill -> family -> mean probability of its whole right text, on validation tasks with a surprise."""
    tasks = make_suite("validation", count, seed, PROFILE, surprises=1.0, chosen=families)
    with tempfile.TemporaryDirectory(dir=workdir) as name:
        write_images(Path(name), tasks)
        probes = [probe for probe in _probes(tasks, reader, Path(name)) if len(probe.tokens) <= LENGTH]
        found = defaultdict(lambda: defaultdict(lambda: defaultdict(float)))  # skill, family, task
        for start in range(0, len(probes), ROWS):
            batch = probes[start : start + ROWS]
            for probe, logprobs in zip(batch, _logprobs(functions, variables, reader, batch), strict=False):
                for skill, first, last in probe.parts:
                    found[skill][probe.task.family][probe.task.id] += float(np.exp(logprobs[first:last].sum()))
    return {skill: {family: float(np.mean([*values.values()])) for family, values in found[skill].items()}
            for skill in ORDER if skill in found}  # fmt: skip


def print_table(told: Mapping[str, Mapping[str, float]]) -> None:
    """A line per skill."""
    families = list(dict.fromkeys(family for row in told.values() for family in row))
    print(f"{'':10}" + "".join(f"{family:>9}" for family in families))
    for skill, row in told.items():
        print(f"{skill:10}" + "".join(f"{row[f]:9.2f}" if f in row else f"{'-':>9}" for f in families), flush=True)


def _probes(tasks: Sequence[Task], reader: ConversationReader, folder: Path) -> Iterator[Probe]:
    for task in tasks:
        for made in _exercises(task):
            record = drills._record(task, made[1], f"{made[0]}_0")
            yield _drill_probe(task, made[0], record, reader, folder)
    with Environment.start(SandboxSettings(workers=2), loader=LOADERS[PROFILE]) as environment:

        def play(task: Task) -> list[Demonstration]:
            return [demonstrate(environment, task, Random(task.id), habits) for habits in (_GOOD, _LONG, _BARE)]

        with ThreadPoolExecutor(2) as threads:
            played = list(threads.map(play, tasks))
    for task, (good, long, bare) in zip(tasks, played, strict=True):
        yield _episode_probe(good, reader, folder, ("first", "error", "evidence", "fix", "act", "answer"))
        yield _episode_probe(bare, reader, folder, ("retry",))
        if long.turns != good.turns:
            yield _episode_probe(long, reader, folder, ("fix",))
        failed = next((seen.text for seen in good.observations if seen.status in FAILURES), None)
        repair = next((attempt.repair for attempt in plan_of(task).attempts if attempt.repair is not None), None)
        if failed and repair:
            for name in ("explain", "tell"):
                exercise = getattr(drills, name)(task.instruction, failed, repair)
                yield _drill_probe(task, name, drills._record(task, exercise, "x"), reader, folder)


def _exercises(task: Task) -> Iterator[tuple[str, drills.Exercise]]:
    rng = Random(task.id)
    colours = drills.cards_of(task)
    if colours:
        yield "caption", drills.caption(colours)
        yield "find", drills.find(colours, rng)
        yield "look", drills.look(colours, rng)
    else:
        yield "recall", drills.recall(rng)


def _read(record: dict[str, Any], reader: ConversationReader, folder: Path) -> Any:
    trajectory = parse_trajectory(record, folder)
    return trajectory, *reader.read(trajectory.conversation, trajectory.images)


def _drill_probe(task: Task, name: str, record: dict[str, Any], reader: ConversationReader, folder: Path) -> Probe:
    _, chat, positions, images = _read(record, reader, folder)
    return Probe(task, chat.tokens, positions, images, ((name, *chat.spans[-1]),))


def _episode_probe(played: Demonstration, reader: ConversationReader, folder: Path, skills: Collection[str]) -> Probe:
    _, chat, positions, images = _read(record_of(played, 0), reader, folder)
    parts: list[tuple[str, int, int]] = []
    for number, (turn, (start, end)) in enumerate(zip(played.turns, chat.spans, strict=True)):
        if number == len(played.turns) - 1:
            parts.append(("answer", start, end))
        elif number == 0:
            parts.append(("first", start, end))
        elif turn.startswith("Reflection:"):
            parts += _reflection_parts(chat.tokens, start, end, turn, reader)
        elif played.observations[number - 1].status in FAILURES:
            parts.append(("retry", start, end))
    return Probe(played.task, chat.tokens, positions, images, tuple(part for part in parts if part[0] in skills))


def _reflection_parts(
    tokens: np.ndarray, start: int, end: int, turn: str, reader: ConversationReader
) -> list[tuple[str, int, int]]:
    """The opening, which the gate gives, is not among them."""
    pieces = [reader.renderer.tokenizer.decode([token]) for token in tokens[start:end]]
    places = np.cumsum([0, *map(len, pieces)])
    reflection, _ = split_reflection(turn)
    marks = [len("Reflection:\n- ErrorType:"), reflection.index("\n- Evidence:"), reflection.index("\n- FixPlan:"),
             len(reflection), len(turn)]  # fmt: skip
    at = [start + int(np.searchsorted(places, mark)) for mark in marks]
    return list(zip(("error", "evidence", "fix", "act"), at, at[1:], strict=False))


def _logprobs(
    functions: PolicyFunctions, variables: dict, reader: ConversationReader, probes: Sequence[Probe]
) -> np.ndarray:
    """log pi of every token, 0 for the first.  # [row, token]"""
    shape = (ROWS, LENGTH)
    tokens, valid, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.zeros((*shape, 3), np.int32)
    image_index = np.full(shape, -1, np.int32)
    for row, probe in enumerate(probes):
        size = len(probe.tokens)
        tokens[row, :size], valid[row, :size], positions[row, :size] = probe.tokens, 1, probe.positions
        image_index[row, :size] = probe.images.image_index(probe.tokens == reader.renderer.image_token_id)
    filled = [*probes, *[probes[0]] * (ROWS - len(probes))]
    images = collate_images([probe.images for probe in filled])
    block = TokenBlock(tokens, valid, positions, image_index)
    return np.asarray(_scored(functions, variables, block, images))


def _score(functions: PolicyFunctions, variables: dict, block: TokenBlock, images: Any) -> jax.Array:
    hidden, _ = functions.run_prefix(variables, block, images)
    scored = token_logprobs(
        hidden[:, :-1], functions.head(variables), block.tokens[:, 1:], block.segment_ids[:, 1:] > 0, chunk_size=1024
    )
    return jnp.pad(scored, ((0, 0), (1, 0)))


_scored = jax.jit(_score, static_argnums=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a policy, such as model/ of configs/warm_start.py")
    parser.add_argument("--tasks", type=int, default=240)
    chosen = parser.parse_args()
    config = base_config()
    config.model.path = chosen.model
    config.stages = ("recovery",)
    with tempfile.TemporaryDirectory() as name:
        nothing = Corpus([], [], [], held_out=False)
        functions, variables, reader = starting_policy(config, nothing, Path(name), device_mesh(), resuming=False)
        print_table(skill_table(functions, variables, reader, Path(name), FAMILIES, chosen.tasks, VALIDATION_SEED))


if __name__ == "__main__":
    main()
