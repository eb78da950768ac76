"""What a worker sees of the host's files: Python, the modules that were named, nothing beside them.

All paths are written in one way, their folders resolved, however Python or a project was reached: what is mounted, what
is started and what is on the path are the same files. Only the last name stays as it is, because a virtual environment
is known by what lies beside its link to Python, and a module by its own name.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.modules import PACKAGE, inside
from regrpo_jax.sandbox.packages import FOLDER, sources_of
from regrpo_jax.sandbox.settings import SandboxSettings

_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_CONFIGURATION = ("/etc/ld.so.cache", "/etc/alternatives")
_TEMPORARY_BYTES, _SHARED_BYTES = 32 * 2**20, 16 * 2**20
_WORKSPACES = ("/workspace", "/workspace-of-episode")  # the second where a project lies in the first
_OF_PYTHON = ("bin", "lib", "lib64", "share", "pyvenv.cfg")


@dataclass(frozen=True)
class View:
    """The files that a worker may read, all beside /usr.

    python: of Python and its packages. packages: of the user. readable: what the settings name. own: modules of this
    package. parents: the folders for the path. holes: folders that start empty, so that nothing is seen of what is
    around a module. masks: this package, where it lies in something that is mounted. links: (where, to what) on the
    ways to Python and to what is readable, (where, "") for a folder that such a way leaves again by "..".
    """

    python: tuple[str, ...]
    packages: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    holes: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()

    @property
    def workspace(self) -> str:
        """Where an episode's own files are."""
        mounted = (*self.python, *self.packages, *self.readable, *self.own)
        return _WORKSPACES[any(_within(path, _WORKSPACES[:1]) for path in mounted)]


def _within(path: str, folders: Iterable[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)


def _distinct(paths: Iterable[Path | str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(path) for path in paths))


def program() -> str:
    """This Python, in the folder where that truly is."""
    folder, name = os.path.split(sys.executable)
    return os.path.join(os.path.realpath(folder), name)


def libraries() -> tuple[str, ...]:
    """Where Python's modules and the installed packages are."""
    paths = [sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return _distinct(os.path.realpath(path) for path in (*paths, *site.getsitepackages()) if os.path.isdir(path))


def _python_paths() -> tuple[str, ...]:
    prefixes = _distinct(map(os.path.realpath, (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)))
    # Not all of a prefix: an environment may be made in the folder of a project.
    parts = [os.path.join(prefix, name) for prefix in prefixes if prefix != "/" for name in _OF_PYTHON]
    folders = [os.path.dirname(program()), os.path.dirname(os.path.realpath(program()))]
    return _distinct(path for path in (*folders, *libraries(), *parts) if os.path.exists(path))


def links_along(path: str) -> Iterator[tuple[str, str]]:
    """(where, to what) of the links that are met on the way to `path`, itself included; their folders in truth.

    (where, "") for a folder that the way leaves again by "..", and that must be there for it.
    """
    waiting, current, met = path.split("/")[::-1], "/", 0
    while waiting and met < 40:  # as the kernel
        part = waiting.pop()
        following = os.path.join(current, part)
        if part in ("", "."):
            continue
        if part == "..":
            yield current, ""
            current = os.path.dirname(current)
        elif os.path.islink(following):
            met += 1
            target = os.readlink(following)
            yield following, target
            current = "/" if target.startswith("/") else current
            waiting += target.split("/")[::-1]
        else:
            current = following


def _outermost(paths: Sequence[str], holes: Sequence[str]) -> tuple[str, ...]:
    """Those that no other one shows already; what lies in a hole has to be shown again."""
    kept = ["/usr"]
    for path in sorted(paths, key=len):
        shown = max((len(other) for other in kept if _within(path, [other])), default=-1)
        hidden = max((len(hole) for hole in holes if _within(path, [hole])), default=-1)
        if hidden >= shown:
            kept.append(path)
    return tuple(kept[1:])


def _check_hidden(hidden: Sequence[str], readable: Sequence[str]) -> None:
    """UserError where a worker could read what makes the tasks, or holds their answers."""
    for secret in map(os.path.realpath, hidden):
        for path in readable:
            if _within(secret, [path]):
                raise UserError(
                    f"{secret} makes the tasks or holds their answers, and the tools bring {path} along, which every "
                    "action could read; put the tools into a module or package of their own"
                )


def view_of(settings: SandboxSettings, references: Sequence[str] = (), readable: Sequence[str] = ()) -> View:
    """What a worker that loads these references sees. UserError for a module or a readable path that is not there."""
    python, installed = _python_paths(), libraries()
    folders = [Path(folder).resolve() for folder in settings.python_path]
    found = sources_of(references, folders, [Path(folder) for folder in installed])
    own = _distinct(path.parent.resolve() / path.name for path in inside(found.own))
    packages = _distinct(found.places)
    asked = [os.path.join(os.getcwd(), path).rstrip("/") for path in (*settings.readable, *readable)]
    named = _distinct(_checked(path) for path in asked)
    _check_hidden(settings.hidden, (*packages, *named))
    parents = tuple(path for path in _distinct([FOLDER.parent, *found.parents]) if path not in installed)
    for path in parents:
        if ":" in path:
            raise UserError(f'Python cannot import from "{path}"; rename the folder so that its name has no ":"')
    ways = [link for way in _ways_to_python() for link in links_along(way)]
    ways += [link for path in asked for link in links_along(os.path.dirname(path))]
    links = [link for link in dict.fromkeys(ways) if not _within(link[0], ["/usr", *_SYSTEM, *python, *packages])]
    holes = [path for path in parents if _within(path, ["/usr", *python])]
    holes += [top for path in (*python, *packages, *named, *own) for top in _tops_of_writable(path)]
    shown = _outermost(python, holes)
    masks = tuple(path for path in _copies_of_ours(installed) if _within(path, ["/usr", *shown, *packages, *named]))
    return View(shown, packages, named, own, parents, tuple(sorted(set(holes), key=len)), masks, tuple(links))


def _checked(path: str) -> str:
    if not os.path.exists(path):
        raise UserError(f'the sandbox is to make "{path}" readable, which does not exist')
    folder, name = os.path.split(path)
    return os.path.realpath(path) if name in ("", ".", "..") else os.path.join(os.path.realpath(folder), name)


def _ways_to_python() -> tuple[str, ...]:
    """How this Python, and the one that its environment was made from, are written."""
    base = getattr(sys, "_base_executable", None) or sys.executable
    return tuple(os.path.join(os.getcwd(), path) for path in (program(), base, sys.base_prefix))


def _tops_of_writable(path: str) -> Iterator[str]:
    """The folder directly below one that episodes write to, which must not be theirs."""
    for folder in (*_WORKSPACES[:1], "/tmp", "/dev/shm"):
        if _within(path, [folder]):
            top = os.path.join(folder, os.path.relpath(path, folder).split("/")[0])
            if top != path:
                yield top


def _copies_of_ours(installed: Sequence[str]) -> tuple[str, ...]:
    """This package, and others of its name that are installed."""
    copies = [os.path.join(folder, PACKAGE) for folder in installed]
    return _distinct([FOLDER, *(copy for copy in copies if os.path.isdir(copy) and not os.path.islink(copy))])


def _unwanted(folder: str) -> Iterator[str]:
    """What a package's folder holds that is no part of the package: history, settings, environments, runs."""
    if not os.path.isdir(folder):
        return
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        bare_runs = name == "runs" and os.path.isdir(path) and not os.path.exists(os.path.join(path, "__init__.py"))
        if name.startswith(".") or bare_runs or os.path.exists(os.path.join(path, "pyvenv.cfg")):
            yield path


def mount_arguments(view: View, settings: SandboxSettings, *, owner: bool) -> Iterator[str]:
    """Bubblewrap's arguments. owner: the worker is the user that mounts, and not one of its own."""
    yield from ("--ro-bind", "/usr", "/usr")
    for path in _SYSTEM:
        if os.path.islink(path):
            yield from ("--symlink", os.readlink(path), path)
        elif os.path.isdir(path):
            yield from ("--ro-bind", path, path)
    for path in _CONFIGURATION:
        yield from ("--ro-bind-try", path, path)
    yield from ("--proc", "/proc", "--dev", "/dev")
    sizes = {view.workspace: settings.workspace_bytes, "/tmp": _TEMPORARY_BYTES, "/dev/shm": _SHARED_BYTES}
    for folder, size in sizes.items():
        yield from ("--perms", "0700" if owner else "1777", "--size", str(size), "--tmpfs", folder)
    yield from _inner_mounts(view, {"/", "/usr", "/dev", *sizes})
    yield from ("--remount-ro", "/dev", "--remount-ro", "/")


def _inner_mounts(view: View, made: set[str]) -> Iterator[str]:
    """After the folders for writing, in which some of these may lie; each in what was mounted before it."""
    around = [path for path in view.python if any(_within(hole, [path]) for hole in view.holes)]
    unwanted = [path for package in view.packages for path in _unwanted(package)]
    empty = [path for path in (*view.holes, *unwanted, *view.masks) if os.path.isdir(path)]
    yield from _binds(around, made)
    for folder in view.holes:
        yield from (*_parents(folder, made), *_nothing(folder))
        made.add(folder)
    yield from _binds(view.packages, made)
    for path in unwanted:
        yield from _nothing(path) if path in empty else ("--ro-bind", "/dev/null", path)
    yield from _binds([*view.readable, *(path for path in view.python if path not in around)], made)
    for folder in view.masks:
        yield from _nothing(folder)
    yield from _binds(view.own, made)
    for where, target in view.links:
        yield from _parents(where if target else os.path.join(where, "inside"), made)
        yield from ("--symlink", target, where) if target else ()
    for folder in empty:
        yield from ("--remount-ro", folder)


def _binds(paths: Iterable[str], made: set[str]) -> Iterator[str]:
    for path in paths:
        yield from (*_parents(path, made), "--ro-bind", path, path)


def _nothing(folder: str) -> tuple[str, ...]:
    return ("--perms", "0755", "--tmpfs", folder)


def _parents(path: str, made: set[str]) -> Iterator[str]:
    """Left to itself, bubblewrap makes parents that only root enters."""
    for parent in map(str, reversed(Path(path).parents)):
        if parent not in made:
            made.add(parent)
            yield from ("--perms", "0755", "--dir", parent)
