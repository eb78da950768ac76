"""The syntax tree of a source, one thread at a time.

CPython up to 3.12 counts how deep the tree is that it makes in one place for all threads. Another thread that makes
one meanwhile, which a garbage collection in the middle lets happen, ends the first with "SystemError: AST constructor
recursion depth mismatch". Clients of a cluster release their references in such collections, so it is no rare thing.
"""

from __future__ import annotations

import ast
import threading
from typing import Any

_ONE_AT_A_TIME = threading.RLock()  # a collection may run anything, in the same thread as well


def syntax_tree(source: str | bytes) -> ast.Module:
    """As `ast.parse`."""
    with _ONE_AT_A_TIME:
        return ast.parse(source)


def syntax_of_expression(source: str) -> ast.Expression:
    """As `ast.parse` of an expression."""
    with _ONE_AT_A_TIME:
        return ast.parse(source, mode="eval")


def evaluated_literal(source: str) -> Any:
    """As `ast.literal_eval`."""
    with _ONE_AT_A_TIME:
        return ast.literal_eval(source)
