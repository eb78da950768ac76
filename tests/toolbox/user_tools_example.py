"""What a user's module may hold: a typed function, a Tool class, a Tool, and mistakes."""

from __future__ import annotations

from smolagents import Tool


def shout(text: str, times: int = 1) -> str:
    """Says it louder.

    Args:
        text: what to say
        times: how many marks of exclamation
    """
    return text.upper() + "!" * times


def untyped(text, times):  # type: ignore[no-untyped-def]
    """Says nothing about its types."""
    return text


class Whisper(Tool):
    name = "whisper"
    description = "Says it softer."
    inputs = {"text": {"type": "string", "description": "what to say"}}
    output_type = "string"

    def forward(self, text: str) -> str:
        return text.lower()


class Crop(Whisper):
    name = "crop"


class Broken(Tool):
    name = "broken tool"
    description = "Its name is no name."
    inputs = {}
    output_type = "string"

    def forward(self) -> str:
        return ""


whisper = Whisper()
number = 7


def note(text: str) -> None:
    """Writes a note down.

    Args:
        text: what to write
    """
    with open("notes.txt", "a", encoding="utf-8") as file:
        file.write(text)
