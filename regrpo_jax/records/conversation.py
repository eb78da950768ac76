"""Conversations as other people write them, turned into one form, and that form read as a task with steps.

Transcripts differ in the names of roles and keys, in the header over an observation and in how they hold
images. All of it ends here: the rest of the project sees `Turn`s whose role is system, user or assistant, and
`Step`s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from regrpo_jax.records.actions import extract_tool_calls, split_action
from regrpo_jax.records.images import IMAGE_MARKER, image_references, inline_images
from regrpo_jax.records.observation_text import classify_observation_text
from regrpo_jax.records.reasons import RecordError, kind_of, printable
from regrpo_jax.records.reflection import parse_reflection
from regrpo_jax.records.tool_names import tools_of, tools_of_raw
from regrpo_jax.records.types import Observation, RotRecord, Step, Trajectory, Turn

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_OBSERVATION_ROLES = frozenset({"observation", "tool", "tool_response", "tool-response"})
_STEP_HEADER = r"\[OUTPUT OF STEP\s+[0-9]+\]\s*(?:->\s*)?"
_HEADERS = re.compile(rf"(?:{_STEP_HEADER}|Observation:\s*)+")
_OBSERVATION = re.compile(rf"\s*(?:{_STEP_HEADER}|Observation:|Error:)")


def is_observation_text(text: str) -> bool:
    """Whether the environment is speaking: the text opens with a step header, "Observation:" or "Error:"."""
    return _OBSERVATION.match(text) is not None


def strip_observation(text: str) -> str:
    """The payload of an observation: step headers, "Observation:" and surrounding white space removed.

    "Error:" stays, because it is what tells a failure from a result. Applying it twice changes nothing more.
    """
    stripped = text.strip()
    headers = _HEADERS.match(stripped)
    return stripped if headers is None else stripped[headers.end() :].strip()


def _part_text(part: object, where: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("image", "image_url"):
        return IMAGE_MARKER
    text = part.get("text") if isinstance(part, dict) else None
    if kind != "text" or not isinstance(text, str):
        raise RecordError((f"turn_shape: {where} has a content part that is neither text nor an image",))
    return text


def _content_text(content: object, where: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(_part_text(part, where) for part in content)
    raise RecordError(
        (f"turn_shape: the content of {where} must be a string or a list of parts, not {kind_of(content)}",)
    )


def _normalise_turn(raw: object, index: int) -> Turn:
    if isinstance(raw, Turn):
        return raw
    where = f"turn {index}"
    if not isinstance(raw, dict):
        raise RecordError((f"turn_shape: {where} must be an object with role and content, not {kind_of(raw)}",))
    name = raw.get("role", raw.get("from"))
    role = name.strip().lower() if isinstance(name, str) else ""
    text = _content_text(raw.get("content", raw.get("value")), where)
    if role in _OBSERVATION_ROLES:
        return Turn("user", text if is_observation_text(text) else f"Observation:\n{text}")
    if role not in _ROLES:
        raise RecordError(
            (f"turn_shape: {where} has the unknown role {printable(name)!r}; use system, user or assistant",)
        )
    return Turn(_ROLES[role], text)


def normalise_turns(raw: object) -> tuple[Turn, ...]:
    """Turns of a conversation: a list of {"role", "content"} or {"from", "value"} objects (or of `Turn`s).

    Known role names: system; user, human; assistant, gpt, model; observation, tool, tool_response (these
    become user turns that open with "Observation:"). A list of parts becomes one text with "<image>" in the
    place of every image. Raises RecordError, one reason for every bad turn.
    """
    if not isinstance(raw, list | tuple):
        raise RecordError((f"turn_shape: the conversation must be a list of turns, not {kind_of(raw)}",))
    if not raw:
        raise RecordError(("turn_shape: the conversation is empty",))
    turns: list[Turn] = []
    reasons: list[str] = []
    for index, item in enumerate(raw):
        try:
            turns.append(_normalise_turn(item, index))
        except RecordError as error:
            reasons.extend(error.reasons)
    if reasons:
        raise RecordError(tuple(reasons))
    return tuple(turns)


def _observation_after(conversation: tuple[Turn, ...], index: int) -> Observation | None:
    if index + 1 >= len(conversation):
        return None
    answer = conversation[index + 1]
    if answer.role != "user" or not is_observation_text(answer.content):
        return None
    text = strip_observation(answer.content)
    return Observation(classify_observation_text(text), text)


def _step(conversation: tuple[Turn, ...], turn_index: int, step_index: int, tools: frozenset[str] | None) -> Step:
    text = conversation[turn_index].content
    thought, code = split_action(text)
    observation = _observation_after(conversation, turn_index)
    return Step(step_index, thought, code, extract_tool_calls(code, tools), observation, parse_reflection(text), text)


def steps_of(conversation: tuple[Turn, ...], tools: frozenset[str] | None = None) -> tuple[Step, ...]:
    """One step for every assistant turn, numbered from 0, with the observation that follows it if any.

    tools: the names that count as tools, KNOWN_TOOLS when None.
    """
    assistant = [index for index, turn in enumerate(conversation) if turn.role == "assistant"]
    return tuple(_step(conversation, turn_index, number, tools) for number, turn_index in enumerate(assistant))


def first_content(conversation: tuple[Turn, ...], role: str) -> str:
    """The content of the first turn of `role`; "" when there is none."""
    return next((turn.content for turn in conversation if turn.role == role), "")


def answer_text(answer: object) -> str:
    """The answer of a record as text: strings as they are, null as "", others as Python writes them."""
    return answer if isinstance(answer, str) else "" if answer is None else str(answer)


def parse_trajectory(record: Mapping[str, object] | Trajectory | RotRecord, base_dir: Path | None = None) -> Trajectory:
    """Read a raw record (keys id, image, answer, conversations) or a RotRecord as a trajectory.

    A Trajectory is returned as it is. The task is the first user turn. Image paths of a raw record are
    resolved against `base_dir` (left alone when None). The statuses of observations are guessed from their
    text. Raises RecordError when the conversation cannot be read.
    """
    if isinstance(record, Trajectory):
        return record
    if isinstance(record, RotRecord):
        identity, images, answer, conversation = record.id, record.images, record.answer, record.conversation
        tools = tools_of(record)
    else:
        tools = tools_of_raw(record)
        raw = record.get("conversations", record.get("messages"))
        conversation = normalise_turns(raw)
        images = image_references(record.get("image"), base_dir) + inline_images(raw, base_dir)
        identity, answer = answer_text(record.get("id")), answer_text(record.get("answer"))
    return Trajectory(
        id=identity,
        images=images,
        answer=answer,
        conversation=conversation,
        system=first_content(conversation, "system"),
        task=first_content(conversation, "user"),
        steps=steps_of(conversation, tools),
    )
