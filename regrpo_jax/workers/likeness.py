"""Would the same action come to the same there as here? What decides that, of a machine, so that two can be compared.

A worker with another version of a tool answers otherwise, and nothing would tell: no process fails, only some
observations differ. So a worker says what it runs before it plays anything, and one that is different is refused.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.modules import FOLDER
from regrpo_jax.sandbox.mounts import libraries
from regrpo_jax.sandbox.packages import sources_of

# What the built-in tools and the plain Python of actions are made of, beside this package.
PACKAGES = (
    "numpy", "pillow", "smolagents", "rapidocr", "onnxruntime", "opencv-python-headless", "scikit-image", "markitdown",
    "openpyxl", "simpleeval", "sympy", "matplotlib",
)  # fmt: skip


@dataclass(frozen=True)
class Likeness:
    """parts: what is compared, by name, each in few words or as a digest."""

    parts: dict[str, str]

    def difference(self, there: Likeness) -> str:
        """What is other there, in words; "" where nothing is."""
        names = [name for name, here in self.parts.items() if there.parts.get(name, "") != here]
        return ", ".join(
            f"{name} {_told(there.parts.get(name, ''))} (here {_told(self.parts[name])})" for name in names
        )


def _told(part: str) -> str:
    return part or "not installed"


def likeness(references: Sequence[str], folder: str, readable: Sequence[str]) -> Likeness:
    """Of this process on its machine.

    Args:
      references: modules of tools, "package.module:name".
      folder: where those of a person's own are found.
      readable: files and folders that tools read; compared by names and sizes.
    Raises:
      UserError: a module or a readable path is not there.
    """
    parts = {"Python": platform.python_version(), "processor": platform.machine()}
    parts |= {name: _version(name) for name in PACKAGES}
    parts["regrpo_jax"] = _digest(FOLDER.rglob("*.py"), FOLDER)
    own = sources_of(references, [Path(folder)], [Path(path) for path in libraries()])
    for place in own.places:
        files = sorted(place.rglob("*.py")) if place.is_dir() else [place]
        parts[f"the module {place.name}"] = _digest(files, place.parent)
    for path in readable:
        parts[path] = _sizes(Path(folder, path))
    return Likeness(parts)


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _digest(files: Iterable[Path], root: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(files):
        whole.update(f"{path.relative_to(root)}\0{path.stat().st_size}\0".encode())
        whole.update(path.read_bytes())
    return f"with sources {whole.hexdigest()[:12]}"


def _sizes(path: Path) -> str:
    if not path.exists():
        raise UserError(f'"{path}", which tools read, does not exist')
    found = [path] if path.is_file() else [Path(top, name) for top, _, names in os.walk(path) for name in names]
    told = sorted(f"{file.relative_to(path)}\0{file.stat().st_size}" for file in found)
    return f"{len(told)} files, {hashlib.sha256(chr(0).join(told).encode()).hexdigest()[:12]}"
