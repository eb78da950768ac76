"""Tools of one's own under GTA's names."""

from __future__ import annotations

from PIL import Image
from smolagents.tools import Tool


class TextToImage(Tool):
    """Returns a picture, which smolagents' types call an image."""

    name = "TextToImage"
    description = "Paints a plain picture."
    inputs = {"keywords": {"type": "string", "description": "a colour"}}
    output_type = "image"

    def forward(self, keywords: str) -> Image.Image:
        return Image.new("RGB", (40, 30), keywords)


class Counter(Tool):
    """Takes a picture itself and not its name."""

    name = "CountGivenObject"
    description = "Counts the colours of a picture."
    inputs = {
        "image": {"type": "image", "description": "the picture"},
        "text": {"type": "string", "description": "anything"},
    }
    output_type = "integer"

    def forward(self, image: Image.Image, text: str) -> int:
        return len(image.getcolors() or ())


class WrongArguments(Tool):
    """Has GTA's name and other arguments."""

    name = "MathOCR"
    description = "Reads."
    inputs = {"path": {"type": "string", "description": "the file"}}
    output_type = "string"

    def forward(self, path: str) -> str:
        return path
