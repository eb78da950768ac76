"""Where in an image: boxes as they are written by people and models, and words such as "top left"."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from regrpo_jax.toolbox.failures import ToolError


class Box(NamedTuple):
    """Pixels of an image: columns `left` to `right` and rows `top` to `bottom`, the last ones excluded."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def area(self) -> int:
        return (self.right - self.left) * (self.bottom - self.top)

    def text(self) -> str:
        return f"({self.left}, {self.top}, {self.right}, {self.bottom})"

    def shifted(self, columns: int, rows: int) -> Box:
        return Box(self.left + columns, self.top + rows, self.right + columns, self.bottom + rows)


ROWS = {"top": 0, "upper": 0, "bottom": 1, "lower": 1}
COLUMNS = {"left": 0, "right": 1}
_CENTRE = frozenset({"center", "centre", "middle", "central"})
_WHOLE = frozenset({"whole", "full", "all", "entire"})
_FILLERS = frozenset(
    [
        "a",
        "the",
        "of",
        "image",
        "picture",
        "photo",
        "half",
        "quarter",
        "quadrant",
        "corner",
        "side",
        "part",
        "region",
        "area",
        "most",
        "in",
        "at",
        "on",
    ]
)
REGION_WORDS = (
    "top left, top right, bottom left, bottom right, top, bottom, left, right, center or whole, "
    "or a box (x1, y1, x2, y2) in pixels"
)
_NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
_FOUR_NUMBERS = re.compile(
    rf"\s*[\[(]*\s*({_NUMBER})\s*[,\s]\s*({_NUMBER})\s*[,\s]\s*({_NUMBER})\s*[,\s]\s*({_NUMBER})\s*[\])]*\s*\Z"
)


def _numbers(value: Any) -> tuple[float, ...] | None:
    if isinstance(value, str):
        match = _FOUR_NUMBERS.match(value)
        return tuple(float(number) for number in match.groups()) if match else None
    if not isinstance(value, Sequence):
        return None
    if len(value) == 1 and isinstance(value[0], Sequence):
        return _numbers(value[0])
    if len(value) != 4 or any(isinstance(item, bool) or not isinstance(item, int | float | str) for item in value):
        return None
    try:
        return tuple(float(item) for item in value)
    except ValueError:
        return None


def parse_box(value: Any, size: tuple[int, int]) -> Box:
    """A box from `[x1, y1, x2, y2]` or text such as "(x1, y1, x2, y2)", cut to the image of `size` (width, height).

    ToolError, with the image's size, when it is no box or has no pixel in common with the image.
    """
    width, height = size
    numbers = _numbers(value)
    if numbers is None or not all(math.isfinite(number) for number in numbers):
        raise ToolError(f"{str(value)[:100]!r} is no box: write (x1, y1, x2, y2) in pixels of {width} x {height}.")
    left, top, right, bottom = numbers
    if right <= left or bottom <= top:
        raise ToolError(f"The box {value} is empty: x1 must be less than x2 and y1 less than y2.")
    box = Box(
        max(0, math.floor(min(left, width))),
        max(0, math.floor(min(top, height))),
        min(width, math.ceil(max(right, 0))),
        min(height, math.ceil(max(bottom, 0))),
    )
    if box.right <= box.left or box.bottom <= box.top:
        raise ToolError(f"The box {value} is outside the image, which has {width} x {height} pixels.")
    return box


def _words(text: str) -> list[str]:
    separated = re.sub(r"(top|upper|bottom|lower|middle|center|centre)(left|right)", r"\1 \2", text.lower())
    return [word for word in re.findall(r"[a-z]+", separated) if word not in _FILLERS]


def parse_region(value: Any, size: tuple[int, int]) -> Box:
    """A box, or the part of the image that words name: a half ("left"), a quarter ("top left"), "center", "whole".

    ToolError listing the words when there is no such region.
    """
    if not isinstance(value, str) or re.search(r"\d", value):
        return parse_box(value, size)
    width, height = size
    words = _words(value)
    rows = {ROWS[word] for word in words if word in ROWS}
    columns = {COLUMNS[word] for word in words if word in COLUMNS}
    known = all(word in ROWS or word in COLUMNS or word in _CENTRE or word in _WHOLE for word in words)
    if not words or not known or len(rows) > 1 or len(columns) > 1:
        raise ToolError(f'Unknown region "{value[:100]}". Regions are {REGION_WORDS}.')
    if _WHOLE.intersection(words):
        return Box(0, 0, width, height)
    centred = bool(_CENTRE.intersection(words))
    left, right = _span(columns, width, centred)
    top, bottom = _span(rows, height, centred)
    return Box(left, top, right, bottom)


def _span(halves: set[int], length: int, centred: bool) -> tuple[int, int]:
    """First and last pixel of a half, of the middle half, or of everything; at least one pixel."""
    if halves:
        half = next(iter(halves))
        return (0, max(1, length // 2)) if half == 0 else (length // 2, length)
    if centred:
        return length // 4, max(length // 4 + 1, length - length // 4)
    return 0, length
