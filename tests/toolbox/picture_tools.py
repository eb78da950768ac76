"""Tools of a user that return pictures, or take them."""

from __future__ import annotations

from typing import Any

import numpy
import PIL.Image
from smolagents import Tool

GREYS = numpy.arange(12, dtype=numpy.uint16).reshape(3, 4) * 5000


def paint(color: str, size: int = 4) -> PIL.Image.Image:
    """Paints a square.

    Args:
        color: its colour
        size: of a side, in pixels
    """
    return PIL.Image.new("RGB", (size, size), color)


def in_mode(mode: str) -> PIL.Image.Image:
    """A picture of some mode.

    Args:
        mode: its mode
    """
    if mode == "I;16":
        return PIL.Image.fromarray(GREYS)
    picture = PIL.Image.new("RGBA", (4, 3), (255, 0, 0, 255))
    picture.putpixel((1, 1), (0, 0, 255, 0))
    return picture if mode == "RGBA" else picture.convert("RGB").convert(mode)


def odd(kind: str) -> Any:
    """A picture, or several, that cannot be shown.

    Args:
        kind: what is wrong
    """
    if kind == "empty":
        return PIL.Image.new("RGB", (0, 5))
    if kind == "large":
        return PIL.Image.new("1", (8000, 8000))
    if kind == "long":
        return PIL.Image.new("L", (2010, 10))
    if kind == "nan":
        return PIL.Image.fromarray(numpy.array([[0.0, numpy.nan]], numpy.float32))
    if kind == "one bad":
        return [PIL.Image.new("L", (3, 3)), PIL.Image.new("L", (3, 0))]
    return [PIL.Image.new("L", (2, 2))] * int(kind)


def several(count: int) -> list[Any]:
    """A list of pictures.

    Args:
        count: how many
    """
    return [PIL.Image.new("L", (place + 1, 2), 255) for place in range(count)]


def beside(name: str) -> dict[str, Any]:
    """A picture beside something else.

    Args:
        name: what it is called
    """
    return {"name": name, "found": [PIL.Image.new("L", (2, 2)), 7]}


def pixels(side: int) -> Any:
    """An array, which is no picture.

    Args:
        side: its height and width
    """
    return numpy.zeros((side, side, 3), numpy.uint8)


def measure(picture: PIL.Image.Image) -> str:
    """The size and mode of a picture.

    Args:
        picture: the picture
    """
    return f"{picture.size} {picture.mode}"


class Sketch(Tool):
    name = "sketch"
    description = "Sketches something."
    inputs = {"subject": {"type": "string", "description": "what"}}
    output_type = "image"

    def forward(self, subject: str) -> Any:
        from smolagents.agent_types import AgentImage

        picture = PIL.Image.new("RGB", (6, 2), "green")
        return AgentImage(picture) if subject == "wrapped" else picture


class FarAway(Tool):
    name = "far_away"
    description = "Paints on the host."
    inputs = {"color": {"type": "string", "description": "its colour"}}
    output_type = "image"
    remote = True

    def forward(self, color: str) -> Any:
        return PIL.Image.new("CMYK", (5, 4), (0, 0, 0, 0))
