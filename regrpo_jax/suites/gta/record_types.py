"""The parts of a GTA record, as frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from regrpo_jax.suites.problems import Problem

IMAGE = "image"  # the type of files and results


@dataclass(frozen=True)
class ToolParameter:
    """An input or output of a tool. type: GTA's word, "text", "image", "int" or "bool"; name: "" of most outputs."""

    name: str
    type: str
    description: str
    optional: bool
    default: Any


@dataclass(frozen=True)
class ToolDescription:
    """A tool as GTA describes it."""

    name: str
    description: str
    inputs: tuple[ToolParameter, ...]
    outputs: tuple[ToolParameter, ...]


@dataclass(frozen=True)
class RecordFile:
    """A file that a record comes with. path: relative to the folder of the dataset file."""

    type: str
    path: str
    url: str


@dataclass(frozen=True)
class ToolCall:
    """A call that a turn asks for."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class ToolResult:
    """What a recorded tool gave. type: "text" or "image"; content: the text, or the path of the image."""

    type: str
    content: str


@dataclass(frozen=True)
class DialogTurn:
    """A turn of the recorded dialog.

    role: "user", "assistant" or "tool". content: words of the user or assistant; None where there are none. thought:
    None in call turns that lack it. calls: what the assistant asks for. name, result: of a tool's turn. error: JSON of
    what went wrong, None where nothing did. told: the turn's own JSON.
    """

    role: str
    content: str | None
    thought: str | None
    calls: tuple[ToolCall, ...]
    name: str
    result: ToolResult | None
    error: str | None
    told: Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What is right.

    objective: `whitelist` is groups of aliases, one of each group must be in an answer, none of `blacklist`.
    references: of a subjective record, texts that an answer should resemble. Neither: an image is asked for.
    """

    whitelist: tuple[tuple[str, ...], ...] = ()
    blacklist: tuple[tuple[str, ...], ...] = ()
    references: tuple[str, ...] = ()
    objective: bool = False

    @property
    def subjective(self) -> bool:
        """Whether there is a list of texts."""
        return bool(self.references)

    @property
    def image(self) -> bool:
        """Whether what counts is the image that is made."""
        return not self.objective and not self.references


@dataclass(frozen=True)
class GtaRecord:
    """A task of GTA. id: its key in the dataset file; position: among all keys of that file, from 0."""

    id: str
    position: int
    tools: tuple[ToolDescription, ...]
    files: tuple[RecordFile, ...]
    dialog: tuple[DialogTurn, ...]
    answer: Answer

    @property
    def question(self) -> str:
        """What the user asks first."""
        return self.dialog[0].content or ""

    @property
    def assistant_turns(self) -> tuple[DialogTurn, ...]:
        """The recorded turns of the assistant."""
        return tuple(turn for turn in self.dialog if turn.role == "assistant")


@dataclass(frozen=True)
class GtaData:
    """What a folder of GTA holds. file: the dataset file; count: its keys, those of malformed records included."""

    file: Path
    records: tuple[GtaRecord, ...]
    count: int
    tools: Mapping[str, ToolDescription]
    problems: tuple[Problem, ...]

    @property
    def folder(self) -> Path:
        """Where the paths of files start."""
        return self.file.parent
