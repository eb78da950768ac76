"""ToolMismatch: another tool of the task takes over, with what it can use of the right tool's arguments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import PurePosixPath

from regrpo_jax.engine.cases import ArgumentShape, ToolShape
from regrpo_jax.engine.perturb.rule import Change, Rule
from regrpo_jax.engine.perturb.scene import Argument, Role, Scene, ToolUse, wanted_role
from regrpo_jax.engine.perturb.source import rendered
from regrpo_jax.engine.perturb.words import IMAGE_ENDINGS, TABLE_ENDINGS, image_names, listed_beside, stem_of
from regrpo_jax.records.actions import FINAL_ANSWER
from regrpo_jax.records.types import ErrorType

_MOST_QUESTION = 120  # characters
_PRONOUN_QUESTION = 3  # words: "What is it?" asks nothing by itself
_PLACEHOLDERS = re.compile(r"<image_\d+>\s*")
_ORDERS = frozenset(["prompt", "keywords", "instruction", "annotation"])
# What a tool's argument can also be given, where nothing of its own role is there.
_ALSO: Mapping[Role, tuple[Role, ...]] = {
    Role.NAME: (Role.NUMBER, Role.QUERY),
    Role.QUERY: (Role.OBJECT, Role.FORMULA, Role.NAME),
    Role.OBJECT: (Role.NAME, Role.REGION, Role.QUERY),
    Role.REGION: (Role.BOX, Role.OBJECT, Role.NAME),
    Role.FORMULA: (Role.NUMBER,),
}


def unsuited_tool(scene: Scene) -> Iterator[Change]:
    """A tool for another kind of file or of value: a document's tool for a picture."""
    yield from _other_tools(scene, _Likeness.UNSUITED)


def asked_elsewhere(scene: Scene) -> Iterator[Change]:
    """A tool that answers questions, for what stands in a file of the task or can be computed."""
    yield from _other_tools(scene, _Likeness.QUESTION)


def similar_tool(scene: Scene) -> Iterator[Change]:
    """A tool whose arguments are called the same and is about something else."""
    yield from _other_tools(scene, _Likeness.SIMILAR)


def other_reader(scene: Scene) -> Iterator[Change]:
    """A tool that reads the same kind of file or query, and does something else with it."""
    yield from _other_tools(scene, _Likeness.READER)


class _Likeness(Enum):
    UNSUITED = "unsuited"
    QUESTION = "question"
    SIMILAR = "similar"
    READER = "reader"


def _other_tools(scene: Scene, likeness: _Likeness) -> Iterator[Change]:
    if not scene.uses:
        return
    use = scene.uses[-1]
    for tool in scene.situation.tools.values():
        # One that is in recordings alone can tell nothing of a call that nobody made.
        if tool.name in (FINAL_ANSWER, use.tool.name, *scene.situation.absent) or _makes_things(tool):
            continue
        if not _has_picture(scene, tool):
            continue
        values = _values_for(scene, use, tool) if _likeness(use, tool) == likeness else None
        if values is not None:
            yield Change(scene.with_arguments(use, values, tool.name), use.tool.name, tool.name)


def _makes_things(tool: ToolShape) -> bool:
    """Whether nobody would take the tool to find something out: it is told what to make, or nothing at all."""
    return not tool.arguments or any(one.name in _ORDERS for one in tool.arguments)


def _has_picture(scene: Scene, tool: ToolShape) -> bool:
    """Whether there is a picture, for tools that look at one."""
    told = " ".join((tool.description, *(one.name for one in tool.arguments))).lower()
    return bool(image_names(scene.situation)) or ("image" not in told and "picture" not in told)


def _likeness(use: ToolUse, tool: ToolShape) -> _Likeness:
    """How the other tool's required arguments go with what was given."""
    required = [one for one in tool.arguments if not one.optional]
    roles, names = [one.role for one in use.arguments], {one.shape.name for one in use.arguments}
    wanted = [wanted_role(one) for one in required]
    files = [str(one.value) for one in use.arguments if one.role == Role.FILE]
    if Role.FILE in wanted and files:
        return _Likeness.READER if file_sort(files[0]) in _sorts_read(tool) else _Likeness.UNSUITED
    if Role.QUERY in wanted:
        return _Likeness.READER if Role.QUERY in roles and not files else _Likeness.QUESTION
    if Role.FORMULA in wanted and Role.FORMULA in roles:
        return _Likeness.READER
    alike = all(one.name in names for one in required if wanted_role(one) == Role.NAME)
    return _Likeness.SIMILAR if alike and all(role in roles for role in wanted) else _Likeness.UNSUITED


def file_sort(name: str) -> str:
    """ "image", "table" or "document", by the ending."""
    ending = PurePosixPath(name).suffix.lower()
    return "image" if ending in IMAGE_ENDINGS else "table" if ending in TABLE_ENDINGS else "document"


def _sorts_read(tool: ToolShape) -> tuple[str, ...]:
    """The sorts of files that a tool reads, by the names of its arguments."""
    names = " ".join(f"{one.name} {one.kind}" for one in tool.arguments).lower()
    if any(word in names for word in ("image", "picture", "photo")):
        return ("image",)
    return ("table",) if "sql" in names.split() else ("document", "table")


def _values_for(scene: Scene, use: ToolUse, tool: ToolShape) -> list[str] | None:
    """Sources for the tool's required arguments, in order; None where one cannot be found or no given one is used."""
    required = [one for one in tool.arguments if not one.optional] or list(tool.arguments[:1])
    left = [one for one in use.arguments if one.keyword != "**" and not one.text.startswith("*")]
    values, used = [], False
    for shape in required:
        given = _fitting(left, wanted_role(shape))
        if given is not None:
            left.remove(given)
        used = used or given is not None
        value = given.text if given is not None else _made_up(scene, use, shape)
        if value is None:
            return None
        values.append(f"{shape.name}={value}" if all(one.keyword for one in use.arguments) else value)
    return values if used or wanted_role(required[0]) == Role.QUERY else None


def _fitting(left: list[Argument], wanted: Role) -> Argument | None:
    for role in (wanted, *_ALSO.get(wanted, ())):
        found = next((one for one in left if one.role == role), None)
        if found is not None:
            return found
    computed = [one for one in left if one.role == Role.OTHER]
    return computed[0] if computed else None


def _made_up(scene: Scene, use: ToolUse, shape: ArgumentShape) -> str | None:
    """What anybody would write there: the task as a query, all of the table, the thing that is asked for."""
    wanted = wanted_role(shape)
    if wanted == Role.QUERY:
        return rendered(question_of(scene.situation.instruction))
    files = [str(one.value) for one in use.arguments if one.role == Role.FILE]
    if wanted == Role.SQL and files:
        return rendered(f"SELECT * FROM {stem_of(files[0])}")
    if wanted == Role.REGION:
        return rendered("whole") if "whole" in shape.description else None
    return rendered("text") if listed_beside("text", shape.description) else None


def question_of(instruction: str) -> str:
    """The task's question in one line: its first sentence that asks, else its first one."""
    text = _PLACEHOLDERS.sub("", instruction).strip().removeprefix("Task:").strip()
    sentences = [one.strip() for one in re.split(r"(?<=[.?!])\s+", text) if one.strip()]
    asking = next((one for one in sentences if one.endswith("?") and len(one.split()) > _PRONOUN_QUESTION), "")
    asking = asking or (sentences[0] if sentences else "")
    return asking[:_MOST_QUESTION].strip()


RULES = (
    Rule("unsuited_tool", ErrorType.TOOL_MISMATCH, unsuited_tool),
    Rule("asked_elsewhere", ErrorType.TOOL_MISMATCH, asked_elsewhere),
    Rule("similar_tool", ErrorType.TOOL_MISMATCH, similar_tool),
    Rule("other_reader", ErrorType.TOOL_MISMATCH, other_reader, rare=True),
)
