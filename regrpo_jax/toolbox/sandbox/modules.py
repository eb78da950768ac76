"""Which files of this package a worker needs: those that what it was asked to load imports, and no others.

A task is a pure function of its seed, so whoever can import what makes tasks can rebuild one and read its answer.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

PACKAGE = "regrpo_jax"
_FOLDER = Path(__file__).resolve().parents[2]
_REFERENCE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+):[A-Za-z_]\w*")


def inside(references: Sequence[str]) -> list[Path]:
    """The files that importing these ("package.module:name", or dotted names) needs, sorted; `__init__` included."""
    return list(_closure(tuple(reference.partition(":")[0] for reference in references)))


@functools.cache
def _closure(modules: tuple[str, ...]) -> tuple[Path, ...]:
    waiting, found = list(modules), set[Path]()
    while waiting:
        top, *parts = waiting.pop().split(".")
        for length in range(len(parts) + 1) if top == PACKAGE else ():
            path = _FOLDER.joinpath(*parts[:length])
            file = next((f for f in (path / "__init__.py", path.with_suffix(".py")) if f.is_file()), None)
            if file is not None and file not in found:
                found.add(file)
                waiting += mentioned(file, ".".join([top, *parts[:length]]))
    return tuple(sorted(found))


def mentioned(file: Path, module: str) -> Iterator[str]:
    """Dotted names that may be modules: all that a source imports when it runs, and all that it refers to."""
    package = module if file.name == "__init__.py" else module.rpartition(".")[0]
    waiting: list[ast.AST] = [ast.parse(file.read_bytes())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).rpartition(".")[2] == "TYPE_CHECKING":
            waiting += node.orelse  # what stands there is never run
            continue
        waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            outer = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            whence = ".".join([*outer, *([node.module] if node.module else [])])
            yield from (whence, *(f"{whence}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            referred = _REFERENCE.fullmatch(node.value)
            if referred:
                yield referred[1]
