"""Small pictures of coloured cards, and reading a card's colour back from the pixels.

The quickstart's tiny policy has to *see* something. A 56x56 picture with a card in one of its quadrants asks for one
visual skill only: which colour is it? Drawing and reading live together so that one table says what a colour and what a
region is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

PICTURE_SIDE = 56  # pixels
QUADRANT_SIDE = 28  # pixels
CARD_SIDE = 17  # pixels
MARGINS = (3, 7)  # pixels between a quadrant's upper left corner and its card, inclusive bounds

REGIONS = {"topleft": (0, 0), "topright": (1, 0), "lowleft": (0, 1), "lowright": (1, 1)}  # (column, row)
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "yellow": (230, 210, 40)}

_SAME_COLOUR = 60  # sum of absolute channel differences; any two of the colours are at least 180 apart
_SMALLEST_CARD = CARD_SIDE * CARD_SIDE // 2  # pixels of one colour that count as a card


@dataclass(frozen=True)
class Card:
    """One card: its colour and region, and its place (pixels) inside that region's quadrant."""

    colour: str
    region: str
    left: int
    top: int


@dataclass(frozen=True)
class Picture:
    """A grey background (one channel value, 0-255) with a few cards on it, each in its own region."""

    background: int
    cards: tuple[Card, ...]


def draw_picture(picture: Picture) -> Image.Image:
    """Draw the cards; returns an RGB image of 56 x 56 pixels."""
    grey = picture.background
    image = Image.new("RGB", (PICTURE_SIDE, PICTURE_SIDE), (grey, grey, grey))
    canvas = ImageDraw.Draw(image)
    for card in picture.cards:
        column, row = REGIONS[card.region]
        left, top = column * QUADRANT_SIDE + card.left, row * QUADRANT_SIDE + card.top
        canvas.rectangle((left, top, left + CARD_SIDE - 1, top + CARD_SIDE - 1), fill=COLOURS[card.colour])
    return image


def colours_in(image: Image.Image) -> tuple[str, ...]:
    """Name the colours of which an image has at least half a card's pixels, in the order of `COLOURS`."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.int32)  # [row, column, channel]
    found = []
    for name, colour in COLOURS.items():
        distances = np.abs(pixels - np.asarray(colour, dtype=np.int32)).sum(axis=-1)  # [row, column]
        if int((distances <= _SAME_COLOUR).sum()) >= _SMALLEST_CARD:
            found.append(name)
    return tuple(found)
