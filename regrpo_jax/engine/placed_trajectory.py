"""A trajectory of others as it can be played here: its paths under the roots that hold, its files with their contents.

In the workspace a file has the name that the code gives it, or a new one where that name leads out of the workspace;
then every text of the trajectory says the new name. Nothing is read but what lies beside the file of trajectories,
below a root that a person named, or is a picture of the record.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from regrpo_jax.engine.cases import ToolShape
from regrpo_jax.engine.named_files import named_files
from regrpo_jax.records import Trajectory
from regrpo_jax.records.images import IMAGE_MARKER
from regrpo_jax.records.path_roots import PathRoots
from regrpo_jax.records.picture_forms import is_data_url, picture_bytes
from regrpo_jax.records.types import Step

_MOST_FILE_BYTES = 64 * 2**20


@dataclass(frozen=True)
class PlacedTrajectory:
    """instruction: with a placeholder for each of `images`, placeholder -> name. files: contents by name.

    missing: files that the code reads, that are not here, and that no step before has told of.
    """

    system: str
    instruction: str
    steps: tuple[Step, ...]
    images: Mapping[str, str]
    files: Mapping[str, bytes]
    missing: tuple[str, ...]


def placed_trajectory(
    trajectory: Trajectory, folder: Path, roots: PathRoots, tools: Mapping[str, ToolShape]
) -> PlacedTrajectory:
    """Give every file its place.

    Args:
      trajectory: its pictures have their paths already.
      folder: what relative paths are relative to.
      tools: what their arguments are for.
    """
    places = _Places(folder, roots, {})
    shown = {image.path: places.of_picture(image.path) for image in trajectory.images}
    steps = tuple(_in_texts(step, roots.text) for step in trajectory.steps)
    named = named_files([step.code for step in steps], tools)
    renamed = {
        path: places.names[path]
        for path in (*shown, *named.said)
        if not is_data_url(path) and places.add(path) and places.names[path] != path
    }

    def told(text: str) -> str:
        return _renamed(text, renamed)

    steps = tuple(_in_texts(step, told) for step in steps)
    instruction, images = _with_places(trajectory, shown)
    read = {renamed.get(name, name) for name in named.read}
    observed = "\n".join(step.observation.text for step in steps if step.observation is not None)
    missing = [name for name in sorted(read) if _plain(name) not in places.contents and name not in observed]
    return PlacedTrajectory(
        told(roots.text(trajectory.system)),
        told(roots.text(instruction)),
        steps,
        images,
        places.contents,
        tuple(missing),
    )


@dataclass
class _Places:
    """names: path as it is written -> name in the workspace. contents: by name."""

    folder: Path
    roots: PathRoots
    names: dict[str, str]

    def __post_init__(self) -> None:
        self.contents: dict[str, bytes] = {}

    def of_picture(self, path: str) -> str:
        """The name of a picture of the record."""
        content = picture_bytes(path)
        name = f"{_digest(content)}.png" if is_data_url(path) else self._name(path)
        return self._kept(path, name or Path(path).name, content)

    def add(self, path: str) -> bool:
        """Whether the path, as code says it, is a file that is here; then it has its place."""
        if path in self.names:
            return True
        name = self._name(path)
        content = None if name is None else _content(self.folder / path)
        if name is None or content is None:
            return False
        self._kept(path, name, content)
        return True

    def _name(self, path: str) -> str | None:
        """In the workspace; None for a path that leads nowhere that may be read."""
        place = Path(os.path.normpath(self.folder / path))
        if place.is_relative_to(self.folder):
            return place.relative_to(self.folder).as_posix()
        for _, new in self.roots.pairs:
            root = Path(os.path.normpath(self.folder / new))
            if place.is_relative_to(root):
                return f"{root.name}/{place.relative_to(root).as_posix()}"
        return None

    def _kept(self, path: str, name: str, content: bytes) -> str:
        if self.contents.get(name, content) != content:
            name = f"{_digest(content)}_{Path(name).name}"
        self.contents[name] = content
        # A plain relative path needs no other name: the code opens it as it is.
        self.names[path] = path if not Path(path).is_absolute() and _plain(path) == name else name
        return name


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _plain(name: str) -> str:
    return os.path.normpath(name).replace(os.sep, "/")


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= _MOST_FILE_BYTES else None
    except (OSError, ValueError):
        return None


def _renamed(text: str, names: Mapping[str, str]) -> str:
    """The text with paths replaced, a longer one before one that it begins with."""
    if not names:
        return text
    written = "|".join(re.escape(path) for path in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w./-])(?:{written})(?![\w-])", lambda match: names[match.group()], text)


def _in_texts(step: Step, change: Callable[[str], str]) -> Step:
    """A step whose texts are changed."""
    observed = step.observation
    observation = None if observed is None else replace(observed, text=change(observed.text))
    return replace(
        step, thought=change(step.thought), code=change(step.code), text=change(step.text), observation=observation
    )


def _with_places(trajectory: Trajectory, shown: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """The task with a placeholder for every picture, each where it stood, before the task where it stood nowhere."""
    task, images, leading = trajectory.task, dict[str, str](), []
    taken = {image.placeholder for image in trajectory.images}
    for image in trajectory.images:
        written = image.placeholder or IMAGE_MARKER
        mark = written if re.fullmatch(r"<image_\d+>", written) else _free({*taken, *images})
        if written not in task:
            leading.append(mark)
        elif mark != written:
            task = task.replace(written, mark, 1)
        images[mark] = shown[image.path]
    return "".join(f"{mark}\n" for mark in leading) + task, images


def _free(taken: Collection[str]) -> str:
    number = 0
    while f"<image_{number:02d}>" in taken:
        number += 1
    return f"<image_{number:02d}>"
