"""A folder of a person's own tasks: `tasks.jsonl`, a task a line (its keys: `task_lines.py`), and their files."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.suites.task_lines import task_of

FILE = "tasks.jsonl"
NAME = "folder"
_MOST_FILE_BYTES = 64 * 2**20


def read_folder(folder: Path) -> list[Task]:
    """All tasks of a folder. UserError naming file, line and key."""
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(f"{path}: cannot be read ({reason}); config.suite.name names a folder that holds it") from error

    @functools.cache
    def read(name: str) -> bytes:
        place = folder / name
        if not place.resolve().is_relative_to(folder.resolve()):
            raise UserError(f'"files" has {name!r}, which is outside the folder')
        try:
            if place.stat().st_size > _MOST_FILE_BYTES:
                raise UserError(f'"files" has {name!r} of more than {_MOST_FILE_BYTES >> 20} MiB')
            return place.read_bytes()
        except OSError as error:
            raise UserError(f'"files" has {name!r}, which cannot be read ({error.strerror})') from error

    tasks: dict[str, Task] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            task = task_of(json.loads(line), read, NAME)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON ({error}); a task stands on one line") from error
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from error
        if task.id in tasks:
            raise UserError(f'{path}, line {number}: a second task has the "id" {task.id!r}')
        tasks[task.id] = task
    if not tasks:
        raise UserError(f"{path}: holds no task")
    return list(tasks.values())


def chosen_tasks(tasks: Sequence[Task], split: str, count: int, seed: int, place: str) -> list[Task]:
    """At most `count` tasks of a split in an order that the seed decides. UserError when it has none."""
    own = [task for task in tasks if task.split == split]
    if not own:
        there = ", ".join(sorted({task.split for task in tasks}))
        others = f"there are {there}" if there else "there are no others either"
        raise UserError(f'{place}: no task has the split {split!r}, {others}; give some tasks "split": "{split}"')
    return random.Random(f"{seed}/{split}").sample(own, min(count, len(own)))


@dataclass(frozen=True)
class FolderSuite:
    """The tasks of a folder, played with the tools of `config.tools`."""

    folder: Path
    tools: SuiteTools
    brief: bool = False
    name: str = NAME

    @functools.cached_property
    def _all(self) -> list[Task]:
        tasks = read_folder(self.folder)
        known = self.tools.loaded
        for task in tasks:
            for tool in task.tools:
                if tool not in known:
                    raise UserError(
                        f'{self.folder / FILE}: task {task.id}: "tools" has {tool!r}, which config.tools does not '
                        f"have; there are {', '.join(known)}"
                    )
        return tasks

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """Tasks of the split, shuffled by the seed. UserError for a folder that cannot be read, or without any."""
        return chosen_tasks(self._all, split, count, seed, str(self.folder / FILE))
