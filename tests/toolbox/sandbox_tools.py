"""Small tools for the tests of the sandbox, loaded in the workers as a user's tools are."""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smolagents import Tool

from regrpo_jax.records.types import Status
from regrpo_jax.toolbox import behind
from regrpo_jax.toolbox.failures import EmptyResult, ToolFailure
from regrpo_jax.toolbox.solutions import run_solution


class ReadText(Tool):
    name = "read_text"
    description = "The text of a file."
    inputs = {"file_path": {"type": "string", "description": "name of the file"}}
    output_type = "string"

    def forward(self, file_path: str) -> str:
        return Path(file_path).read_text(encoding="utf-8")


class Add(Tool):
    name = "add"
    description = "The sum of two numbers."
    inputs = {"a": {"type": "number", "description": "first"}, "b": {"type": "number", "description": "second"}}
    output_type = "number"

    def forward(self, a: float, b: float) -> float:
        return a + b


class Find(Tool):
    name = "find"
    description = "The lines of the workspace's text files that hold a word."
    inputs = {"word": {"type": "string", "description": "what to look for"}}
    output_type = "array"

    def forward(self, word: str) -> list[str]:
        if word == "nowhere":
            raise EmptyResult("No results found for nowhere.")
        texts = [path.read_text(encoding="utf-8") for path in sorted(Path().glob("*.txt"))]
        return [line for text in texts for line in text.splitlines() if word in line]


class Paint(Tool):
    name = "paint"
    description = "A picture of one colour."
    inputs = {"color": {"type": "string", "description": "its colour"}}
    output_type = "string"

    def forward(self, color: str) -> str:
        from PIL import Image

        Image.new("RGB", (4, 4), color).save("paint_1.png")
        return "paint_1.png"


class AskHost(Tool):
    name = "ask_host"
    description = "Runs on the host."
    inputs = {"question": {"type": "any", "description": "anything"}}
    output_type = "any"
    remote = True

    def forward(self, question: Any) -> Any:
        return {"asked": question}


class Record(dict[str, str]):
    """What its printed form does not tell; it stays with the tools."""

    served = ("__getitem__", "__len__", "__iter__", "__repr__")

    def __repr__(self) -> str:
        return f"keys {sorted(self)}"

    def __missing__(self, key: str) -> str:
        raise LookupError(f"no {key}; try {min(self)}")


def behind_the_tools(name: str = "") -> Any:
    """The names of the files that only tools read, or the text of one."""
    return (behind.read(name) or b"").decode() if name else behind.names()


def noisy() -> None:
    print("heard")


def leave() -> None:
    os._exit(0)


def say_goodbye() -> None:
    sys.exit(1)


def hang() -> None:
    time.sleep(1000)


def look_at(value: Any) -> str:
    return f"{type(value).__name__} {value['colour']}"


def solve_it(code: str) -> str:
    return run_solution(code, "text", "solve_it")


def load(settings: Any) -> dict[str, Any]:
    tools: list[Any] = [ReadText(), Add(), Find(), Paint(), AskHost()]
    functions: list[Any] = [behind_the_tools, noisy, leave, say_goodbye, hang, look_at, solve_it]
    return {tool.name: tool for tool in tools} | {tool.__name__: tool for tool in functions} | {"record": record}


def own_process() -> int:
    return os.getpid()


def draw() -> float:
    return random.random()


def load_stateless(settings: Any) -> dict[str, Any]:
    """Tools of which one process serves many episodes."""
    functions: list[Any] = [behind_the_tools, own_process, draw, hang, leave]
    tools = {"add": Add(), "read_text": ReadText()} | {tool.__name__: tool for tool in functions}
    for tool in tools.values():
        tool.stateless = True
    return tools


def record() -> Record:
    return Record(colour="red")


def break_tools(tools: dict[str, Callable[..., Any]], settings: Any, seed: int) -> dict[str, Callable[..., Any]]:
    def broken(*arguments: Any, **keywords: Any) -> Any:
        raise ToolFailure(Status(settings["status"]), f"{settings['tool']} is out of order ({seed})")

    return {**tools, settings["tool"]: broken}
