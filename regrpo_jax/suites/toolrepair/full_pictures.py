"""Pictures of the full profile: coloured cards with printed numbers, shapes with captions, scattered shapes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 480, 360
COLOURS = {"red": (215, 40, 40), "green": (40, 160, 70), "blue": (45, 80, 210), "orange": (240, 150, 30)}
REGIONS = {"top left": (0, 0), "top right": (1, 0), "bottom left": (0, 1), "bottom right": (1, 1)}  # (column, row)
OPPOSITE = {"top left": "bottom right", "bottom right": "top left", "top right": "bottom left",
            "bottom left": "top right"}  # fmt: skip
SHAPES = ("circle", "square", "triangle")
_PAPER, _INK = (250, 250, 250), (0, 0, 0)
_FONT = 34  # pixels


@dataclass(frozen=True)
class Mark:
    """A coloured shape in a quarter of the picture, and the text below it ("" for none)."""

    region: str
    colour: str
    shape: str
    text: str


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def draw_shape(canvas: ImageDraw.ImageDraw, shape: str, box: tuple[int, int, int, int], colour: str) -> None:
    """A filled circle, square or upright triangle in a box."""
    left, top, right, bottom = box
    if shape == "circle":
        canvas.ellipse(box, fill=COLOURS[colour])
    elif shape == "square":
        canvas.rectangle(box, fill=COLOURS[colour])
    else:
        canvas.polygon(((left + right) // 2, top, right, bottom, left, bottom), fill=COLOURS[colour])


def mark_box(region: str) -> tuple[int, int, int, int]:
    """Where the shape of a quarter is drawn."""
    column, row = REGIONS[region]
    left, top = column * WIDTH // 2 + 80, row * HEIGHT // 2 + 20
    return left, top, left + 80, top + 80


def text_box(region: str) -> tuple[int, int, int, int]:
    """Where the text of a quarter is printed, with room around it."""
    column, row = REGIONS[region]
    left, top = column * WIDTH // 2, row * HEIGHT // 2 + 105
    return left + 10, top, left + WIDTH // 2 - 10, top + 70


def draw_marks(marks: Sequence[Mark]) -> bytes:
    """A PNG of 480 x 360 pixels."""
    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT)
    for mark in marks:
        draw_shape(canvas, mark.shape, mark_box(mark.region), mark.colour)
        if mark.text:
            left, top, right, _ = text_box(mark.region)
            canvas.text(((left + right) // 2, top + 10), mark.text, fill=_INK, font=font, anchor="ma")
    return _png(image)


def draw_scene(shapes: Sequence[tuple[str, str, int]], banner: str) -> bytes:
    """Shapes (kind, colour, slot 0-11) on a grid of 4 x 3, below a banner of a colour."""
    image = Image.new("RGB", (WIDTH, HEIGHT), _PAPER)
    canvas = ImageDraw.Draw(image)
    canvas.rectangle((0, 0, WIDTH, 30), fill=COLOURS[banner])
    for kind, colour, slot in shapes:
        left, top = 35 + slot % 4 * 112, 52 + slot // 4 * 102
        draw_shape(canvas, kind, (left, top, left + 64, top + 64), colour)
    return _png(image)


def draw_label(lines: Sequence[str]) -> bytes:
    """Printed lines on paper, as on a badge."""
    image = Image.new("RGB", (WIDTH, 60 + 60 * len(lines)), _PAPER)
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT)
    canvas.rectangle((8, 8, WIDTH - 9, image.height - 9), outline=_INK, width=3)
    for number, line in enumerate(lines):
        canvas.text((40, 30 + 60 * number), line, fill=_INK, font=font)
    return _png(image)
