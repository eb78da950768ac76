"""Small tools for the tests of the sandbox, loaded in the workers as a user's tools are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from smolagents import Tool

from regrpo_jax.records.types import Status
from regrpo_jax.toolbox.failures import EmptyResult, ToolFailure


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


def load(settings: Any) -> dict[str, Tool]:
    tools = [ReadText(), Add(), Find(), Paint(), AskHost()]
    return {tool.name: tool for tool in tools}


def break_tools(tools: dict[str, Callable[..., Any]], settings: Any, seed: int) -> dict[str, Callable[..., Any]]:
    def broken(*arguments: Any, **keywords: Any) -> Any:
        raise ToolFailure(Status(settings["status"]), f"{settings['tool']} is out of order ({seed})")

    return {**tools, settings["tool"]: broken}
