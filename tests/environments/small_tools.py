"""Small tools for the tests of the environment, loaded in the workers as a user's tools are."""

from __future__ import annotations

import os
import signal
from typing import Any

from smolagents import Tool

from regrpo_jax.toolbox.failures import EmptyResult
from regrpo_jax.toolbox.files import existing_file
from regrpo_jax.toolbox.final_answer import FinalAnswer
from regrpo_jax.toolbox.signatures import CheckedTool

LOADER = "tests.environments.small_tools:load"
PLACES = {"top left": "EXIT 7", "bottom right": "GATE 4"}
ENTRIES = {"Rome": "3 hills", "Rome, Italy": "7 hills", "Rome, Georgia": "5 hills"}


class ReadText(CheckedTool):
    name = "read_text"
    description = "Reads the text of a file. One line each."
    inputs = {"file_path": {"type": "string", "description": "name of the file"}}
    output_type = "string"

    def forward(self, file_path: str) -> str:
        return existing_file(file_path).read_text(encoding="utf-8")


class Look(CheckedTool):
    name = "look"
    description = "Reads what is printed in a part of an image."
    inputs = {
        "image": {"type": "string", "description": "name of the image"},
        "region": {"type": "string", "description": "top left or bottom right", "nullable": True},
    }
    output_type = "string"

    def forward(self, image: str, region: str | None = None) -> str:
        existing_file(image)
        if region is None:
            return " ".join(PLACES.values())
        if region not in PLACES:
            raise EmptyResult(f'No text found at "{region}".')
        return PLACES[region]


class Search(CheckedTool):
    name = "search"
    description = "Finds facts about a place: short ones."
    inputs = {"query": {"type": "string", "description": "the place"}}
    output_type = "string"

    def forward(self, query: str) -> str:
        if query not in ENTRIES:
            raise EmptyResult(f"No results found for {query}.")
        return ENTRIES[query]


class Count(CheckedTool):
    name = "count"
    description = "How many letters a text has."
    inputs = {"text": {"type": "string", "description": "the text"}}
    output_type = "integer"

    def forward(self, text: str) -> int:
        return len(text)


class Paint(CheckedTool):
    name = "paint"
    description = "Makes a picture of one colour."
    inputs = {"color": {"type": "string", "description": "its colour"}}
    output_type = "string"

    def forward(self, color: str) -> str:
        from PIL import Image

        Image.new("RGB", (8, 8), color).save("paint_1.png")
        return "paint_1.png"


class Crash(CheckedTool):
    name = "crash"
    description = "Ends the process that runs it."
    inputs: dict[str, Any] = {}
    output_type = "string"

    def forward(self) -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return "still here"


class Stuck(CheckedTool):
    name = "stuck"
    description = "Never returns."
    inputs: dict[str, Any] = {}
    output_type = "string"

    def forward(self) -> str:
        while True:
            signal.pause()


class Ask(CheckedTool):
    name = "ask"
    description = "Asks somebody outside."
    inputs = {"question": {"type": "string", "description": "what is asked"}}
    output_type = "string"
    remote = True

    def forward(self, question: str) -> str:
        return question.upper()


def load(settings: Any) -> dict[str, Tool]:
    tools = [ReadText(), Look(), Search(), Count(), Paint(), Crash(), Stuck(), Ask(), FinalAnswer()]
    return {tool.name: tool for tool in tools}
