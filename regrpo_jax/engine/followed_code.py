"""Code of others followed statement by statement, without being run: which tools it calls, with what, what it prints.

Values that the code writes out are known, results of tools are `Result`s until an observation tells them, and all else
is unknown: what is computed in other ways, and what an unknown branch does.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regrpo_jax.engine.plain_values import MOST_ROUNDS, names_called, operated, pairs, plain_call, text_method, tried
from regrpo_jax.engine.printed import UNKNOWN, Result, Text, Unknown, holds_results, joined
from regrpo_jax.records.actions import FINAL_ANSWER

_MOST_CALLS = 128  # of a trajectory
_MOST_STATEMENTS = 5_000
_TEXTUAL = (str, Text, Result)


@dataclass
class MetCall:
    """A call that was met: its tool, arguments by name as they were known, and its result once it is known."""

    tool: str
    arguments: dict[str, Any]
    result: Any = UNKNOWN


@dataclass
class Follower:
    """arguments: the names of the arguments of each tool, in order.

    names: values of variables. calls: in their order; a `Result` is of the one of its number. unfollowed: tools that
    are called where nobody follows. printed, answered: what the code printed, and gave to `final_answer`.
    """

    arguments: Mapping[str, Sequence[str]]
    names: dict[str, Any] = field(default_factory=dict)
    calls: list[MetCall] = field(default_factory=list)
    unfollowed: set[str] = field(default_factory=set)
    printed: list[Text] = field(default_factory=list)
    answered: list[Any] = field(default_factory=list)
    left: int = _MOST_STATEMENTS

    def follow(self, tree: ast.Module) -> Any:
        """Follow a step; the value of its last statement, if that is an expression."""
        self.printed, self.answered = [], []
        last: Any = None
        for statement in tree.body:
            try:
                last = self.statement(statement)
            except RecursionError:  # nested deeply, or a list that holds itself
                self.names.clear()
                self.lost(statement)
        return last

    def filled(self, value: Any) -> Any:
        """A value with the results that are known by now in their places."""
        if isinstance(value, Result):
            known = self.calls[value.call].result
            return value if isinstance(known, Unknown) else known
        if isinstance(value, Text):
            pieces = [self.filled(piece) for piece in value.pieces]
            return value if any(map(holds_results, pieces)) else "".join(map(str, pieces))
        if isinstance(value, list | tuple):
            return type(value)(self.filled(item) for item in value)
        return {key: self.filled(item) for key, item in value.items()} if isinstance(value, dict) else value

    def statement(self, node: ast.stmt) -> Any:
        """Follow a statement; the value of an expression, None of any other."""
        self.left -= 1
        if self.left < 0:
            return self.lost(node)
        match node:
            case ast.Expr():
                return self.value(node.value)
            case ast.Assign():
                value = self.value(node.value)
                for target in node.targets:
                    self.bind(target, value)
            case ast.AnnAssign(target=target, value=ast.expr() as assigned):
                self.bind(target, self.value(assigned))
            case ast.AugAssign(op=operator, target=ast.Name(id=name)):
                self.names[name] = self.operated(operator, self.names.get(name, UNKNOWN), self.value(node.value))
            case ast.For() if (rounds := self.rounds(node.iter)) is not None:
                for item in rounds:
                    self.bind(node.target, item)
                    self.block(node.body)
                self.block(node.orelse)
            case ast.If() if not holds_results(test := self.value(node.test)):
                self.block(node.body if test else node.orelse)
            case ast.Try():
                self.block(node.body + node.orelse + node.finalbody)  # what is observed is no failure
            case ast.Import() | ast.ImportFrom() | ast.Pass():
                pass
            case _:
                self.lost(node)
        return None

    def block(self, body: Sequence[ast.stmt]) -> None:
        """Follow statements in their order."""
        for statement in body:
            self.statement(statement)

    def rounds(self, node: ast.expr) -> list[Any] | None:
        """What a loop goes through; None where that is not known, or the expression calls tools itself."""
        if any(name in self.arguments for name in names_called(node)):
            return None
        value = self.value(node)
        items = list(value) if isinstance(value, list | tuple | str | dict) else None
        return items if items is None or len(items) <= MOST_ROUNDS else None

    def lost(self, node: ast.AST) -> None:
        """Nobody follows this: what it gives values to is unknown, and so is what it prints."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Name) and isinstance(inner.ctx, ast.Store):
                self.names[inner.id] = UNKNOWN
        called = set(names_called(node))
        self.unfollowed |= called & set(self.arguments)
        if "print" in called or called & set(self.arguments):
            self.printed.append(Text((UNKNOWN,)))

    def bind(self, target: ast.expr, value: Any) -> None:
        """Give a value to a variable, to several, or to a place of a dict."""
        match target:
            case ast.Name(id=name):
                self.names[name] = value
            case ast.Tuple(elts=parts) | ast.List(elts=parts) if isinstance(value, list | tuple):
                for part, item in zip(
                    parts, value if len(parts) == len(value) else [UNKNOWN] * len(parts), strict=True
                ):
                    self.bind(part, item)
            case ast.Subscript(value=ast.Name(id=name), slice=key) if isinstance(self.names.get(name), dict):
                self.names[name] = self.names[name] | {self.key(key): value}
            case ast.Subscript(value=ast.Name(id=name)) | ast.Attribute(value=ast.Name(id=name)):
                self.names[name] = UNKNOWN
            case _:
                self.lost(target)

    def key(self, node: ast.expr) -> Any:
        """Of a dict; UNKNOWN for what is no plain one."""
        value = self.value(node)
        return value if isinstance(value, str | int | float | bool) else UNKNOWN

    def value(self, node: ast.expr) -> Any:
        """The value of an expression; UNKNOWN where it is not followed. Calls in it are met all the same."""
        match node:
            case ast.Constant(value=constant):
                return constant
            case ast.Name(id=name):
                return self.names.get(name, UNKNOWN)
            case ast.JoinedStr(values=parts):
                return self.tidy(joined([self.formatted(part) for part in parts]))
            case ast.List(elts=parts):
                return [self.value(part) for part in parts]
            case ast.Tuple(elts=parts):
                return tuple(self.value(part) for part in parts)
            case ast.Dict(keys=keys, values=values) if all(keys):
                return {self.key(key): self.value(one) for key, one in zip(keys, values, strict=True) if key}
            case ast.BinOp(op=operator):
                return self.operated(operator, self.value(node.left), self.value(node.right))
            case ast.UnaryOp(op=ast.USub()):
                return operated(ast.Sub(), 0, self.value(node.operand))
            case ast.Subscript():
                return self.part(self.value(node.value), node.slice)
            case ast.Call():
                return self.called(node)
            case ast.ListComp(generators=[ast.comprehension(ifs=[]) as each]) if (
                rounds := self.rounds(each.iter)
            ) is not None:
                return [self.item(each.target, one, node.elt) for one in rounds]
            case ast.ListComp() | ast.SetComp() | ast.DictComp() | ast.GeneratorExp() | ast.Lambda():
                self.lost(node)
                return UNKNOWN
        for part in ast.iter_child_nodes(node):
            if isinstance(part, ast.expr):
                self.value(part)  # for the calls in it
        return UNKNOWN

    def item(self, target: ast.expr, one: Any, element: ast.expr) -> Any:
        """An item of a list that is written as a loop."""
        self.bind(target, one)
        return self.value(element)

    def part(self, whole: Any, at: ast.expr) -> Any:
        """An item, or a slice."""
        if isinstance(whole, Text | Result | Unknown):
            self.value(at) if not isinstance(at, ast.Slice) else None
            return UNKNOWN
        if isinstance(at, ast.Slice):
            ends = [None if end is None else self.value(end) for end in (at.lower, at.upper, at.step)]
            return tried(lambda: whole[slice(*ends)])
        place = self.value(at)
        return tried(lambda: whole[place])

    def formatted(self, part: ast.expr) -> Any:
        """A piece of an f-string."""
        if not isinstance(part, ast.FormattedValue):
            return self.value(part)
        value = self.value(part.value)
        return value if part.conversion == -1 and part.format_spec is None else UNKNOWN

    def operated(self, operator: ast.operator, left: Any, right: Any) -> Any:
        """Texts with open results are put together; all else is plain."""
        textual = isinstance(left, _TEXTUAL) and isinstance(right, _TEXTUAL)
        results = isinstance(left, Result) and isinstance(right, Result)  # these may be lists or numbers
        if isinstance(operator, ast.Add) and textual and not results:
            return self.tidy(joined([left, right]))
        return operated(operator, left, right)

    def tidy(self, text: Text) -> Any:
        """A text without open results is a plain one; what is very long is not followed."""
        filled = self.filled(text)
        if isinstance(filled, Text) and all(isinstance(piece, str) for piece in filled.pieces):
            filled = "".join(map(str, filled.pieces))
        return tried(lambda: filled) if isinstance(filled, str) or len(filled.pieces) < MOST_ROUNDS else UNKNOWN

    def called(self, node: ast.Call) -> Any:
        """The value of a call: of a tool, of what is printed or answered, of a function of plain values."""
        if isinstance(node.func, ast.Attribute):
            return self.method(node, node.func)
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        given = [self.value(one) for one in node.args]
        named = {word.arg or "**": self.value(word.value) for word in node.keywords}
        if name == FINAL_ANSWER:
            self.answered += [*given, *named.values()][:1]
            return None
        if name == "print":
            return self.prints(given, named)
        if name in self.arguments and name not in self.names:
            return self.met(name, given, named, starred=any(isinstance(one, ast.Starred) for one in node.args))
        if name == "str" and len(given) == 1 and isinstance(given[0], _TEXTUAL):
            return given[0]
        if name in self.names or named:
            return UNKNOWN
        return pairs(name, given) if any(map(holds_results, given)) else self.plain(name, given)

    def plain(self, name: str, given: list[Any]) -> Any:
        """Of a function of plain values."""
        found = pairs(name, given)
        return plain_call(name, given) if isinstance(found, Unknown) else found

    def prints(self, given: list[Any], named: dict[str, Any]) -> None:
        """Note what is printed."""
        between, end = named.pop("sep", " "), named.pop("end", "\n")
        followed = not named and isinstance(between, str) and isinstance(end, str)
        self.printed.append(joined([joined(given, between), end]) if followed else Text((UNKNOWN,)))

    def met(self, tool: str, given: list[Any], named: dict[str, Any], *, starred: bool) -> Any:
        """A call of a tool."""
        if starred or "**" in named or len(self.calls) >= _MOST_CALLS:
            self.unfollowed.add(tool)
            return UNKNOWN
        names = self.arguments[tool]
        placed = {names[at] if at < len(names) else str(at): value for at, value in enumerate(given)}
        self.calls.append(MetCall(tool, placed | named))
        return Result(len(self.calls) - 1)

    def method(self, node: ast.Call, function: ast.Attribute) -> Any:
        """Lists that grow, texts that are joined or trimmed; `tools.name(..)` is a call of the tool."""
        if isinstance(function.value, ast.Name) and function.value.id == "tools" and function.attr in self.arguments:
            return self.called(ast.Call(ast.Name(function.attr, ast.Load()), node.args, node.keywords))
        owner, given = self.value(function.value), [self.value(one) for one in node.args]
        named = [self.value(word.value) for word in node.keywords]
        match owner:
            case list() if function.attr == "append" and len(given) == 1:
                owner.append(given[0])
                return None
            case str() if function.attr == "join" and given and isinstance(given[0], list | tuple):
                return self.tidy(joined(given[0], owner))
            case str() if not named and not any(map(holds_results, given)):
                return text_method(owner, function.attr, given)
            case dict() if function.attr in ("items", "values", "keys") and not given:
                return list(getattr(owner, function.attr)())
            case list() | dict() if isinstance(function.value, ast.Name):
                self.names[function.value.id] = UNKNOWN  # it may have changed
        return UNKNOWN
