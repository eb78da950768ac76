"""Which files of this package a worker needs: those that what it was asked to load imports, and no others.

A task is a pure function of its seed, so whoever can import what makes tasks can rebuild one and read its answer.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

OWN = "regrpo_jax"
FOLDER = Path(__file__).resolve().parents[2]
_TOOLBOX = f"{OWN}.toolbox"
_BY_NAME = f"{_TOOLBOX}.toolset"  # imports the tools of the toolbox by names that it puts together
_REFERENCE = re.compile(rf"{OWN}(\.\w+)+(:\w+)?")


def inside(references: Sequence[str]) -> list[Path]:
    """The files that importing these ("package.module:name", or dotted names) needs, sorted; `__init__` included."""
    return list(_closure(tuple(references)))


@functools.cache
def _closure(references: tuple[str, ...]) -> tuple[Path, ...]:
    waiting, found = [reference.replace(":", ".") for reference in references], set[Path]()
    while waiting:
        parts = waiting.pop().split(".")[1:]
        for length in range(len(parts) + 1):
            path = _file(parts[:length])
            if path is None or path in found:
                continue
            found.add(path)
            waiting += _named_in(path)
            if path == _file(_BY_NAME.split(".")[1:]):
                waiting += [f"{_TOOLBOX}.{other.stem}" for other in path.parent.glob("*.py")]
    return tuple(sorted(found))


def _file(parts: Sequence[str]) -> Path | None:
    path = FOLDER.joinpath(*parts)
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _named_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == OWN)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == OWN:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _REFERENCE.fullmatch(node.value):
            yield node.value.replace(":", ".")
