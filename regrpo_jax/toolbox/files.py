"""The files a tool may name: those below the current directory, which is the episode's workspace.

The sandbox is what keeps a tool inside its workspace. The checks here are for good messages: a missing name is
told together with the names that exist.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from regrpo_jax.toolbox.failures import EmptyResult, ToolError

MOST_BYTES = 32 * 2**20  # of a file that a tool reads
MOST_LISTED = 40  # names in a message


def _visible(folder: Path, depth: int = 4) -> Iterator[str]:
    """Names below `folder`, in the order of the alphabet; hidden ones are left out, links are not followed."""
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            if depth:
                yield from (f"{entry.name}/{name}" for name in _visible(folder / entry.name, depth - 1))
        else:
            yield entry.name


def workspace_files() -> list[str]:
    """Names of the files in the workspace, relative to it, sorted."""
    return sorted(_visible(Path.cwd()))


def quoted(names: list[str]) -> str:
    """The names in double quotes, the first ones if there are many."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(f'"{name}"' for name in names[:MOST_LISTED]) + more


def files_here() -> str:
    """A sentence that lists the workspace."""
    names = workspace_files()
    return f"Files here: {quoted(names)}." if names else "There are no files here."


def existing_file(name: str, most_bytes: int = MOST_BYTES) -> Path:
    """The path of a readable file of the workspace.

    ToolError when it is missing (lists what is there), outside the workspace, a folder, or larger than
    `most_bytes`; EmptyResult when it has no bytes.
    """
    workspace = Path.cwd().resolve()
    try:
        path = (workspace / name).resolve()
        inside = path.is_relative_to(workspace)
        is_file, is_folder = path.is_file(), path.is_dir()
    except (OSError, ValueError) as error:
        raise ToolError(f'File not found: "{name[:200]}". {files_here()}') from error
    if not inside:
        raise ToolError(f'"{name}" is outside the workspace; name a file in it. {files_here()}')
    if is_folder:
        raise ToolError(f'"{name}" is a folder, not a file. {files_here()}')
    if not is_file:
        raise ToolError(f'File not found: "{name}". {files_here()}')
    size = path.stat().st_size
    if size > most_bytes:
        raise ToolError(f'"{name}" has {size:,} bytes; at most {most_bytes:,} are read.')
    if size == 0:
        raise EmptyResult(f'Get empty content from file "{name}": it has 0 bytes. {files_here()}')
    return path


def next_name(tool: str, suffix: str = ".png") -> str:
    """The first free name `<tool>_<n><suffix>` of the workspace, counting from 1."""
    number = 1
    while Path(f"{tool}_{number}{suffix}").exists():
        number += 1
    return f"{tool}_{number}{suffix}"
