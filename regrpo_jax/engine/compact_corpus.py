"""The corpus of the quickstart: clean trajectories and RoT records in the authors' JSON schema.

No download and no teacher is needed to try the whole pipeline. Every observation was given by a real tool on
real files, for the failed action as well as for the corrected one; a seed fixes the corpus byte by byte.
Train and test never share a task (held out by a hash of the task, so not even across seeds), and a third of
the train tasks use names that test never uses.

Schema: https://github.com/showlab/ReGRPO, `dataset/` samples.
"""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.engine.compact_cards import draw_picture
from regrpo_jax.engine.compact_failures import failure_of, final_call
from regrpo_jax.engine.compact_tasks import (
    FAMILIES,
    SHARED_WORDS,
    TRAIN_ONLY_WORDS,
    CompactTask,
    Failure,
    seeing_task,
    write_workspace,
)
from regrpo_jax.engine.compact_tools import execute_action
from regrpo_jax.errors import UserError
from regrpo_jax.records.reflection import render_reflection
from regrpo_jax.records.types import ErrorType, Observation, Reflection

SYSTEM_TEXT = "Call one tool at each step."
IMAGE_PLACEHOLDER = "<image_00>"
THOUGHTS = {
    "inspect_file_as_text": "open the file.",
    "visualizer": "look at it.",
    "table_query": "query the table.",
    "search": "search the notes.",
    "final_answer": "give the answer.",
}
TRAIN, TEST = "train", "test"
# Of the 256 values of a hash's first byte: a quarter of all tasks can only be test tasks.
_HELD_OUT_HASHES = 64
_GENERIC_FAILURES = 0.1  # share of RoT records whose failure is NonCommit or CodeError
_LONG_REFLECTIONS = 0.5

JsonObject = dict[str, Any]


@dataclass(frozen=True)
class CorpusPaths:
    """The four JSON files of a corpus; images lie in the folder `images` beside them."""

    clean_train: Path
    rot_train: Path
    clean_test: Path
    rot_test: Path


@dataclass(frozen=True)
class PlannedEpisode:
    """A task of a split, its clean record's id, and the failure of its RoT record (None: it has none)."""

    id: str
    task: CompactTask
    failure: Failure | None
    long_reflection: bool


def write_compact_corpus(
    folder: Path, *, train_records: int, test_records: int, seed: int, images: bool = True
) -> CorpusPaths:
    """Write a corpus into `folder` (made if need be; files of the same names are replaced).

    `train_records` and `test_records` count the clean and the RoT records of a split together (at least 2
    each); without `images` the picture family and its drills are left out. Raises `UserError` for bad counts
    and a folder that can't be written.
    """
    for name, count in (("train_records", train_records), ("test_records", test_records)):
        if count < 2:
            raise UserError(f"{name} is {count}, but a split needs at least 2: a clean and a RoT record. Raise {name}.")
    folder = Path(folder)
    try:
        clean_train, rot_train = _write_split(folder, TRAIN, train_records, seed, images)
        clean_test, rot_test = _write_split(folder, TEST, test_records, seed, images)
    except OSError as error:
        raise UserError(
            f"The compact corpus can't be written to {folder}: {error}. Name a folder that you may write to."
        ) from error
    return CorpusPaths(clean_train, rot_train, clean_test, rot_test)


def plan_episodes(split: str, *, records: int, seed: int, images: bool) -> tuple[PlannedEpisode, ...]:
    """The episodes of a split ("train" or "test") that give `records` records; a seed fixes them.

    Train: 3/10 of the records are RoT, 3/10 are seeing drills (with images), the rest are clean episodes.
    Test: half and half.
    """
    rot_count = records // 2 if split == TEST else max(1, 3 * records // 10)
    drill_count = 3 * records // 10 if split == TRAIN and images else 0
    task_count = records - rot_count - drill_count
    episodes = [_plan_episode(split, index, index < rot_count, seed, images) for index in range(task_count)]
    return tuple(episodes + [_plan_drill(split, index, seed) for index in range(drill_count)])


def _plan_episode(split: str, index: int, with_failure: bool, seed: int, images: bool) -> PlannedEpisode:
    families = [name for name in FAMILIES if images or name != "card"]
    family = families[index % len(families)]
    words = TRAIN_ONLY_WORDS if split == TRAIN and index // len(families) % 3 == 2 else SHARED_WORDS
    rng = random.Random(f"{seed}/{split}/{index}")
    task = FAMILIES[family](rng, words)
    while _is_held_out(task) != (split == TEST):
        task = FAMILIES[family](rng, words)
    failure = failure_of(rng, task, _GENERIC_FAILURES) if with_failure else None
    long_reflection = rng.random() < _LONG_REFLECTIONS
    return PlannedEpisode(f"{split}_s{seed}_{family}_{index:05d}", task, failure, long_reflection)


def _plan_drill(split: str, index: int, seed: int) -> PlannedEpisode:
    rng = random.Random(f"{seed}/{split}/seeing/{index}")
    return PlannedEpisode(f"{split}_s{seed}_seeing_{index:05d}", seeing_task(rng), None, False)


def _is_held_out(task: CompactTask) -> bool:
    return hashlib.sha256("\n".join(task.key).encode()).digest()[0] < _HELD_OUT_HASHES


@contextmanager
def open_workspace(task: CompactTask) -> Iterator[Path]:
    """A temporary folder with the task's real files, removed at the end; `execute_action` acts in it."""
    with tempfile.TemporaryDirectory(prefix="compact_task_") as name:
        write_workspace(task, Path(name))
        yield Path(name)


def clean_record(episode: PlannedEpisode, workspace: Path) -> JsonObject:
    """The solved episode: the right call, what it returned, and the answer (drills: the answer only)."""
    conversation = _opening(episode.task)
    if episode.task.call is not None:
        action = _action(episode.task.call.tool, episode.task.call.code)
        conversation += [_assistant(action), _observed(0, execute_action(action, workspace))]
    conversation.append(_assistant(_final_action(episode.task)))
    return _record(episode.id, episode, conversation)


def rot_record(episode: PlannedEpisode, workspace: Path) -> JsonObject:
    """The episode with its failure: failed action, observation, reflection and corrected action, the end.

    Raises ValueError for an episode without a failure.
    """
    task, failure = episode.task, episode.failure
    if failure is None or task.call is None:
        raise ValueError(f"episode {episode.id} has no failure to reflect on")
    right_action, final_action = _action(task.call.tool, task.call.code), _final_action(task)
    failed_action = _action(failure.tool, failure.code)
    at_the_end = failure.error_type is ErrorType.NON_COMMIT
    step, corrected_action = (1, final_action) if at_the_end else (0, right_action)

    failed_observation = execute_action(failed_action, workspace)
    reflection = _reflect(failure, failed_observation, episode.long_reflection)
    right_turns = [_assistant(right_action), _observed(0, execute_action(right_action, workspace))]
    conversation = _opening(task) + (right_turns if at_the_end else [])
    conversation += [_assistant(failed_action), _observed(step, failed_observation)]
    conversation.append(_assistant(render_reflection(reflection) + corrected_action))
    conversation += [] if at_the_end else [right_turns[1], _assistant(final_action)]

    record = _record(f"{episode.id}_rot_s{step}_{failure.error_type.value}", episode, conversation)
    record["rot_meta"] = {
        "src_id": episode.id,
        "step_index": step,
        "error_type": failure.error_type.value,
        "failed_action": failed_action,
        "failed_observation": failed_observation.text,
        "reflection": {
            "error_type": failure.error_type.value,
            "evidence": reflection.evidence,
            "fix_plan": reflection.fix_plan,
        },
        "corrected_action": corrected_action,
        "final_answer": task.answer,
    }
    return record


def _reflect(failure: Failure, observation: Observation, long: bool) -> Reflection:
    # Both lengths occur equally often, so that a policy can find out that the short one costs less.
    evidence, plan = (observation.text, failure.long_plan) if long else (failure.quote, failure.short_plan)
    return Reflection(failure.error_type, evidence, plan)


def _record(record_id: str, episode: PlannedEpisode, conversation: list[dict[str, str]]) -> JsonObject:
    image = {} if episode.task.picture is None else {IMAGE_PLACEHOLDER: f"images/{episode.id}.png"}
    return {"id": record_id, "image": image, "answer": episode.task.answer, "conversations": conversation}


def _opening(task: CompactTask) -> list[dict[str, str]]:
    prompt = f"Task: {task.prompt}" if task.picture is None else f"{IMAGE_PLACEHOLDER}\nTask: {task.prompt}"
    return [{"role": "system", "content": SYSTEM_TEXT}, {"role": "user", "content": prompt}]


def _action(tool: str, code: str) -> str:
    return f"Thought: {THOUGHTS[tool]}\n\nCode:\n```py\n{code}\n```"


def _final_action(task: CompactTask) -> str:
    return _action("final_answer", final_call(task.answer).code)


def _assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def _observed(step: int, observation: Observation) -> dict[str, str]:
    return {"role": "user", "content": f"[OUTPUT OF STEP {step}] -> Observation:\n{observation.text}"}


def _write_split(folder: Path, split: str, records: int, seed: int, images: bool) -> tuple[Path, Path]:
    (folder / "images" if images else folder).mkdir(parents=True, exist_ok=True)
    clean: list[JsonObject] = []
    rot: list[JsonObject] = []
    for episode in plan_episodes(split, records=records, seed=seed, images=images):
        with open_workspace(episode.task) as workspace:
            clean.append(clean_record(episode, workspace))
            if episode.failure is not None:
                rot.append(rot_record(episode, workspace))
        if episode.task.picture is not None:
            draw_picture(episode.task.picture).save(folder / "images" / f"{episode.id}.png", format="PNG")
    # Drills would otherwise all come last, which a reader that takes the first records would never see.
    random.Random(f"{seed}/{split}/order").shuffle(clean)
    return _write_json(folder / f"clean_{split}.json", clean), _write_json(folder / f"rot_{split}.json", rot)


def _write_json(path: Path, records: list[JsonObject]) -> Path:
    path.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path
