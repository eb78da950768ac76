"""Files that only tools read: what they look up, and must not lie in the workspace where an action could open it.

The sandbox installs them in the process of an episode's tools when the episode starts. They are held in memory and
never written to disk. The state belongs to the process: each episode's tools run in a fork of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

_files: dict[str, bytes] = {}


def install(files: Mapping[str, bytes]) -> None:
    """Let these files, and no others, be what lies behind the tools of this process."""
    _files.clear()
    _files.update(files)


def names() -> list[str]:
    """The names of the files, sorted."""
    return sorted(_files)


def read(name: str) -> bytes | None:
    """The content of a file; None when there is none of that name."""
    return _files.get(name)
