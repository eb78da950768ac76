"""What a task's tools look up and its policy is not given: contents that only the process of the tools holds.

A tool reads them by name, `behind.read("people.db")`, as it would read a file. They are on no disk: an action could
open what is there, and would find the repair without ever having failed.

They are a variable of this module because a tool is made once, in the warm process of a worker, long before there is
a task to look things up for. Each episode's tools run in a process of their own, a fork of the warm one, and `install`
is called there and nowhere else; so the variable is one episode's, and neither the warm process nor the process that
runs the actions ever has it.
"""

from __future__ import annotations

from collections.abc import Mapping

WORLD_FILE = "world.json"  # what the `reset` of a world is given, see `toolbox.world`
RECORDED_FILE = "recorded.json"  # what tools returned elsewhere, see `toolbox.recorded`

_contents: dict[str, bytes] = {}


def install(files: Mapping[str, bytes]) -> None:
    """Take these contents, by name, in the place of those that were there."""
    _contents.clear()
    _contents.update(files)


def names() -> list[str]:
    """Of all contents, sorted."""
    return sorted(_contents)


def read(name: str) -> bytes | None:
    """The content of that name; None when there is none."""
    return _contents.get(name)
