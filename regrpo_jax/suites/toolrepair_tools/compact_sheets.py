"""Pictures of the compact profile that a policy must ask for: tiny cards on a large sheet, enlarged, and bar charts.

A sheet has 24 x 24 of its pixels for each that a policy sees, and a card on it has 4 x 4; the paper is tinted from
place to place by more than what is left of a card then. So neither where a card is nor its colour can be told from the
sheet. An enlarged window shows it as large as the cards of `compact_pictures`. Task makers and tools draw with the same
functions.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from regrpo_jax.suites.toolrepair_tools.compact_pictures import COLOURS, REGIONS, SIDE

CELL = 24  # pixels of a sheet's side for one that a policy sees
SHEET = CELL * SIDE  # pixels of a sheet's side
WINDOW = 14  # pixels of the side of what is enlarged
TINY = 4  # pixels of a card's side on the sheet
LIGHTEST, DARKEST = 110, 70  # of the paper; with its tints it is grey to `picture_words`, neither black nor white
TINT = 10  # a tint differs from the paper by at most this much in a channel
_TINTS = 200  # of a sheet
_SCALE = SIDE // WINDOW
_LINE = (170, 170, 170)  # of axes and of what divides two halves; a grey as well
_LEFT, _BOTTOM, _BAR, _STEP = 4, 51, 9, 12  # of a chart: axes, a bar's width, from one bar to the next
CROSSED, STRUCK, BLOT = "crossed", "struck", "blot"
WHITE_INK = "white"


@dataclass(frozen=True)
class TinyCard:
    """A card: its region, its colour, its place in the region's window (pixels), and CROSSED, STRUCK or "" for neither.

    A mark of BLOT is no card: the whole window is black.
    """

    region: str
    colour: str
    left: int
    top: int
    mark: str = ""

    @property
    def name(self) -> str:
        """What tells it from others."""
        return f"{self.mark}{self.colour}@{self.region}/{self.left}/{self.top}"


def random_paper(rng: random.Random) -> int:
    """A grey for sheets and charts."""
    return rng.randint(DARKEST, LIGHTEST)


def _corner(region: str) -> tuple[int, int]:
    """The left upper pixel of a region's window."""
    column, row = REGIONS[region]
    return (2 * column + 1) * SHEET // 4 - WINDOW // 2, (2 * row + 1) * SHEET // 4 - WINDOW // 2


def draw_sheet(cards: Sequence[TinyCard], paper: int, rng: random.Random) -> bytes:
    """A PNG of tiny cards on tinted paper."""
    tints = np.frombuffer(rng.randbytes(3 * _TINTS), np.uint8).reshape(-1, 3) % (2 * TINT + 1) + (paper - TINT)
    cells = np.frombuffer(rng.randbytes(SIDE * SIDE), np.uint8).reshape(SIDE, SIDE) % _TINTS
    pixels = cells.repeat(CELL, axis=0).repeat(CELL, axis=1)  # [row, column], an index of the palette
    black, white, first = _TINTS, _TINTS + 1, _TINTS + 2
    for card in cards:
        left, top = _corner(card.region)
        if card.mark == BLOT:
            pixels[top : top + WINDOW, left : left + WINDOW] = black
            continue
        part = pixels[top + card.top :, left + card.left :][:TINY, :TINY]
        part[:] = first + list(COLOURS).index(card.colour)
        if card.mark == CROSSED:
            part[np.eye(TINY, dtype=bool) | np.eye(TINY, dtype=bool)[::-1]] = black
        elif card.mark == STRUCK:
            part[1:3] = white
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.putpalette([*tints.astype(np.uint8).tobytes(), 0, 0, 0, 255, 255, 255, *sum(COLOURS.values(), ())])
    return _png(image)


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def magnified(sheet: Image.Image, region: str) -> Image.Image:
    """The window of a region, as large as a policy sees it."""
    left, top = _corner(region)
    part = sheet.crop((left, top, left + WINDOW, top + WINDOW)).convert("RGB")
    return part.resize((SIDE, SIDE), Image.Resampling.NEAREST)


def paired(sheet: Image.Image, first: str, second: str) -> Image.Image:
    """The left halves of two windows side by side, a line between them."""
    image, half = Image.new("RGB", (SIDE, SIDE)), SIDE // 2
    for place, region in enumerate((first, second)):
        image.paste(magnified(sheet, region).crop((0, 0, half, SIDE)), (place * half, 0))
    ImageDraw.Draw(image).line((half, 0, half, SIDE), fill=_LINE)
    return image


@dataclass(frozen=True)
class BarSheet:
    """What a chart is drawn of: (colour, height in pixels) of each bar, the paper, the ink where it has no colours."""

    bars: tuple[tuple[str, int], ...]
    paper: int
    ink: str = ""

    @property
    def name(self) -> str:
        """What tells it from others."""
        return "/".join((str(self.paper), self.ink, *(f"{colour}{height}" for colour, height in self.bars)))


def charted(sheet: BarSheet) -> Image.Image:
    """A bar chart; axes alone where there are no bars."""
    image = Image.new("RGB", (SIDE, SIDE), (sheet.paper,) * 3)
    canvas = ImageDraw.Draw(image)
    canvas.line((_LEFT, 4, _LEFT, _BOTTOM, SIDE - 4, _BOTTOM), fill=_LINE)
    for number, (colour, height) in enumerate(sheet.bars):
        left = _LEFT + 3 + number * _STEP
        fill = (255, 255, 255) if sheet.ink == WHITE_INK else COLOURS[colour]
        canvas.rectangle((left, _BOTTOM - height, left + _BAR - 1, _BOTTOM - 1), fill=fill)
    return image
