"""Coloured things and geometric shapes in an image, by thresholds and outlines; nothing here is learnt.

Good for diagrams, cards and flat scenes. In photographs a colour is found wherever it is, whatever it is of.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from regrpo_jax.toolbox.boxes import Box
from regrpo_jax.toolbox.pictures import pixels

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

COLORS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "brown", "black", "gray", "white")
SHAPES = ("circle", "ellipse", "triangle", "square", "rectangle", "pentagon", "hexagon", "star")
# The names that the conditions of `color_index` decide on, in their order.
_DECIDED = "black white gray pink pink brown red orange yellow green cyan blue purple"
_SMALLEST_SHARE = 0.001  # of the image's pixels
_SMALLEST = 25  # pixels


class Thing(NamedTuple):
    """A connected piece of one colour: its box, outline kind ("other" if none of SHAPES) and pixels."""

    box: Box
    color: str
    shape: str
    area: int


def color_index(image: numpy.ndarray) -> numpy.ndarray:
    """For each pixel of `uint8 [height, width, 3]` the place of its colour's name in COLORS, `uint8`."""
    import cv2
    import numpy

    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    hue, saturation, value = (hsv[..., channel].astype(numpy.float32) for channel in range(3))
    hue *= 360.0 / 256.0
    # Saturation times value is the spread between the strongest and the weakest channel.
    spread = saturation * value / 255.0
    colorless = (spread < 32) | (saturation < 40)
    light_red = (saturation < 150) & (value > 170)
    dark_warm = (value < 165) & (saturation > 60)
    reddish = (hue < 15) | (hue >= 340)
    chosen = [
        (colorless & (value < 64)) | (value < 40),
        colorless & (value >= 200),
        colorless,
        reddish & light_red,
        (hue >= 285) & (hue < 340) & (value > 150) & ((hue >= 310) | (saturation < 150)),
        ((hue >= 10) & (hue < 48) & dark_warm) | (reddish & (value < 175) & (saturation < 210)),
        reddish,
        hue < 45,
        hue < 70,
        hue < 165,
        hue < 198,
        hue < 258,
        hue < 340,
    ]
    return numpy.select(chosen, [COLORS.index(name) for name in _DECIDED.split()], default=0).astype(numpy.uint8)


def color_shares(image: Image) -> dict[str, float]:
    """Share of the image's pixels for each colour name, largest first."""
    import numpy

    counts = numpy.bincount(color_index(pixels(image)).ravel(), minlength=len(COLORS))
    shares = [(name, float(count) / counts.sum()) for name, count in zip(COLORS, counts, strict=True) if count]
    return dict(sorted(shares, key=lambda pair: (-pair[1], pair[0])))


def _distances(corners: Any) -> Any:
    """How far each corner is from their middle."""
    import numpy

    points = corners.reshape(-1, 2).astype(numpy.float64)
    return numpy.hypot(*(points - points.mean(axis=0)).T)


def _evenly_far(corners: Any) -> bool:
    far = _distances(corners)
    return bool(far.max() < 1.25 * far.min())


def _alternates(corners: Any) -> bool:
    """Whether there are eight to twelve corners, by turns far from the middle and near to it, as a star's are."""
    if len(corners) not in (8, 10, 12):
        return False
    far = _distances(corners)
    one, other = far[0::2], far[1::2]
    even = one.max() < 1.3 * one.min() and other.max() < 1.3 * other.min()
    return bool(even and not 0.75 < one.mean() / other.mean() < 1.33)


def outline_kind(outline: Any) -> str:
    """Which of SHAPES an OpenCV contour is, "other" if none."""
    import cv2

    area, length = cv2.contourArea(outline), cv2.arcLength(outline, True)
    hull_area = cv2.contourArea(cv2.convexHull(outline))
    if area <= 0 or length <= 0 or hull_area <= 0:
        return "other"
    corners = cv2.approxPolyDP(outline, 0.03 * length, True)
    solidity = area / hull_area
    if solidity < 0.85:
        return "star" if _alternates(corners) else "other"
    _, (first, second), _ = cv2.minAreaRect(outline)
    long, short = max(first, second), min(first, second)
    if short <= 0:
        return "other"
    filled = area / (long * short)
    if len(corners) == 3:
        return "triangle"
    if len(corners) == 4 and filled > 0.88:
        return "square" if long / short < 1.12 else "rectangle"
    roundness = 4 * math.pi * area / length**2
    if len(corners) == 5 and roundness < 0.87 and _evenly_far(corners):
        return "pentagon"
    if len(corners) == 6 and roundness < 0.885 and _evenly_far(corners):
        return "hexagon"
    if 0.70 < filled < 0.86 and len(corners) > 5:
        return "circle" if long / short < 1.12 else "ellipse"
    return "other"


def _background(index: numpy.ndarray) -> int:
    """The colour of most pixels along the edge."""
    import numpy

    edge = numpy.concatenate([index[0], index[-1], index[:, 0], index[:, -1]])
    return int(numpy.bincount(edge, minlength=len(COLORS)).argmax())


def find_things(image: Image) -> list[Thing]:
    """All pieces of one colour but the background, largest first."""
    index = color_index(pixels(image))
    background = _background(index)
    found = [thing for color in range(len(COLORS)) for thing in _pieces(index, color, color == background)]
    return sorted(found, key=lambda thing: (-thing.area, thing.box, thing.color))


def _pieces(index: numpy.ndarray, color: int, is_background: bool) -> Iterator[Thing]:
    import cv2
    import numpy

    height, width = index.shape
    mask = cv2.morphologyEx((index == color).astype(numpy.uint8), cv2.MORPH_OPEN, numpy.ones((3, 3), numpy.uint8))
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    for outline in outlines:
        left, top, across, down = cv2.boundingRect(outline)
        touches = left == 0 or top == 0 or left + across == width or top + down == height
        area = cv2.contourArea(outline)
        if area < max(_SMALLEST, _SMALLEST_SHARE * width * height) or (is_background and touches):
            continue
        yield Thing(Box(left, top, left + across, top + down), COLORS[color], outline_kind(outline), int(area))


def find_blobs(image: Image) -> list[Box]:
    """Separate things that are brighter (or darker) than what is around them, in reading order: coins, cells."""
    import cv2
    import numpy

    gray = cv2.cvtColor(pixels(image), cv2.COLOR_RGB2GRAY).astype(numpy.float32)
    smooth = cv2.GaussianBlur(gray, (0, 0), 2)
    around = cv2.GaussianBlur(gray, (0, 0), max(image.size) / 6.4)
    difference = numpy.asarray(smooth - around)
    spread = float(difference.max() - difference.min())
    if spread < 1.0:
        return []
    difference = ((difference - difference.min()) * (255.0 / spread)).astype(numpy.uint8)
    _, bright = cv2.threshold(difference, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    if bright.mean() > 127:  # things are the smaller part
        bright = 255 - bright
    cleaned = cv2.morphologyEx(bright, cv2.MORPH_OPEN, numpy.ones((5, 5), numpy.uint8))
    outlines, _ = cv2.findContours(cleaned, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    smallest = max(_SMALLEST, _SMALLEST_SHARE * image.width * image.height)
    boxes = (cv2.boundingRect(outline) for outline in outlines if cv2.contourArea(outline) >= smallest)
    return sorted((Box(x, y, x + w, y + h) for x, y, w, h in boxes), key=lambda box: (box.top, box.left))
