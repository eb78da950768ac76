"""Python source that is changed in one place and otherwise stays as it was written: quotes, spaces, comments and all.

A tiny policy reads double quotes everywhere, and a failed action must not be told from a right one by its layout;
`ast.unparse` would change both.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from regrpo_jax.records.actions import parse_python

_LINE_END = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK = "\ufeff"


class Span(NamedTuple):
    """Bytes `start` to `end` (excluded) of the UTF-8 source."""

    start: int
    end: int


class Source:
    """Code and its syntax tree; `tree` is None for what does not parse."""

    def __init__(self, code: str) -> None:
        self.code = code
        self.tree = None if code.startswith(_BYTE_ORDER_MARK) else parse_python(code)
        self._bytes = code.encode("utf-8", "surrogatepass")
        self._lines = [0, *(match.end() for match in _LINE_END.finditer(self._bytes))]

    def span(self, node: ast.expr) -> Span | None:
        """Where an expression stands; None where the tree does not say it right (inside f-strings, before 3.12)."""
        if node.end_lineno is None or node.end_col_offset is None or node.end_lineno > len(self._lines):
            return None
        start = self._lines[node.lineno - 1] + node.col_offset
        span = Span(start, self._lines[node.end_lineno - 1] + node.end_col_offset)
        parsed = parse_python(f"({self.text(span)}\n)")
        if parsed is None or len(parsed.body) != 1 or not isinstance(parsed.body[0], ast.Expr):
            return None
        return span if ast.dump(parsed.body[0].value) == ast.dump(node) else None

    def text(self, span: Span) -> str:
        """The source there."""
        return self._bytes[span.start : span.end].decode("utf-8", "replace")

    def replaced(self, span: Span, text: str) -> str:
        """All of the code, with another text there."""
        before, after = self._bytes[: span.start], self._bytes[span.end :]
        return (before + text.encode("utf-8", "surrogatepass") + after).decode("utf-8", "replace")

    def names_bound(self) -> frozenset[str]:
        """Names that the code itself gives a value to."""
        return frozenset(_bound_names(self.tree)) if self.tree is not None else frozenset()

    def constants(self) -> dict[str, ast.expr]:
        """Names that get one value, at the top level, and the expression that is it."""
        if self.tree is None:
            return {}
        bound = list(_bound_names(self.tree))
        return {
            node.targets[0].id: node.value
            for node in self.tree.body
            if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name)
            and bound.count(node.targets[0].id) == 1
        }  # fmt: skip


def _bound_names(tree: ast.Module) -> Iterable[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg


def literal(node: ast.expr) -> Any:
    """The value of a text, number or list as it is written out, None for everything else."""
    try:
        value = ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, str | int | float | list | tuple) else None


def rendered(value: Any, like: str = "") -> str:
    """A text, number or list as Python source; texts in the quotes of the source `like`, else in double quotes."""
    if isinstance(value, str):
        single = like.startswith("'") and not like.startswith("'''")
        return repr(value) if single else json.dumps(value, ensure_ascii=False)
    if isinstance(value, list | tuple):
        inner = ", ".join(rendered(item) for item in value)
        return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' * (len(value) == 1)})"
    return repr(value)
