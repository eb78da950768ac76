"""Played again: does every record of a corpus still come out as it was written down?

Each action of a record's conversation is run anew in a fresh workspace and compared with the hashes and statuses that
the record carries. What may have changed since is told apart: the task, a tool, a turn, or what came back.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from regrpo_jax.agent.shown_pictures import PictureLimits
from regrpo_jax.engine.cases import ToolShape
from regrpo_jax.engine.showing import Showing, Sight, picture_lines
from regrpo_jax.engine.writing import canonical, image_name
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.records.actions import extract_code
from regrpo_jax.records.execution import SYNTHETIC, text_sha256
from regrpo_jax.records.types import Status


def replay_record(
    environment: Environment,
    record: Mapping[str, Any],
    tasks: Mapping[str, Task],
    shapes: Mapping[str, ToolShape],
    limits: PictureLimits | None = None,
) -> tuple[str, ...]:
    """What is different, as "rule: sentence"; () when the record comes out as it was written."""
    execution = record["execution"]
    if execution["kind"] == SYNTHETIC:
        return ("replay_synthetic: its observations were made up, so there is nothing to play again",)
    task = tasks.get(execution["task"])
    if task is None:
        return (f"replay_task: there is no task {execution['task']!r} in the tasks folder",)
    if text_sha256(canonical(task)) != execution["task_sha256"]:
        return ("replay_task: the task is not the one that the record was made with",)
    changed = sorted(
        name for name, version in execution["tools"].items() if name not in shapes or shapes[name].version != version
    )
    differing = tuple(_differing_steps(environment, record, task, limits))
    told = (f"replay_tools: other versions of {', '.join(changed)} than the record was made with",) if changed else ()
    return (*told, *differing) if differing else ()


def _differing_steps(
    environment: Environment, record: Mapping[str, Any], task: Task, limits: PictureLimits | None
) -> list[str]:
    turns = [turn["content"] for turn in record["conversations"] if turn["role"] == "assistant"]
    written = record["execution"]["steps"]
    if len(turns) != len(written):
        return [f"replay_steps: {len(turns)} turns but {len(written)} steps"]
    shown = {Path(name).name for name in record["image"].values()} if isinstance(record["image"], dict) else set()
    names_of_tools = shown - {Path(image_name(task, name)).name for name in task.images}  # () in records of before
    asked = next(turn["content"] for turn in record["conversations"] if turn["role"] == "user")
    with (
        environment.reset(task, record["execution"]["seed"]) as episode,
        tempfile.TemporaryDirectory(prefix="regrpo_jax-") as folder,
    ):
        sight = Sight(None if limits is None else Showing(limits, Path(folder)), task, asked)
        for position, (turn, told) in enumerate(zip(turns, written, strict=True)):
            if text_sha256(extract_code(turn)) != told["code_sha256"]:
                return [f"replay_code: the code of step {position} is not the one that was run"]
            if episode.done:
                return [f"replay_steps: the episode is over before step {position}"]
            bare = episode.step(turn)
            observation = sight.seen(episode, bare)
            if observation.status != Status(told["status"]):
                return [f"replay_status: step {position} was {told['status']} and is {observation.status}"]
            if told["observation_sha256"] not in map(text_sha256, (observation.text, bare.text)):
                return [f"replay_observation: step {position} returned something else"]
            made = {Path(picture.path).name for picture in sight.pictures[-1]}
            if shown & names_of_tools and position + 1 < len(turns) and not made <= shown:
                return [f"replay_pictures: step {position} made another picture"]
            if position == record["execution"]["failed_step"] and not _seen_again(record, sight):
                return ["replay_seen: the pictures of the failed step do not say what `seen` says"]
        if not episode.success:
            return ["replay_answer: the episode does not end with the right answer"]
    return []


def _seen_again(record: Mapping[str, Any], sight: Sight) -> bool:
    told = record["execution"].get("seen", "").splitlines()
    return set(told) <= set(picture_lines(sight.pictures[-1]).splitlines())


def replay(
    environment: Environment,
    records: Sequence[Mapping[str, Any]],
    tasks: Mapping[str, Task],
    shapes: Mapping[str, ToolShape],
    threads: int,
    progress: Callable[[], None],
    limits: PictureLimits | None = None,
) -> list[tuple[str, ...]]:
    """`replay_record` of every record, in order.

    Args:
      shapes: of the tools as they are now.
      limits: which pictures that tools make were shown when the records were made.
    """

    def one(record: Mapping[str, Any]) -> tuple[str, ...]:
        found = replay_record(environment, record, tasks, shapes, limits)
        progress()
        return found

    with ThreadPoolExecutor(threads, thread_name_prefix="replay") as executor:
        return list(executor.map(one, records))
