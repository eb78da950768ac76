"""Turns as other people write them: names of roles and keys, lists of parts, and what stands beside the content.

What a turn means is not always in its content: `loss` and `weight` say whether it is trained, `tool_calls` and
`reasoning_content` say something that no chat template of ours would be given. The first are honoured, the others
refused by name, because a policy that is trained without them learns half of what was meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from regrpo_jax.records.observation_text import is_observation_text
from regrpo_jax.records.picture_forms import picture_path
from regrpo_jax.records.reasons import RecordError, kind_of, printable
from regrpo_jax.records.types import Turn

_ROLES = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "model": "assistant",
}
_OBSERVATION_ROLES = frozenset({"observation", "tool", "tool_response", "tool-response"})
_TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
_IMAGE_PARTS = frozenset({"image", "image_url", "input_image"})
# Whether a turn is trained: swift, OpenAI, axolotl.
_TRAIN_KEYS = ("loss", "weight", "train", "training", "train_on_turn")
_UNREAD_KEYS = (
    "tool_calls", "tool_call", "function_call", "reasoning_content", "reasoning", "reasoning_details", "thinking",
    "thinking_blocks", "thought", "refusal", "audio", "audios", "image", "images", "image_url", "video", "videos",
    "attachments", "files", "mask",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A picture in the content of a turn; path is "" where the part does not say which."""

    path: str


@dataclass(frozen=True)
class RawTurn:
    """A turn whose pictures stand where they stood. trained: no key of the turn says otherwise."""

    role: str
    pieces: tuple[str | Part, ...]
    trained: bool = True

    @property
    def said(self) -> str:
        """Its text, without the pictures."""
        return "".join(piece for piece in self.pieces if isinstance(piece, str))


def raw_turns(raw: object) -> tuple[RawTurn, ...]:
    """The turns of a conversation: {"role", "content"} or {"from", "value"} objects, or `Turn`s.

    Raises RecordError, one reason for every bad turn.
    """
    if not isinstance(raw, list | tuple):
        raise RecordError((f"turn_shape: the conversation must be a list of turns, not {kind_of(raw)}",))
    if not raw:
        raise RecordError(("turn_shape: the conversation is empty",))
    turns: list[RawTurn] = []
    reasons: list[str] = []
    for index, item in enumerate(raw):
        try:
            turns.append(_raw_turn(item, f"turn {index}"))
        except RecordError as error:
            reasons.extend(error.reasons)
    if reasons:
        raise RecordError(tuple(reasons))
    return tuple(turns)


def _raw_turn(raw: object, where: str) -> RawTurn:
    if isinstance(raw, Turn):
        return RawTurn(raw.role, (raw.content,), raw.trained)
    if not isinstance(raw, dict):
        raise RecordError((f"turn_shape: {where} must be an object with role and content, not {kind_of(raw)}",))
    name = raw.get("role", raw.get("from"))
    role = name.strip().lower() if isinstance(name, str) else ""
    if role not in _ROLES and role not in _OBSERVATION_ROLES:
        raise RecordError(
            (f"turn_shape: {where} has the unknown role {printable(name)!r}; use system, user or assistant",)
        )
    _refuse_unread(raw, where)
    turn = RawTurn(_ROLES.get(role, "user"), _pieces(raw.get("content", raw.get("value")), where), _trained(raw, where))
    if turn.role != "user" and any(isinstance(piece, Part) for piece in turn.pieces):
        raise RecordError(
            (f"image_place: {where} is from {turn.role} and has a picture; only a user turn can show one",)
        )
    if role in _OBSERVATION_ROLES and not is_observation_text(turn.said):
        return RawTurn(turn.role, ("Observation:\n", *turn.pieces), turn.trained)
    return turn


def _refuse_unread(raw: Mapping[str, object], where: str) -> None:
    unread = [key for key in _UNREAD_KEYS if raw.get(key)]
    if unread:
        names = ", ".join(f"`{key}`" for key in unread)
        raise RecordError(
            (f"turn_keys: {where} has {names} beside its content, which no policy would see; write it into `content`",)
        )


def _trained(raw: Mapping[str, object], where: str) -> bool:
    told = {key: raw[key] for key in _TRAIN_KEYS if raw.get(key) is not None}
    odd = [key for key, value in told.items() if value not in (0, 1)]
    if odd:
        raise RecordError(
            (f"turn_keys: `{odd[0]}` of {where} is {printable(told[odd[0]])}; a turn is trained (1) or not (0)",)
        )
    return all(told.values())


def _pieces(content: object, where: str) -> tuple[str | Part, ...]:
    if isinstance(content, str):
        return (content,)
    if isinstance(content, list):
        return tuple(_piece(part, where) for part in content)
    raise RecordError(
        (f"turn_shape: the content of {where} must be a string or a list of parts, not {kind_of(content)}",)
    )


def _piece(part: object, where: str) -> str | Part:
    if isinstance(part, str):
        return part
    given = part if isinstance(part, dict) else {}
    kind = given.get("type")
    if kind is None:  # Qwen's list form has no types
        kind = next((key for key in ("text", "image", "image_url") if key in given), None)
    if kind in _IMAGE_PARTS:
        try:
            return Part(picture_path(given))
        except RecordError as error:
            raise RecordError(tuple(f"{reason} ({where})" for reason in error.reasons)) from None
    text = given.get("text")
    if kind in _TEXT_PARTS and isinstance(text, str):
        return text
    raise RecordError((f"turn_shape: {where} has a content part that is neither text nor an image: {printable(kind)}",))
