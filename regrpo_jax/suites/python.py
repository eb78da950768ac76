"""A suite in Python: `config.suite.name = "package.module:make_suite"`, a function without arguments.

    from regrpo_jax.suites.python import PythonSuite

    def make_suite():
        return PythonSuite(tools=("shop.tools:price", "shop.tools:stock"), tasks=make_tasks)

    def make_tasks(split):
        for number in range(100):
            yield {"id": f"{split}-{number}", "instruction": ..., "answer": ..., "files": {"prices.csv": b"..."}}

The tools stand in a module of their own: who can read the module that makes the tasks can look the answers up, so no
worker of the sandbox may.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from regrpo_jax.environments.task import Task, TaskFile
from regrpo_jax.errors import UserError
from regrpo_jax.suites.folder import chosen_tasks
from regrpo_jax.suites.suite import LOADER, Suite, SuiteTools
from regrpo_jax.suites.task_lines import task_of
from regrpo_jax.toolbox.behind import WORLD_FILE
from regrpo_jax.toolbox.toolset import ToolsetSettings
from regrpo_jax.toolbox.world import DONE, new_world


@dataclasses.dataclass(frozen=True)
class PythonSuite:
    """What a person's `make_suite` returns.

    tasks: called with a split; gives `Task`s, or mappings with the keys of `task_lines.py`, whose `files` map names to
    bytes. tools: "package.module:name" of typed functions or smolagents tools, beside those of `config.tools`. world:
    "package.module:Class" of a world with a state, see `toolbox.world`; the mappings then have no `answer` and no
    `check`, but `world`, which its `reset` is given, and their instruction is followed by what `reset` returns.
    """

    tasks: Callable[[str], Iterable[Task | Mapping[str, Any]]]
    tools: tuple[str, ...] = ()
    brief: bool = False
    world: str = ""


@dataclasses.dataclass(frozen=True)
class LoadedSuite:
    """A `PythonSuite` with its name and all of its tools."""

    name: str
    made: PythonSuite
    tools: SuiteTools

    @property
    def brief(self) -> bool:
        """As its maker says."""
        return self.made.brief

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """At most `count` of what it makes for the split, shuffled by the seed. UserError for what is no task."""
        return chosen_tasks(_made(self, split), split, count, seed, self.name)


@functools.lru_cache(maxsize=8)
def _made(suite: LoadedSuite, split: str) -> list[Task]:
    found: dict[str, Task] = {}
    for number, told in enumerate(_called(suite.name, lambda: list(suite.made.tasks(split)))):
        try:
            task = told if isinstance(told, Task) else _task(told, split, suite)
        except UserError as error:
            raise UserError(f"{suite.name}: task {number} of the split {split!r}: {error}") from error
        if task.id in found:
            raise UserError(f"{suite.name}: task {number} of the split {split!r}: a second task has the id {task.id!r}")
        found[task.id] = dataclasses.replace(task, split=split)
    return list(found.values())


def _task(told: Any, split: str, suite: LoadedSuite) -> Task:
    name, world = suite.name, suite.made.world
    if world and isinstance(told, Mapping):
        return _task_of_a_world(dict(told), split, name, world)
    return _task_of_files(told, split, name)


def _task_of_a_world(told: dict[str, Any], split: str, name: str, world: str) -> Task:
    for key in ("answer", "check"):
        if key in told:
            raise UserError(f'"{key}" is not asked for: the world says whether its task is done')
    try:
        data = json.dumps(given := told.pop("world", {}))
    except (TypeError, ValueError) as error:
        raise UserError(f'"world" must be what JSON can hold: {error}') from error
    seen = _called(name, lambda: new_world(world).reset(json.loads(data)))
    if not isinstance(seen, str) or not isinstance(given, dict):
        raise UserError(f'"world" must be a mapping, and the reset of {world} return a text; it gave {seen!r}')
    instruction = f"{told.pop('instruction', '')}\n{seen}".strip()
    task = _task_of_files({**told, "instruction": instruction, "answer": DONE}, split, name)
    return dataclasses.replace(task, files=(*task.files, TaskFile(WORLD_FILE, data.encode(), behind=True)))


def _task_of_files(told: Any, split: str, name: str) -> Task:
    files = told.get("files", {}) if isinstance(told, Mapping) else {}
    contents = {key: value for key, value in files.items()} if isinstance(files, Mapping) else {}

    def read(path: str) -> bytes:
        content = contents.get(path)
        if isinstance(content, str):
            return content.encode()
        if not isinstance(content, bytes):
            raise UserError(f'"files" has {path!r} without a content; map its name to bytes or text')
        return content

    plain = {**told, "split": split, "files": list(contents)} if isinstance(told, Mapping) else told
    return task_of(plain, read, name)


def python_suite(reference: str, settings: ToolsetSettings) -> Suite:
    """The suite that `reference` names: of a `PythonSuite`, or a whole `Suite` with tasks and tools of its own.

    UserError when it cannot be had, or its tools come with its tasks.
    """
    module, _, function = reference.partition(":")
    make = _called(reference, lambda: getattr(importlib.import_module(module), function))
    made = _called(reference, make)
    if not isinstance(made, PythonSuite):
        if all(hasattr(made, name) for name in ("name", "brief", "tools", "tasks")):
            return made
        raise UserError(f"config.suite.name={reference!r} gave {type(made).__name__}; return a PythonSuite, or a Suite")
    for tool in (*made.tools, *([made.world] if made.world else ())):
        if tool.partition(":")[0] == module:
            raise UserError(
                f"{reference}: {tool} stands in the module that makes the tasks, which an action could read; "
                "put the tools into a module of their own"
            )
    settings = dataclasses.replace(settings, user_tools=(*made.tools, *settings.user_tools), world=made.world)
    file = importlib.import_module(module).__file__
    return LoadedSuite(reference, made, SuiteTools(LOADER, settings, (file,) if file else ()))


def _called(reference: str, function: Callable[[], Any]) -> Any:
    """What a person's own code gives; whatever it raises is told in one line."""
    try:
        return function()
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"config.suite.name={reference!r}: {type(error).__name__}: {error}") from error
