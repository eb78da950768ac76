"""Which kind of failure an action is, from how it differs from the action that is right.

For failures that a policy made itself: no rule says what it had in mind.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from regrpo_jax.engine.cases import ToolShape
from regrpo_jax.records.actions import FINAL_ANSWER, extract_tool_calls, primary_tool
from regrpo_jax.records.types import ErrorType, Status, ToolCall

# Arguments that say where or what to look at in a picture.
_PLACES = frozenset({"region", "bbox", "box", "object", "objects", "label", "labels", "colour", "color", "text"})


def error_type_of(
    failed: str, corrected: str, status: Status, tools: Mapping[str, ToolShape], images: Collection[str] = ()
) -> ErrorType | None:
    """CodeError for code that could not run; else by the first thing that differs; None when nothing does.

    failed, corrected: code. Another tool is a ToolMismatch, a missing argument InfoInsufficient, another place in a
    picture GroundingDrift, any other argument ArgInvalid, anything but an answer where one was due NonCommit.
    """
    names = frozenset(tools) | {FINAL_ANSWER}
    before, after = extract_tool_calls(failed, names), extract_tool_calls(corrected, names)
    wrong, right = primary_tool(before), primary_tool(after)
    if status == Status.INVALID_ACTION or right is None:
        return ErrorType.CODE_ERROR
    if right == FINAL_ANSWER:
        return ErrorType.NON_COMMIT if wrong != FINAL_ANSWER else None
    if wrong is None:
        return ErrorType.CODE_ERROR
    if wrong != right:
        return ErrorType.TOOL_MISMATCH
    first = next(call for call in before if call.name == right)
    second = next(call for call in after if call.name == right)
    return _of_arguments(_named(first, tools[right]), _named(second, tools[right]), bool(images))


def _named(call: ToolCall, shape: ToolShape) -> dict[str, str]:
    """The call's arguments by name; those beyond the declared ones by number."""
    names = [argument.name for argument in shape.arguments]
    positional = {names[at] if at < len(names) else str(at): value for at, value in enumerate(call.arguments)}
    return positional | dict(call.keywords)


def _of_arguments(failed: dict[str, str], corrected: dict[str, str], pictures: bool) -> ErrorType | None:
    if failed.keys() < corrected.keys() and all(corrected[name] == value for name, value in failed.items()):
        return ErrorType.INFO_INSUFFICIENT
    changed = [name for name in corrected if failed.get(name) != corrected[name]]
    if not changed and failed.keys() == corrected.keys():
        return ErrorType.CODE_ERROR  # the calls agree, so that the code around them is what differs
    if pictures and any(name in _PLACES for name in changed):
        return ErrorType.GROUNDING_DRIFT
    return ErrorType.ARG_INVALID
