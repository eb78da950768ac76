"""A failure and its reflection as a record in the authors' schema, with what is needed to play it again.

Schema: https://github.com/showlab/ReGRPO, `dataset/` samples (id, image, answer, conversations, rot_meta), and a block
`execution`, which other readers of the schema pass over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrpo_jax.agent.prompt import observation_text
from regrpo_jax.engine.cases import Failure, Situation
from regrpo_jax.environments.answers import CheckKind
from regrpo_jax.environments.task import Task
from regrpo_jax.records.actions import FINAL_ANSWER, KNOWN_TOOLS, extract_code, extract_tool_calls
from regrpo_jax.records.complexity import complexity
from regrpo_jax.records.differences import literal_value
from regrpo_jax.records.execution import SYNTHETIC, VERSION, complexity_to_dict, text_sha256
from regrpo_jax.records.reflection import render_reflection
from regrpo_jax.records.types import ImageReference, Observation, Reflection

JsonObject = dict[str, Any]
IMAGE_FOLDER = "images"  # beside the file of records


def canonical(task: Task) -> str:
    """A task as JSON with its contents named by SHA-256: the same text for the same task."""
    return json.dumps(task.to_json(keep=lambda file: None), sort_keys=True, ensure_ascii=False)


def image_name(task: Task, name: str) -> str:
    """Where the image of a task lies beside the records: by content, so that equal pictures are stored once."""
    suffix = name.rpartition(".")[2].lower() if "." in name else "png"
    file = next(file for file in task.files if file.name == name)
    return f"{IMAGE_FOLDER}/{file.digest[:32]}.{suffix}"


def images_of(
    task: Task, given: Mapping[str, str], made: Sequence[ImageReference], conversation: Sequence[JsonObject]
) -> dict[str, str]:
    """Placeholder -> file beside the records: the task's pictures, then those that tools made and that were told.

    Args:
      given: placeholder -> name of the task's.
      conversation: as it is written; the last action's observation is not, nor are its pictures.
    """
    told = "\n".join(turn["content"] for turn in conversation if turn["role"] == "user")
    shown = {
        image.placeholder: f"{IMAGE_FOLDER}/{Path(image.path).name}" for image in made if image.placeholder in told
    }
    return {placeholder: image_name(task, name) for placeholder, name in given.items()} | shown


def _answer(situation: Situation) -> str:
    """The right answer; where a function judges, the one that the steps give, which it found right."""
    checker = situation.task.checker
    if checker.kind != CheckKind.FUNCTION:
        return str(checker.values[0])
    calls = extract_tool_calls(situation.steps[-1].code, frozenset({FINAL_ANSWER}))
    sources = [source for one in calls[-1:] for source in (*one.arguments, *(value for _, value in one.keywords))]
    value = literal_value(sources[0]) if sources else None
    return "".join(sources[:1]) if value is None else str(value)


def _step_json(turn: str, observation: Observation, recorded: bool) -> JsonObject:
    told: JsonObject = {
        "code_sha256": text_sha256(extract_code(turn)),
        "status": str(observation.status),
        "observation_sha256": text_sha256(observation.text),
    }
    return told | ({"recorded": True} if recorded else {})


def _conversation(opening: Situation, turns: list[str], indices: list[int], texts: list[str]) -> list[JsonObject]:
    """The turns with what came back after each; the last turn ends the conversation."""
    found = [{"role": "system", "content": opening.system}, {"role": "user", "content": opening.instruction}]
    for position, (turn, index, text) in enumerate(zip(turns, indices, texts, strict=True)):
        found.append({"role": "assistant", "content": turn})
        if position < len(turns) - 1:
            found.append({"role": "user", "content": observation_text(index, text)})
    return found


def rot_record(
    failure: Failure, reflection: Reflection, *, number: int, annotator: str, loader: str, seed: int
) -> JsonObject:
    """The record of a failure; `number` makes its id unique in its corpus."""
    situation, miss, at = failure.situation, failure.near_miss, failure.situation.index
    failed_action = miss.turn()
    corrected = situation.step.turn()
    turns = [step.turn() for step in situation.steps]
    turns[at : at + 1] = [failed_action, render_reflection(reflection) + corrected]
    indices = [*range(at), at, at, *range(at + 1, len(situation.steps))]
    texts = [observation.text for observation in failure.observations]
    kind = reflection.error_type.value
    names = KNOWN_TOOLS | set(situation.tools)
    weighed = complexity(failed_action, corrected, failure.failed.text, reflection, tuple(texts[:at]), names)
    steps = [
        _step_json(turn, one, place in failure.recorded)
        for place, (turn, one) in enumerate(zip(turns, failure.observations, strict=True))
    ]
    executed = failure.kind != SYNTHETIC
    conversation = _conversation(situation, turns, indices, texts)
    return {
        "id": f"{_plain(situation.source_id)}_rot_s{at}_{kind}_{number:06d}",
        "image": images_of(situation.task, situation.images, failure.images, conversation),
        "answer": _answer(situation),
        "conversations": conversation,
        "rot_meta": {
            "src_id": situation.source_id,
            "step_index": at,
            "error_type": kind,
            "failed_action": failed_action,
            "failed_observation": failure.failed.text,
            "reflection": {
                "error_type": kind,
                "evidence": reflection.evidence,
                "fix_plan": reflection.fix_plan,
            },
            "corrected_action": corrected,
            "final_answer": _answer(situation),
        },
        "execution": {
            "version": VERSION,
            "kind": failure.kind,
            "source": situation.source,
            "proposer": miss.proposer,
            "annotator": annotator,
            "task": situation.task.id,
            "task_sha256": text_sha256(canonical(situation.task)),
            "loader": loader,
            "tools": {name: shape.version for name, shape in sorted(situation.tools.items())},
            "seed": seed,
            "steps": steps if executed else [],
            "failed_step": at,
            "repaired": executed and failure.answered,
            "complexity": complexity_to_dict(weighed),
        }
        | ({"seen": failure.seen} if failure.seen else {}),
    }


def clean_record(
    situation: Situation,
    observations: Sequence[Observation],
    images: Sequence[ImageReference] = (),
    *,
    number: int,
    recorded: Collection[int] = (),
) -> JsonObject:
    """The record of a clean trajectory, as MAT-Agent's are: no reflection, no failure.

    Args:
      recorded: which steps have observations of recordings; the record names them, where there are any.
    """
    turns = [step.turn() for step in situation.steps]
    texts = [observation.text for observation in observations]
    conversation = _conversation(situation, turns, list(range(len(turns))), texts)
    return {
        "id": f"{_plain(situation.source_id)}_{number:06d}",
        "image": images_of(situation.task, situation.images, images, conversation),
        "answer": _answer(situation),
        "conversations": conversation,
    } | ({"recorded_steps": sorted(recorded)} if recorded else {})


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")
