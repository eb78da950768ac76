"""A task: everything that an episode needs, as frozen data that JSON can hold.

Nothing in it has behaviour (the checker is data, the faults are data, the oracle's steps are texts), so that tasks
travel between processes and machines, and the same task is the same bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regrpo_jax.environments.answers import AnswerChecker
from regrpo_jax.environments.faults import Fault, FaultPlan
from regrpo_jax.errors import UserError
from regrpo_jax.records.reflection import render_reflection
from regrpo_jax.records.types import ErrorType, Reflection
from regrpo_jax.toolbox.behind import WORLD_FILE

TASKS_FILE, CONTENT_FOLDER = "tasks.jsonl", "files"
ONE_WAY = "oracle_is_one_way"  # in a task's metadata: others may see something else on theirs


@dataclass(frozen=True)
class TaskFile:
    """A file of the workspace; `name` is a relative path with "/" between folders.

    behind: it is none of the workspace; only the tools look things up in it, by its name (`toolbox.behind`).
    """

    name: str
    content: bytes
    behind: bool = False

    @property
    def digest(self) -> str:
        """SHA-256 of the content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class OracleStep:
    """A step of the script that solves the task; `fails` says that its observation is a failure, by design."""

    thought: str
    code: str
    fails: bool = False
    reflection: Reflection | None = None

    def turn(self) -> str:
        """The assistant's turn: the reflection block, the thought, the fenced code."""
        block = "" if self.reflection is None else render_reflection(self.reflection)
        return f"{block}Thought: {self.thought}\n\nCode:\n```py\n{self.code}\n```"

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"thought": self.thought, "code": self.code, "fails": self.fails}
        if self.reflection is not None:
            found["reflection"] = {**vars(self.reflection), "error_type": str(self.reflection.error_type)}
        return found

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> OracleStep:
        told = data.get("reflection")
        reflection = told and Reflection(ErrorType(told["error_type"]), told["evidence"], told["fix_plan"])
        return cls(data["thought"], data["code"], bool(data["fails"]), reflection or None)


@dataclass(frozen=True)
class Followup:
    """A further message of the user, which comes in the place of the end when the one before it has been answered.

    tools: names of tools that the message brings; until then the suite's own tools refuse them.
    """

    text: str
    tools: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {"text": self.text, "tools": list(self.tools)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Followup:
        return cls(data["text"], tuple(data["tools"]))


@dataclass(frozen=True)
class Task:
    """What an episode plays.

    id: unique in its suite. split: "train", "validation", "test", "held_out" or the suite's own. files: of the
    workspace, and behind the tools; names are unique over both. images: the names of the workspace's files that the
    policy is shown. tools: names of the tools that the episode has; final_answer is always
    there; () is all tools of the pool. error_type: the failure that the task is about, None for none. difficulty: 0
    is easiest. oracle: a script that solves the task. metadata: plain data. followups: what the user says after the
    instruction, each when final_answer is called; the call after the last one ends the episode. UserError when the
    parts do not fit.
    """

    id: str
    family: str
    split: str
    instruction: str
    checker: AnswerChecker
    files: tuple[TaskFile, ...] = ()
    images: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    faults: FaultPlan = ()
    error_type: ErrorType | None = None
    difficulty: int = 0
    oracle: tuple[OracleStep, ...] = ()
    seed: int = 0
    metadata: Mapping[str, Any] = field(default_factory=dict)
    followups: tuple[Followup, ...] = ()

    def __post_init__(self) -> None:
        names, given = [file.name for file in self.files], [file.name for file in self.files if not file.behind]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UserError(f"task {self.id}: there are two files called {twice!r}")
        missing = [name for name in self.images if name not in given]
        if missing:
            raise UserError(f"task {self.id}: the image {missing[0]!r} is not among its files: {', '.join(given)}")

    def tools_after(self, followups: int) -> tuple[str, ...]:
        """The names of the tools once so many further messages have come; () is all tools of the pool."""
        brought = [name for followup in self.followups[:followups] for name in followup.tools]
        return tuple(dict.fromkeys((*self.tools, *brought))) if self.tools else ()

    @property
    def judges_steps(self) -> bool:
        """Whether a step is right only if it sees what the oracle's step sees."""
        return bool(self.oracle) and not self.metadata.get(ONE_WAY, False)

    @property
    def in_a_world(self) -> bool:
        """Whether a step changes what later ones meet, in a world with a state."""
        return any(file.behind and file.name == WORLD_FILE for file in self.files)

    def file(self, name: str) -> bytes:
        """The content of a file, before faults. KeyError."""
        return {file.name: file.content for file in self.files}[name]

    def to_json(self, keep: Callable[[TaskFile], None] | None = None) -> dict[str, Any]:
        """Plain data; contents in base64, or as SHA-256 after `keep` has stored them."""
        files = []
        for file in self.files:
            told: dict[str, Any] = {"name": file.name} | ({"behind": True} if file.behind else {})
            if keep is None:
                told["base64"] = base64.b64encode(file.content).decode("ascii")
            else:
                keep(file)
                told["sha256"] = file.digest
            files.append(told)
        return {
            "id": self.id,
            "family": self.family,
            "split": self.split,
            "instruction": self.instruction,
            "checker": self.checker.to_json(),
            "files": files,
            "images": list(self.images),
            "tools": list(self.tools),
            "faults": [fault.to_json() for fault in self.faults],
            "error_type": None if self.error_type is None else str(self.error_type),
            "difficulty": self.difficulty,
            "oracle": [step.to_json() for step in self.oracle],
            "seed": self.seed,
            "metadata": dict(self.metadata),
        } | ({"followups": [one.to_json() for one in self.followups]} if self.followups else {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any], fetch: Callable[[str], bytes] | None = None) -> Task:
        """The inverse of `to_json`; `fetch` gives the content for a SHA-256. UserError when it is no task."""
        try:
            kind = data["error_type"]
            return cls(
                id=data["id"],
                family=data["family"],
                split=data["split"],
                instruction=data["instruction"],
                checker=AnswerChecker.from_json(data["checker"]),
                files=tuple(_file(file, fetch) for file in data["files"]),
                images=tuple(data["images"]),
                tools=tuple(data["tools"]),
                faults=tuple(map(Fault.from_json, data["faults"])),
                error_type=None if kind is None else ErrorType(kind),
                difficulty=int(data["difficulty"]),
                oracle=tuple(map(OracleStep.from_json, data["oracle"])),
                seed=int(data["seed"]),
                metadata=dict(data["metadata"]),
                followups=tuple(map(Followup.from_json, data.get("followups", ()))),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            name = data.get("id", "?") if isinstance(data, Mapping) else "?"
            raise UserError(f"task {name}: not a task as to_json writes it: {type(error).__name__}: {error}") from error


def _file(told: Mapping[str, Any], fetch: Callable[[str], bytes] | None) -> TaskFile:
    return TaskFile(told["name"], _content(told, fetch), behind=bool(told.get("behind", False)))


def _content(file: Mapping[str, Any], fetch: Callable[[str], bytes] | None) -> bytes:
    if "base64" in file:
        try:
            return base64.b64decode(file["base64"], validate=True)
        except binascii.Error as error:
            raise UserError(f"the content of {file['name']!r} is no base64: {error}") from error
    if fetch is None:
        raise UserError(f"the content of {file['name']!r} is stored elsewhere; read the task with read_tasks(folder)")
    content = fetch(file["sha256"])
    if hashlib.sha256(content).hexdigest() != file["sha256"]:
        raise UserError(f"the stored content of {file['name']!r} is not what the task was written with")
    return content


def write_tasks(tasks: Iterable[Task], folder: Path) -> int:
    """Write `tasks.jsonl` and, once each, the contents under their SHA-256; how many tasks."""
    contents = folder / CONTENT_FOLDER
    contents.mkdir(parents=True, exist_ok=True)

    def keep(file: TaskFile) -> None:
        path = contents / file.digest
        if not path.exists():
            path.write_bytes(file.content)

    count = 0
    with (folder / TASKS_FILE).open("w", encoding="utf-8") as lines:
        for task in tasks:
            lines.write(json.dumps(task.to_json(keep), ensure_ascii=False, sort_keys=True) + "\n")
            count += 1
    return count


def read_tasks(folder: Path) -> list[Task]:
    """The tasks that `write_tasks` wrote. UserError naming the file and line that cannot be read."""
    path = folder / TASKS_FILE

    def fetch(digest: str) -> bytes:
        return (folder / CONTENT_FOLDER / Path(digest).name).read_bytes()

    tasks = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").rstrip("\n").split("\n"), 1):
            try:
                tasks.append(Task.from_json(json.loads(line), fetch))
            except (UserError, ValueError) as error:
                raise UserError(f"{path}, line {number}: {error}") from error
    except OSError as error:
        raise UserError(f"the tasks cannot be read: {error}") from error
    return tasks
