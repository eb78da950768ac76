"""Pictures of the full profile that a policy must ask for: small print on a large sheet, cut out, and bar charts."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 2400, 1800  # of a sheet
PART = (84, 66)  # width and height of a part with print
FONT = 14  # pixels of the print
INKS = {"black": (0, 0, 0), "red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220),
        "purple": (140, 50, 170)}  # fmt: skip
CROSSED, STRUCK, BLOT = "crossed", "struck", "blot"
CHART = (480, 360)
_MARGIN, _FLOOR, _LINE = 20, 320, (150, 150, 150)
_PAPER = (255, 255, 255)


@dataclass(frozen=True)
class Print:
    """Lines of print in a part: its left upper corner, the lines, their ink, and a mark.

    CROSSED: crossed out in red. STRUCK: struck through in blue. BLOT: the part is black. "": none of these.
    """

    left: int
    top: int
    lines: tuple[str, ...]
    ink: str = "black"
    mark: str = ""

    @property
    def box(self) -> str:
        """The part, as tools take it."""
        return f"({self.left}, {self.top}, {self.left + PART[0]}, {self.top + PART[1]})"

    @property
    def name(self) -> str:
        """What tells it from others."""
        return f"{self.mark}{self.ink}{self.box}{'/'.join(self.lines)}"


def draw_prints(prints: Sequence[Print]) -> bytes:
    """A PNG of 2400 x 1800 pixels. Its colours are a palette's, without shades between them, so that it stays small."""
    image = Image.new("P", (WIDTH, HEIGHT), len(INKS))
    image.putpalette([*sum(INKS.values(), ()), *_PAPER])
    canvas = ImageDraw.Draw(image)
    canvas.fontmode = "1"
    for one in prints:
        _draw_print(canvas, one)
    return _png(image)


def _draw_print(canvas: ImageDraw.ImageDraw, one: Print) -> None:
    inks, (width, height) = list(INKS), PART
    right, bottom = one.left + width - 1, one.top + height - 1
    if one.mark == BLOT:
        canvas.rectangle((one.left, one.top, right, bottom), fill=inks.index("black"))
        return
    for number, line in enumerate(one.lines):
        left, top, ink = one.left + 22, one.top + 4 + 20 * number, inks.index(one.ink)
        canvas.text((left, top), line, fill=ink, font=ImageFont.load_default(FONT))
        canvas.rectangle((left - 2, top + 16, right - 22, top + 17), fill=ink)  # so that its ink has a share to tell
    if one.mark == CROSSED:
        for ends in ((one.top + 2, one.top + 24), (one.top + 24, one.top + 2)):
            canvas.line((one.left + 16, ends[0], right - 16, ends[1]), fill=inks.index("red"), width=3)
    elif one.mark == STRUCK:
        canvas.line((one.left + 10, one.top + 12, right - 10, one.top + 12), fill=inks.index("blue"), width=3)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def enlarged(part: Image.Image) -> Image.Image:
    """Twice as large."""
    return part.resize((2 * part.width, 2 * part.height), Image.Resampling.NEAREST)


def side_by_side(parts: Sequence[Image.Image]) -> Image.Image:
    """Parts from left to right, a line between them."""
    image = Image.new("RGB", (sum(part.width for part in parts), max(part.height for part in parts)), _PAPER)
    left = 0
    for part in parts:
        image.paste(part, (left, 0))
        if left:
            ImageDraw.Draw(image).line((left, 0, left, image.height), fill=_LINE)
        left += part.width
    return image


def draw_chart(rows: Sequence[tuple[str, int]], *, labelled: bool = True) -> Image.Image:
    """Bars (name, height in pixels) over their names; axes alone without rows. labelled: else orange, without names."""
    image = Image.new("RGB", CHART, _PAPER)
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(FONT)
    canvas.line((_MARGIN, _MARGIN, _MARGIN, _FLOOR, CHART[0] - _MARGIN, _FLOOR), fill=_LINE, width=4)
    step = (CHART[0] - 2 * _MARGIN) // max(1, len(rows))
    for number, (name, height) in enumerate(rows):
        left = _MARGIN + 12 + number * step
        fill = INKS["blue"] if labelled else (240, 140, 30)
        canvas.rectangle((left, _FLOOR - height, left + step - 24, _FLOOR - 3), fill=fill)
        if labelled:
            canvas.text((left + step // 2 - 12, _FLOOR + 8), name, fill=INKS["black"], font=font, anchor="ma")
    return image
