"""What one action does differently from another, read from the two syntax trees: what fix plans are made of."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from regrpo_jax.records.actions import FINAL_ANSWER, action_signature, parse_python
from regrpo_jax.records.syntax import evaluated_literal


class ChangeKind(StrEnum):
    """The ways in which a corrected action differs from the failed one."""

    TOOL = "tool"  # another tool is called
    ARGUMENT = "argument"  # an argument has another value
    ADDED = "added"  # an argument is given that was not
    REMOVED = "removed"  # an argument is given no more
    RENAMED = "renamed"  # the same value is given under another keyword
    KEY = "key"  # another part is taken of what a tool returned
    ANSWER = "answer"  # final_answer is called at last
    CODE = "code"  # the code around the calls is another


@dataclass(frozen=True)
class Change:
    """One difference. tool: the corrected action's. place: keyword, or the position of the argument from 1, else "".

    old, new: the values as text (strings without quotes, others as Python source); "" where there is none.
    """

    kind: ChangeKind
    tool: str = ""
    place: str = ""
    old: str = ""
    new: str = ""


@dataclass(frozen=True)
class Difference:
    """All changes from a failed action to its correction, in source order; () for actions that do the same."""

    changes: tuple[Change, ...]

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools that the changes are about."""
        return tuple(change.tool for change in self.changes if change.tool)

    @property
    def new_values(self) -> tuple[str, ...]:
        """The values that only the corrected action has."""
        return tuple(change.new for change in self.changes if change.new)

    @property
    def old_values(self) -> tuple[str, ...]:
        """The values that only the failed action has."""
        return tuple(change.old for change in self.changes if change.old)


def value_text(node: ast.expr) -> str:
    """A string literal without its quotes, anything else as source."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ast.unparse(node)


def literal_value(source: str) -> object:
    """The value of a Python literal; None for anything that must be computed (and for None itself)."""
    try:
        return evaluated_literal(source)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None


def _calls(tree: ast.Module, tools: frozenset[str]) -> list[ast.Call]:
    """The calls of tools in source order; of any plain names when there are none, for a misspelled tool."""
    named = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    known = [call for call in named if _name(call) in tools]
    return sorted(known or named, key=lambda call: (call.lineno, call.col_offset))


def _name(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _positional(call: ast.Call) -> list[str]:
    return [value_text(argument) for argument in call.args]


def _keywords(call: ast.Call) -> dict[str, str]:
    return {keyword.arg or "**": value_text(keyword.value) for keyword in call.keywords}


def _left_over(longer: list[str], shorter: list[str]) -> list[int] | None:
    """Indices of `longer` that are not in `shorter`, when the rest is `shorter` in order; else None."""
    extra, rest = [], list(shorter)
    for index, value in enumerate(longer):
        if rest and value == rest[0]:
            del rest[0]
        else:
            extra.append(index)
    return None if rest else extra


def _argument_changes(tool: str, failed: ast.Call, corrected: ast.Call) -> Iterator[Change]:
    old, new = _positional(failed), _positional(corrected)
    same_keywords = _keywords(failed) == _keywords(corrected)
    added, removed = _left_over(new, old), _left_over(old, new)
    if same_keywords and added is not None:
        yield from (Change(ChangeKind.ADDED, tool, str(index + 1), "", new[index]) for index in added)
    elif same_keywords and removed is not None:
        yield from (Change(ChangeKind.REMOVED, tool, str(index + 1), old[index], "") for index in removed)
    else:
        yield from _held_changes(tool, _numbered(old) | _keywords(failed), _numbered(new) | _keywords(corrected))


def _numbered(values: list[str]) -> dict[str, str]:
    return {str(number): value for number, value in enumerate(values, start=1)}


def _held_changes(tool: str, failed: dict[str, str], corrected: dict[str, str]) -> Iterator[Change]:
    gone = {place: value for place, value in failed.items() if place not in corrected}
    for place, value in corrected.items():
        renamed = next((old for old, held in gone.items() if held == value), None)
        if place in failed:
            if failed[place] != value:
                yield Change(ChangeKind.ARGUMENT, tool, place, failed[place], value)
        elif renamed is not None:
            del gone[renamed]
            yield Change(ChangeKind.RENAMED, tool, place, renamed, place)
        else:
            yield Change(ChangeKind.ADDED, tool, place, "", value)
    yield from (Change(ChangeKind.REMOVED, tool, place, value) for place, value in gone.items())


def _call_changes(failed: ast.Call, corrected: ast.Call) -> Iterator[Change]:
    tool = _name(corrected)
    if _name(failed) != tool:
        yield Change(ChangeKind.TOOL, tool, "", _name(failed), tool)
    yield from _argument_changes(tool, failed, corrected)


def _keys(tree: ast.Module) -> list[str]:
    """Constants in square brackets and names after a dot, in the order the tree has them."""
    keys = [node.slice for node in ast.walk(tree) if isinstance(node, ast.Subscript)]
    names = [node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return [*(value_text(key) for key in keys if isinstance(key, ast.Constant)), *names]


def _key_changes(failed: ast.Module, corrected: ast.Module, tool: str) -> Iterator[Change]:
    old, new = _keys(failed), _keys(corrected)
    added, removed = _left_over(new, old), _left_over(old, new)
    if added is not None:
        yield from (Change(ChangeKind.ADDED, tool, "", "", new[index]) for index in added)
    elif removed is not None:
        yield from (Change(ChangeKind.REMOVED, tool, "", old[index], "") for index in removed)
    elif len(old) == len(new):
        yield from (Change(ChangeKind.KEY, tool, "", a, b) for a, b in zip(old, new, strict=True) if a != b)


def _changes(failed: ast.Module, corrected: ast.Module, tools: frozenset[str]) -> Iterator[Change]:
    before, after = _calls(failed, tools), _calls(corrected, tools)
    if after and _name(after[-1]) == FINAL_ANSWER and FINAL_ANSWER not in map(_name, before):
        answer = next(iter((*_positional(after[-1]), *_keywords(after[-1]).values())), "")
        yield Change(ChangeKind.ANSWER, FINAL_ANSWER, "", "", answer)
        return
    if len(before) != len(after):
        return
    for one, other in zip(before, after, strict=True):
        yield from _call_changes(one, other)
    yield from _key_changes(failed, corrected, _name(after[-1]) if after else "")


def difference(failed_code: str, corrected_code: str, tools: frozenset[str]) -> Difference:
    """How `corrected_code` differs from `failed_code`; `tools` are the names that count as tools.

    Where the calls cannot be paired, or the code does not parse, it is one change of kind CODE.
    """
    failed, corrected = parse_python(failed_code), parse_python(corrected_code)
    try:
        found = () if failed is None or corrected is None else tuple(_changes(failed, corrected, tools))
    except RecursionError:
        found = ()
    if found or action_signature(failed_code, tools) == action_signature(corrected_code, tools):
        return Difference(found)
    return Difference((Change(ChangeKind.CODE),))
