"""What is going on in a clean step: which tools it calls, with what, and what each argument is for.

Arguments get a role from what their tool declares, from their name and from their value, so that one rule serves a
region of any tool of any family.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from regrpo_jax.engine.cases import ArgumentShape, Situation, ToolShape
from regrpo_jax.engine.perturb.source import Source, Span, literal, rendered
from regrpo_jax.engine.perturb.words import file_names, is_file_name, word_set, words_told
from regrpo_jax.records.actions import FINAL_ANSWER, KNOWN_TOOLS, action_signature
from regrpo_jax.toolbox.shapes import COLORS

_MOST_USES = 6  # of tools in one step; the last ones decide what the step returns
_MOST_CALLS = 24  # a step with more is a program of its own, and costs time without end to compare
_SQL = re.compile(r"\s*(?:select|with)\b", re.IGNORECASE)
_NUMBER_TEXT = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?\Z")
_FORMULA = re.compile(r"[\d\w\s.()+*/%=<>,^-]*\d\s*[-+*/^=]+\s*[\w(][\d\w\s.()+*/%=<>,^-]*\Z")
BOX_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_REGION = re.compile(
    r"(?:the\s+)?(?:(?:top|bottom|upper|lower|low|left|right|center|centre|middle|whole)[\s-]*)+(?:corner|half|side)?\Z",
    re.IGNORECASE,
)
_FILE_NAMES = re.compile(r"(?:^|_)(?:file|path|image|picture|photo|document|filename)s?(?:$|_)", re.IGNORECASE)
_REGION_NAMES = word_set("region bbox box position area crop part")
_QUERY_NAMES = word_set("query question prompt instruction keywords command_text q")
_OBJECT_NAMES = word_set("object text label colour color thing shape annotation category")
_FORMULA_NAMES = word_set("expression command code formula equation")
_NUMBER_KINDS = frozenset({"integer", "number", "int", "float"})
_MEDIA_KINDS = frozenset({"image", "audio", "video", "file"})


class Role(StrEnum):
    """What an argument is for."""

    FILE = "file"
    REGION = "region"
    BOX = "box"
    OBJECT = "object"
    QUERY = "query"
    SQL = "sql"
    FORMULA = "formula"
    NUMBER = "number"
    FLAG = "flag"
    NAME = "name"
    OTHER = "other"


@dataclass(frozen=True)
class Argument:
    """An argument of a call.

    keyword: "" where it is given by position. text: its source. value: of a literal, also of one that a variable was
    set to, else None; span: where that literal stands, None where it cannot be changed.
    """

    shape: ArgumentShape
    keyword: str
    text: str
    value: Any
    role: Role
    span: Span | None

    @property
    def source(self) -> str:
        """As it stands in the call."""
        return f"{self.keyword}={self.text}" if self.keyword not in ("", "**") else f"{self.keyword}{self.text}"


@dataclass(frozen=True)
class ToolUse:
    """A call of a tool. span: of the whole call; name: of the tool's name in it; inner: of a subscript around it."""

    tool: ToolShape
    arguments: tuple[Argument, ...]
    span: Span
    name: Span
    around: ast.Subscript | None = None


class Scene:
    """A situation with its step read: `uses` are its calls of tools, final_answer left out, in source order.

    present: leave out those of tools that are here in recordings alone.
    """

    def __init__(self, situation: Situation, *, present: bool = False) -> None:
        self.situation = situation
        self.hidden = situation.absent if present else frozenset()
        self.source = Source(situation.step.code)
        self.tools = KNOWN_TOOLS | set(situation.tools)
        self.calls = tuple(self._calls())

    @functools.cached_property
    def uses(self) -> tuple[ToolUse, ...]:
        tools = [call for call in self.calls if _called(call) not in (FINAL_ANSWER, *self.hidden)][-_MOST_USES:]
        return tuple(use for use in map(self._use, tools) if use is not None)

    @functools.cached_property
    def signature(self) -> tuple[str, ...]:
        """What the clean step does, as `records.actions` compares it."""
        return action_signature(self.source.code, self.tools)

    @functools.cached_property
    def answers(self) -> tuple[ast.Call, ...]:
        """The calls of final_answer."""
        return tuple(call for call in self.calls if _called(call) == FINAL_ANSWER)

    @functools.cached_property
    def told(self) -> tuple[str, ...]:
        """See `words_told`."""
        return words_told(self.situation)

    @functools.cached_property
    def files(self) -> tuple[str, ...]:
        """All files of the workspace."""
        return file_names(self.situation)

    def given(self, role: Role) -> list[tuple[ToolUse, Argument]]:
        """The arguments of a role that can be changed, each with its call."""
        return [(use, one) for use in self.uses for one in use.arguments if one.role == role and one.span is not None]

    def with_value(self, argument: Argument, value: Any) -> str:
        """The code with another value there."""
        assert argument.span is not None
        return self.source.replaced(argument.span, rendered(value, self.source.text(argument.span)))

    def with_arguments(self, use: ToolUse, arguments: Sequence[str], tool: str = "") -> str:
        """The code with other arguments (their sources) in a call, maybe of another tool."""
        called = self.source.text(Span(use.span.start, use.name.start)) + (tool or use.tool.name)
        return self.source.replaced(use.span, f"{called}({', '.join(arguments)})")

    def _calls(self) -> list[ast.Call]:
        if self.source.tree is None:
            return []
        tools, own = {*self.situation.tools, FINAL_ANSWER}, self.source.names_bound()
        found = [node for node in ast.walk(self.source.tree) if isinstance(node, ast.Call)]
        found = [call for call in found if _called(call) in tools and _called(call) not in own]
        if len(found) > _MOST_CALLS:
            return []
        return sorted(found, key=lambda call: (call.end_lineno or 0, call.end_col_offset or 0, -call.col_offset))

    def _use(self, call: ast.Call) -> ToolUse | None:
        span, func, tool = self.source.span(call), self.source.span(call.func), self.situation.tools[_called(call)]
        if span is None or func is None or not self.source.text(func).endswith(tool.name):
            return None
        given = [*(("", node) for node in call.args), *((word.arg or "**", word.value) for word in call.keywords)]
        arguments = [self._argument(tool, place, keyword, node) for place, (keyword, node) in enumerate(given)]
        if any(one is None for one in arguments):
            return None
        name = Span(func.end - len(tool.name.encode()), func.end)
        around = next((node for node in self._subscripts if node.value is call), None)
        return ToolUse(tool, tuple(one for one in arguments if one is not None), span, name, around)

    @functools.cached_property
    def _subscripts(self) -> list[ast.Subscript]:
        tree = self.source.tree
        return [node for node in ast.walk(tree) if isinstance(node, ast.Subscript)] if tree is not None else []

    @functools.cached_property
    def _constants(self) -> dict[str, ast.expr]:
        return self.source.constants()

    def _argument(self, tool: ToolShape, place: int, keyword: str, node: ast.expr) -> Argument | None:
        own = self.source.span(node.value if isinstance(node, ast.Starred) else node)
        if own is None:
            return None
        if keyword:
            shape = next((one for one in tool.arguments if one.name == keyword), ArgumentShape(keyword, "any"))
        else:
            shape = tool.arguments[place] if place < len(tool.arguments) else ArgumentShape("", "any")
        named = self._constants.get(node.id, node) if isinstance(node, ast.Name) else node
        value = None if isinstance(node, ast.Starred) else literal(named)
        span = self.source.span(named) if value is not None else None
        text = "*" * isinstance(node, ast.Starred) + self.source.text(own)
        return Argument(shape, keyword, text, value, role_of(shape, value, self.files), span)


def _called(call: ast.Call) -> str:
    """The name of what is called: plain, or of the agent's `tools`."""
    if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
        return call.func.attr if call.func.value.id == "tools" else ""
    return call.func.id if isinstance(call.func, ast.Name) else ""


def wanted_role(shape: ArgumentShape) -> Role:
    """What a tool wants for an argument, by its declaration alone."""
    name = shape.name.lower()
    if shape.kind in _MEDIA_KINDS or _FILE_NAMES.search(name):
        return Role.FILE
    if shape.kind in _NUMBER_KINDS:
        return Role.NUMBER
    if shape.kind in ("boolean", "bool"):
        return Role.FLAG
    for names, role in ((_REGION_NAMES, Role.REGION), (_QUERY_NAMES, Role.QUERY), (_OBJECT_NAMES, Role.OBJECT),
                        (_FORMULA_NAMES, Role.FORMULA)):  # fmt: skip
        if name in names:
            return role
    return Role.SQL if name == "sql" else Role.NAME


def role_of(shape: ArgumentShape, value: Any, files: Sequence[str]) -> Role:
    """What a given value is, by its form first, and by its argument's declaration where the form leaves it open."""
    wanted = wanted_role(shape)
    if value is None or isinstance(value, bool):
        return Role.OTHER if value is None else Role.FLAG
    if isinstance(value, int | float):
        return Role.NUMBER
    if isinstance(value, list | tuple):
        numbers = [one for one in value if isinstance(one, int | float) and not isinstance(one, bool)]
        return Role.BOX if len(value) == 4 == len(numbers) else Role.OTHER
    return _role_of_text(value, wanted, files)


def _role_of_text(text: str, wanted: Role, files: Sequence[str]) -> Role:
    if text in files or is_file_name(text) or (wanted == Role.FILE and text.strip()):
        return Role.FILE
    if len(BOX_NUMBER.findall(text)) == 4 and not BOX_NUMBER.sub("", text).strip(" ,()[]"):
        return Role.BOX
    if _SQL.match(text) and len(text.split()) > 2:
        return Role.SQL
    if _REGION.match(text.strip()) or wanted == Role.REGION:
        return Role.REGION
    if _NUMBER_TEXT.match(text):
        return Role.NUMBER
    if wanted == Role.FORMULA or (wanted != Role.QUERY and len(text) < 200 and _FORMULA.match(text)):
        return Role.FORMULA
    if wanted in (Role.OBJECT, Role.QUERY) or text.lower() in COLORS:
        return Role.OBJECT if wanted != Role.QUERY else Role.QUERY
    return Role.QUERY if len(text.split()) > 3 else Role.NAME
