"""A person's own check of an episode: a function on the host that sees the final answer and the workspace.

    def check(answer, workspace):
        return answer == "done" and b"total" in workspace.read("report.csv")

It runs once, when the episode has been answered, and its workspace is as the last action left it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from regrpo_jax.errors import UserError
from regrpo_jax.sandbox.results import SandboxError, ToolRun


class Files(Protocol):
    """The open session of an episode."""

    def read_file(self, name: str) -> bytes: ...
    def files(self) -> dict[str, str]: ...


@dataclass(frozen=True)
class CheckedWorkspace:
    """The files that a check may look at, and the calls of tools that were really made, in order."""

    _files: Files
    calls: tuple[ToolRun, ...] = ()

    def names(self) -> list[str]:
        """All files, by name."""
        return sorted(self._files.files())

    def read(self, name: str) -> bytes:
        """A file's content. OSError where there is none; a check that lets it pass says no."""
        return self._files.read_file(name)


def own_check(
    reference: str, answer: object, files: Files, expected: str = "", calls: tuple[ToolRun, ...] = ()
) -> bool:
    """What the function says.

    expected: what it is told as a third argument, unless that is "". calls: of the whole episode. UserError when it
    cannot be had, or raises anything; SandboxError as the session.
    """
    try:
        told = (answer, CheckedWorkspace(files, calls), *([expected] if expected else []))
        return bool(_function(reference)(*told))
    except (UserError, SandboxError):
        raise
    except OSError:
        return False  # a file that it looks for was not made
    except Exception as error:  # a person's own code may raise anything
        raise UserError(f"the check {reference} raised {type(error).__name__}: {error}") from error


def _function(reference: str) -> Callable[..., object]:
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # importing may raise anything too
        raise UserError(f"the check {reference} cannot be had: {type(error).__name__}: {error}") from error
