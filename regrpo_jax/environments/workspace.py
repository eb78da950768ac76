"""What an episode starts with: the files of its task, after the faults that concern files.

What the task gives the policy lies in the workspace; what only the tools look up is kept apart and never gets there.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from regrpo_jax.environments.faults import FILE_FAULTS, Fault, FaultKind
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError

_SUFFIXES = ("_v2", "_final", "_new", "_2024", "_copy")


@dataclass(frozen=True)
class Workspace:
    """Contents by file name, in the order of the alphabet. behind: those that only the tools read."""

    files: Mapping[str, bytes]
    behind: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, task: Task) -> Workspace:
        """The workspace that an episode of `task` opens with. UserError for a fault of a file that is not there."""
        files = {file.name: file.content for file in task.files if not file.behind}
        behind = {file.name: file.content for file in task.files if file.behind}
        for fault in task.faults:
            if fault.kind in FILE_FAULTS:
                place = next((place for place in (files, behind) if fault.target in place), None)
                if place is None:
                    raise UserError(
                        f"task {task.id}: fault {fault.kind} concerns {fault.target!r}, which is not among its files: "
                        f"{', '.join(sorted({*files, *behind}))}"
                    )
                _apply(fault, place)
        return cls(dict(sorted(files.items())), dict(sorted(behind.items())))


def action_seed(instruction: str, files: Mapping[str, bytes]) -> int:
    """The seed of an action's random numbers: a hash of what its policy is given, the instruction and the workspace.

    So it is the same for everybody who plays the task, and tells nothing that the policy does not know. The task's own
    seed would tell everything: tasks are pure functions of it.
    """
    told = [instruction, *([name, hashlib.sha256(files[name]).hexdigest()] for name in sorted(files))]
    return int.from_bytes(hashlib.sha256(json.dumps(told).encode()).digest()[:6], "big")


def _with_stem(name: str, addition: str) -> str:
    folder, slash, last = name.rpartition("/")
    stem, dot, suffix = last.rpartition(".")
    return f"{folder}{slash}{stem or suffix}{addition}{dot if stem else ''}{suffix if stem else ''}"


def new_name(fault: Fault, taken: Collection[str] = ()) -> str:
    """The name that a renamed file has: the fault's parameter "name", else one that its seed chooses."""
    if "name" in fault.parameters:
        return str(fault.parameters["name"])
    draw = random.Random(f"{fault.seed}/{fault.target}")
    names = [_with_stem(fault.target, suffix) for suffix in draw.sample(_SUFFIXES, len(_SUFFIXES))]
    return next((name for name in names if name not in taken), _with_stem(fault.target, f"_{fault.seed}"))


def copy_name(fault: Fault) -> str | None:
    """Where a copy of a missing or empty file is kept; None when the fault says that there is none."""
    usual = f"archive/{fault.target}" if fault.kind == FaultKind.MISSING_FILE else _with_stem(fault.target, "_backup")
    name = fault.parameters.get("copy", usual)
    return None if name is None else str(name)


def _apply(fault: Fault, files: dict[str, bytes]) -> None:
    content = files.pop(fault.target)
    kept = new_name(fault, files) if fault.kind == FaultKind.RENAMED_FILE else copy_name(fault)
    if fault.kind == FaultKind.EMPTY_FILE:
        files[fault.target] = b""
    if kept is not None:
        if kept in files:
            raise UserError(f"fault {fault.kind} of {fault.target!r} would overwrite {kept!r}; name another file")
        files[kept] = content
