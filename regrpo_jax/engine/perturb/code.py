"""CodeError: code that raises before, around or behind a tool that is rightly chosen."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator
from typing import Any

from regrpo_jax.engine.perturb.rule import Change, Rule, other_value
from regrpo_jax.engine.perturb.scene import Role, Scene, ToolUse
from regrpo_jax.engine.perturb.source import Span, literal, rendered
from regrpo_jax.engine.perturb.words import typing_errors, word_kind
from regrpo_jax.records.types import ErrorType

_COLUMN = re.compile(r"(?:(?<=SELECT )|(?<=SUM\()|(?<=WHERE )|(?<=ORDER BY ))[A-Za-z_]\w*", re.IGNORECASE)
_USUAL_KEYS = ("value", "result", "text", "total")
_MOST_SITES = 4
_PYTHON_NAMES = frozenset(dir(builtins))


def misspelled_tool(scene: Scene) -> Iterator[Change]:
    """A tool under a name that is nearly its own."""
    for name in dict.fromkeys(_names_of_tools(scene)):
        span = next(span for span in _places(scene) if scene.source.text(span) == name)
        others = typing_errors(name)[:4]
        others += [name.replace("_", ""), name.partition("_")[0]] if "_" in name else [name.capitalize()]
        for other in others:
            if other not in scene.situation.tools and other not in _PYTHON_NAMES and other.isidentifier():
                yield Change(scene.source.replaced(span, other))


def _names_of_tools(scene: Scene) -> list[str]:
    return [scene.source.text(span) for span in _places(scene)]


def _places(scene: Scene) -> list[Span]:
    """Where the names of called tools stand, final_answer's included."""
    found = [use.name for use in scene.uses]
    ends = [scene.source.span(call.func) for call in scene.answers if isinstance(call.func, ast.Name)]
    return [*found, *(span for span in ends if span is not None)]


def undefined_variable(scene: Scene) -> Iterator[Change]:
    """A text without its quotes, or a variable that was never set."""
    taken = scene.source.names_bound() | set(scene.situation.tools) | _PYTHON_NAMES
    for use in scene.uses:
        for argument in use.arguments:
            if argument.span is None or not isinstance(argument.value, str):
                continue
            names = [argument.value, re.sub(r"\W", "_", argument.value), argument.shape.name]
            for name in dict.fromkeys(names):
                if name.isidentifier() and name not in taken and len(name) < 40:
                    yield Change(scene.source.replaced(argument.span, name))
    for node in _variables_read(scene):
        span = scene.source.span(node)
        for name in typing_errors(node.id)[:1] if span is not None else ():
            if span is not None and name not in taken and name.isidentifier():
                yield Change(scene.source.replaced(span, name))


def _variables_read(scene: Scene) -> list[ast.Name]:
    own = scene.source.names_bound()
    nodes = ast.walk(scene.source.tree) if scene.source.tree is not None else ()
    return [one for one in nodes if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Load) and one.id in own][
        -_MOST_SITES:
    ]


def unclosed(scene: Scene) -> Iterator[Change]:
    """A bracket or a quote that is not closed."""
    code = scene.source.code
    if scene.source.tree is None:
        return
    for closing in (")", '")', "')", "]"):
        at = code.rfind(closing)
        if at >= 0:
            yield Change(
                code[:at] + closing[1:] + code[at + len(closing) :] if len(closing) > 1 else code[:at] + code[at + 1 :]
            )


def missing_import(scene: Scene) -> Iterator[Change]:
    """A module that is used and not imported."""
    code = scene.source.code
    for node in scene.source.tree.body if scene.source.tree is not None else ():
        if isinstance(node, ast.Import | ast.ImportFrom) and node.lineno == node.end_lineno:
            lines = code.splitlines(keepends=True)
            if node.lineno <= len(lines) and lines[node.lineno - 1].strip() == ast.unparse(node):
                yield Change("".join(lines[: node.lineno - 1] + lines[node.lineno :]))
    if "json" not in scene.source.names_bound():
        for use in scene.uses[-1:]:
            yield Change(scene.source.replaced(use.span, f"json.loads({scene.source.text(use.span)})"))


def number_of_text(scene: Scene) -> Iterator[Change]:
    """What a tool says in words, taken for a number."""
    for use in scene.uses[-1:]:
        for kind in ("int", "float"):
            yield Change(scene.source.replaced(use.span, f"{kind}({scene.source.text(use.span)})"))


def wrong_subscript(scene: Scene) -> Iterator[Change]:
    """A part of the result that it does not have."""
    for use in scene.uses[-2:]:
        text = scene.source.text(use.span)
        if use.around is not None:
            yield from _other_keys(scene, use)
            continue
        for part in (*(f"[{rendered(key)}]" for key in _USUAL_KEYS), ".text", ".result"):
            yield Change(scene.source.replaced(use.span, text + part))


def _other_keys(scene: Scene, use: ToolUse) -> Iterator[Change]:
    assert use.around is not None
    span, key = scene.source.span(use.around.slice), literal(use.around.slice)
    if span is None:
        return
    others: list[Any] = []
    if isinstance(key, str):
        told = [word for word in scene.told if word_kind(word) == word_kind(key)]
        others = [*told, key.capitalize(), key + "s", *_USUAL_KEYS, *typing_errors(key)[:2]]
    elif isinstance(key, int):
        others = [key + 1, key + 10, "text"]
    for other in others:
        if other != key:
            before = str(key) if isinstance(key, str) else ""
            yield Change(scene.source.replaced(span, rendered(other, scene.source.text(span))), before, str(other))


def wrong_column(scene: Scene) -> Iterator[Change]:
    """A column that the table does not have."""
    for _, argument in scene.given(Role.SQL):
        for match in list(_COLUMN.finditer(argument.value))[:_MOST_SITES]:
            word = match.group()
            told = [other for other in scene.told if word_kind(other) == "name" and other.isidentifier()]
            for other in (*told, word + "s", f"{word}_value", *typing_errors(word)[:2]):
                if other != word:
                    changed = argument.value[: match.start()] + other + argument.value[match.end() :]
                    yield other_value(scene, argument, changed)


RULES = (
    Rule("wrong_column", ErrorType.CODE_ERROR, wrong_column),
    Rule("wrong_subscript", ErrorType.CODE_ERROR, wrong_subscript),
    Rule("misspelled_tool", ErrorType.CODE_ERROR, misspelled_tool),
    Rule("undefined_variable", ErrorType.CODE_ERROR, undefined_variable),
    Rule("unclosed", ErrorType.CODE_ERROR, unclosed, parses=False),
    Rule("number_of_text", ErrorType.CODE_ERROR, number_of_text),
    Rule("missing_import", ErrorType.CODE_ERROR, missing_import),
)
