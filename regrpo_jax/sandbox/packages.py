"""Which files and folders of a user a worker needs: the packages that were named, never the folder they lie in.

A project's folder holds more than its packages: its history, its runs with the answers in them, its keys. So a module
that is one file is that file, a package is its folder, and of what such a module imports from beside it, or from
`sandbox.python_path`, the same holds.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.modules import PACKAGE, mentioned

FOLDER = Path(__file__).resolve().parents[1]  # of our own package


@dataclass
class Sources:
    """What was found.

    places: files of single modules and folders of packages. parents: the folders to put on the path for them. own:
    the modules of this package that they import.
    """

    places: list[Path] = field(default_factory=list)
    parents: list[Path] = field(default_factory=list)
    own: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Found:
    """A top-level module: one file, or the folders of a package."""

    places: tuple[Path, ...]
    package: bool

    def file_of(self, parts: Sequence[str]) -> Path | None:
        """The file of a module within it."""
        if not self.package:
            return self.places[0]
        for place in self.places:
            path = place.joinpath(*parts)
            for file in (path / "__init__.py", path.with_suffix(".py")):
                if file.is_file() and file.parent != place.parent:
                    return file
        return None


def sources_of(references: Sequence[str], folders: Sequence[Path], installed: Sequence[Path]) -> Sources:
    """What importing these ("package.module:name") needs.

    folders: searched after the path of this process. installed: where Python's packages are, which are readable
    anyway. UserError for a module that is not there.
    """
    sources, tops = Sources(), dict[str, _Found | None]()
    names = deque(reference.partition(":")[0] for reference in references)
    for name in names:
        top = name.partition(".")[0]
        if top != PACKAGE and top not in tops:
            tops[top] = _add(sources, _named(name, top, folders), installed)
    seen, read = set[str](), set[Path]()
    while names:
        name = names.popleft()
        top, *parts = name.split(".")
        if name in seen:
            continue
        seen.add(name)
        if top == PACKAGE:
            sources.own.append(_own_module(name))
            continue
        if top not in tops:
            tops[top] = _add(sources, _beside(top, [*sources.parents, *folders]), installed)
        found = tops[top]
        if found is not None:
            names.extend(_imports(found, parts, top, read))
    sources.own = list(dict.fromkeys(sources.own))
    return sources


def _add(sources: Sources, found: _Found | None, installed: Sequence[Path]) -> _Found | None:
    for place in found.places if found else ():
        if any(place.is_relative_to(folder) for folder in installed):
            continue
        sources.places.append(place)
        if place.parent not in sources.parents:
            sources.parents.append(place.parent)
    return found


def _named(name: str, top: str, folders: Sequence[Path]) -> _Found:
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    spec = spec or PathFinder.find_spec(top, [str(folder) for folder in folders])
    if spec is None:
        raise UserError(
            f'the module of "{name}" is not installed here; install it, or add its folder to PYTHONPATH or '
            "sandbox.python_path"
        )
    found = _of(spec)
    if found is None:
        raise UserError(f'"{name}" is built into Python and holds no tools')
    return found


def _beside(top: str, folders: Sequence[Path]) -> _Found | None:
    """A module that was not named but imported; one without a file, such as a bare folder, is not meant."""
    if top in sys.stdlib_module_names:
        return None
    spec = PathFinder.find_spec(top, [str(folder) for folder in folders])
    return _of(spec) if spec is not None and spec.origin is not None else None


def _of(spec: ModuleSpec) -> _Found | None:
    if spec.submodule_search_locations:
        return _Found(tuple(_placed(place) for place in spec.submodule_search_locations), package=True)
    if spec.origin is None or not Path(spec.origin).is_file():
        return None
    return _Found((_placed(spec.origin),), package=False)


def _placed(path: str) -> Path:
    """Where it is in truth; its own name stays, by which it is imported, though it be a link."""
    named = Path(path).absolute()
    return named.parent.resolve() / named.name


def _own_module(name: str) -> str:
    """The module that a name is in or is itself."""
    parts = name.split(".")
    while len(parts) > 1:
        path = FOLDER.joinpath(*parts[1:])
        if path.is_dir() or path.with_suffix(".py").is_file():
            break
        parts.pop()
    return ".".join(parts)


def _imports(found: _Found, parts: Sequence[str], top: str, read: set[Path]) -> Iterator[str]:
    """What a module and the packages around it import; each file is read once."""
    for length in range(len(parts) + 1):
        file = found.file_of(parts[:length])
        if file is None or file.suffix != ".py" or file in read:
            continue
        read.add(file)
        with contextlib.suppress(OSError, SyntaxError, ValueError):  # the worker tells, when it imports it
            yield from mentioned(file, ".".join([top, *parts[:length]]))
