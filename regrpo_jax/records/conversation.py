"""Conversations as other people write them, turned into one form, and that form read as a task with steps.

Transcripts differ in the names of roles and keys, in the header over an observation and in how they hold
images. All of it ends here: the rest of the project sees `Turn`s whose role is system, user or assistant, and
`Step`s.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from regrpo_jax.records.actions import extract_tool_calls, split_action
from regrpo_jax.records.images import NO_ROOTS, named_images
from regrpo_jax.records.observation_text import classify_observation_text, is_observation_text, strip_observation
from regrpo_jax.records.path_roots import PathRoots
from regrpo_jax.records.placed_images import placed_images, written_turns
from regrpo_jax.records.reasons import RecordError, printable
from regrpo_jax.records.reflection import parse_reflection
from regrpo_jax.records.tool_names import tools_of, tools_of_raw
from regrpo_jax.records.turns import RawTurn, raw_turns
from regrpo_jax.records.types import ImageReference, Observation, RotRecord, Step, Trajectory, Turn

CONVERSATION_KEYS = ("conversations", "messages")
_UNREAD_KEYS = (
    "tools", "functions", "videos", "video", "audios", "audio", "objects", "image_path", "image_paths", "image_url",
    "image_urls", "image_file", "image_files", "rejected_response",
)  # fmt: skip


def normalise_turns(raw: object) -> tuple[Turn, ...]:
    """Turns of a conversation: a list of {"role", "content"} or {"from", "value"} objects (or of `Turn`s).

    Known role names: system; user, human; assistant, gpt, model; observation, tool, tool_response (these
    become user turns that open with "Observation:"). A list of parts becomes one text with "<image>" in the
    place of every image (a placeholder of its own where that word is typed). Raises RecordError, one reason for every
    bad turn.
    """
    return written_turns(raw_turns(raw))[0]


def read_conversation(
    record: Mapping[str, object], base_dir: Path | None = None, roots: PathRoots = NO_ROOTS
) -> tuple[tuple[Turn, ...], tuple[ImageReference, ...]]:
    """The turns of a raw record and the pictures they show, whose paths are resolved against `base_dir` unless None.

    roots: under which other roots the pictures lie.

    Raises RecordError: the conversation cannot be read, pictures and their places do not come out even, or a key says
    something that a policy would not be given.
    """
    unread = [key for key in _UNREAD_KEYS if record.get(key) and record[key] != "[]"]
    if unread:
        names = ", ".join(f"`{key}`" for key in unread)
        raise RecordError((f"schema_keys: the record has {names}, which no policy would see; write it into the turns",))
    told = [record[key] for key in CONVERSATION_KEYS if record.get(key)]
    if len(told) > 1:
        raise RecordError(("schema_keys: the record has both `conversations` and `messages`; keep one of them",))
    raw = raw_turns(told[0] if told else record.get("conversations", record.get("messages")))
    turns = _with_system(_with_target(raw, record.get("train_turn_index")), record.get("system"))
    return placed_images(turns, named_images(record), base_dir, roots)


def _with_system(turns: tuple[RawTurn, ...], system: object) -> tuple[RawTurn, ...]:
    """A system text beside the turns, as ShareGPT has it, is the first of them."""
    if not system:
        return turns
    if not isinstance(system, str) or turns[0].role == "system" and turns[0].said != system:
        raise RecordError(("schema_keys: `system` is not the text of the system turn; keep one of them",))
    return turns if turns[0].role == "system" else (RawTurn("system", (system,)), *turns)


def _with_target(turns: tuple[RawTurn, ...], target: object) -> tuple[RawTurn, ...]:
    """What the release converts names the one turn that is trained."""
    if target is None:
        return turns
    if not any(index == target and turn.role == "assistant" for index, turn in enumerate(turns)):
        raise RecordError((f"schema_keys: `train_turn_index` is {printable(target)}, which is no assistant turn",))
    return tuple(RawTurn(turn.role, turn.pieces, turn.trained and index == target) for index, turn in enumerate(turns))


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


def identity_text(identity: object) -> str:
    """The id of a record as text: whole numbers, as many data sets have them, too; "" for what is no id."""
    if isinstance(identity, int) and not isinstance(identity, bool):
        return str(identity)
    return identity if isinstance(identity, str) and identity.strip() else ""


def answer_text(answer: object) -> str:
    """The answer of a record as text: strings as they are, null as "", others as Python writes them."""
    return answer if isinstance(answer, str) else "" if answer is None else str(answer)


def parse_trajectory(
    record: Mapping[str, object] | Trajectory | RotRecord, base_dir: Path | None = None, roots: PathRoots = NO_ROOTS
) -> Trajectory:
    """Read a raw record (keys id, image, answer, conversations) or a RotRecord as a trajectory.

    A Trajectory is returned as it is. The task is the first user turn. Image paths of a raw record are
    resolved against `base_dir` (left alone when None), under other `roots`. The statuses of observations are guessed
    from their text. Raises RecordError when the conversation cannot be read.
    """
    if isinstance(record, Trajectory):
        return record
    if isinstance(record, RotRecord):
        identity, images, answer, conversation = record.id, record.images, record.answer, record.conversation
        tools = tools_of(record)
    else:
        tools = tools_of_raw(record)
        conversation, images = read_conversation(record, base_dir, roots)
        identity, answer = identity_text(record.get("id")), answer_text(record.get("answer"))
    return Trajectory(
        id=identity,
        images=images,
        answer=answer,
        conversation=conversation,
        system=first_content(conversation, "system"),
        task=first_content(conversation, "user"),
        steps=steps_of(conversation, tools),
    )
