"""Small pictures of the compact profile: cards with a code in their pixels, and shapes inside a frame.

Drawing and reading live together, so that one table says what a colour and a region is. A policy sees colours and
places; the code of a card is a row of black and white cells, which the tools decode from the pixels.
"""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

SIDE = 56  # pixels of a picture
HALF = SIDE // 2
CARD = 17  # pixels of a card's side
FRAME = 4  # pixels of a frame's width
SHAPE = 9  # pixels of a shape's side
_SLOT = 15  # pixels between the corners of two shapes
BITS = 7  # of a code, which is below 128
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "yellow": (230, 210, 40)}
REGIONS = {"topleft": (0, 0), "topright": (1, 0), "lowleft": (0, 1), "lowright": (1, 1)}  # (column, row)
BESIDE = {"topleft": "topright", "topright": "topleft", "lowleft": "lowright", "lowright": "lowleft"}
SHAPES = ("square", "circle")
_SAME = 60  # sum of absolute channel differences; any two colours are at least 180 apart
_BLACK, _WHITE = (0, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class Card:
    """A card: its region, its colour, its place in the quadrant (pixels), and its code (None: it has none)."""

    region: str
    colour: str
    left: int
    top: int
    code: int | None


def random_card(rng: random.Random, region: str, colour: str, code: str | None) -> Card:
    """A card somewhere in its quadrant."""
    return Card(region, colour, rng.randint(3, 7), rng.randint(3, 7), None if code is None else int(code))


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _paper(grey: int) -> tuple[Image.Image, ImageDraw.ImageDraw]:
    image = Image.new("RGB", (SIDE, SIDE), (grey, grey, grey))
    return image, ImageDraw.Draw(image)


def draw_cards(cards: Sequence[Card], grey: int) -> bytes:
    """A PNG of cards on grey paper (0-255)."""
    image, canvas = _paper(grey)
    for card in cards:
        column, row = REGIONS[card.region]
        left, top = column * HALF + card.left, row * HALF + card.top
        canvas.rectangle((left, top, left + CARD - 1, top + CARD - 1), fill=COLOURS[card.colour])
        for bit in range(BITS if card.code is not None else 0):
            white = (card.code or 0) >> bit & 1
            x, y = left + 1 + 2 * bit, top + CARD - 4
            canvas.rectangle((x, y, x + 1, y + 2), fill=_WHITE if white else _BLACK)
    return _png(image)


def draw_shapes(frame: str, shapes: Sequence[tuple[str, str, int]], grey: int) -> bytes:
    """A PNG of shapes (kind, colour, slot 0-8) inside a frame of a colour."""
    image, canvas = _paper(grey)
    canvas.rectangle((0, 0, SIDE - 1, SIDE - 1), outline=COLOURS[frame], width=FRAME)
    for kind, colour, slot in shapes:
        left, top = 8 + slot % 3 * _SLOT, 8 + slot // 3 * _SLOT
        box = (left, top, left + SHAPE - 1, top + SHAPE - 1)
        (canvas.rectangle if kind == "square" else canvas.ellipse)(box, fill=COLOURS[colour])
    return _png(image)


def opened(name: str) -> Image.Image:
    """The picture file as RGB; OSError when it cannot be read."""
    with Image.open(name) as image:
        return image.convert("RGB")


def _mask(image: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    pixels = np.asarray(image, dtype=np.int32)  # [row, column, channel]
    return np.abs(pixels - np.asarray(colour, dtype=np.int32)).sum(axis=-1) <= _SAME  # [row, column]


def _box(mask: np.ndarray) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom (excluded) of what is true, None when less than half a card is."""
    if int(mask.sum()) < CARD * CARD // 2:
        return None
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def card_in(image: Image.Image, colour: str | None = None) -> tuple[str, int | None] | None:
    """Colour and code of the first card of the image (of that colour, if given); None when there is no card.

    The code is None when no stripe of cells is there.
    """
    for name in COLOURS if colour is None else (colour,):
        box = _box(_mask(image, COLOURS[name]))
        if box is not None:
            return name, _code(image, box)
    return None


def _code(image: Image.Image, box: tuple[int, int, int, int]) -> int | None:
    left, _, _, bottom = box
    code = 0
    for bit in range(BITS):
        pixel = image.getpixel((left + 1 + 2 * bit, bottom - 3))
        if pixel not in (_BLACK, _WHITE):
            return None
        code |= (pixel == _WHITE) << bit
    return code


def quadrant(image: Image.Image, region: str) -> Image.Image:
    """One of the four quarters."""
    column, row = REGIONS[region]
    return image.crop((column * HALF, row * HALF, (column + 1) * HALF, (row + 1) * HALF))


def frame_colour(image: Image.Image) -> str:
    """Which colour the frame has, by its corner pixel; "" for none."""
    corner = image.crop((0, 0, 1, 1))
    return next((name for name, colour in COLOURS.items() if _mask(corner, colour).any()), "")


def count_shapes(image: Image.Image, colour: str, kind: str | None = None) -> int:
    """How many separate shapes of a colour (and kind) lie inside the frame."""
    mask = _mask(image, COLOURS[colour])
    mask[:FRAME], mask[-FRAME:], mask[:, :FRAME], mask[:, -FRAME:] = False, False, False, False
    found = 0
    while mask.any():
        row, column = (int(place[0]) for place in np.nonzero(mask))
        size = _erase(mask, row, column)
        found += kind is None or (size == SHAPE * SHAPE) == (kind == "square")
    return found


def _erase(mask: np.ndarray, row: int, column: int) -> int:
    """Remove the connected patch at a place; how many pixels it had."""
    stack, size = [(row, column)], 0
    while stack:
        row, column = stack.pop()
        if 0 <= row < SIDE and 0 <= column < SIDE and mask[row, column]:
            mask[row, column] = False
            size += 1
            stack += [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
    return size
