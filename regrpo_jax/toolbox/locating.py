"""From a description in words to boxes: what can be found without a learnt detector, and an honest nothing else.

In this order: a template (the name of an image file), faces, colours and shapes, separate things, printed text.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from regrpo_jax.toolbox.boxes import Box
from regrpo_jax.toolbox.pictures import open_image, pixels
from regrpo_jax.toolbox.recognition import find_faces, read_text
from regrpo_jax.toolbox.shapes import COLORS, SHAPES, find_blobs, find_things

if TYPE_CHECKING:
    from PIL.Image import Image

KINDS = "colours, shapes, faces, separate objects, printed text, or the picture in an image file"
CAN_FIND = (
    f"colours ({', '.join(COLORS)}), shapes ({', '.join(SHAPES)}), both together, faces, eyes, "
    "separate objects, printed text, or the picture in an image file"
)
_IMAGE_NAME = re.compile(r"\S+\.(?:png|jpe?g|gif|bmp|webp|tiff?)\Z", re.IGNORECASE)
_COLOR_WORDS = {name: name for name in COLORS} | {"grey": "gray", "violet": "purple", "magenta": "pink"}
_SHAPE_WORDS = {name: name for name in SHAPES} | {
    "disc": "circle", "disk": "circle", "dot": "circle", "oval": "ellipse", "rect": "rectangle"
}  # fmt: skip
_THINGS = "object thing shape item blob element piece patch figure card tile block mark coin cell"
_THING_WORDS = frozenset(_THINGS.split())
_FACE_WORDS = frozenset(("face", "human", "person", "people", "frontal"))
_FILLING = "a an the of in on all every each any that is are colored coloured color colour image picture photo one"
_FILLERS = frozenset(_FILLING.split())
_SUPERLATIVES = {"largest": 0, "biggest": 0, "smallest": -1}
_TEXTUAL = "text word label sign line number title reading says written"
_TEXT_WORDS = frozenset(_TEXTUAL.split())


class Found(NamedTuple):
    """A box and how sure it is, in percent (the share of the largest for colours and shapes)."""

    box: Box
    score: int


class Search(NamedTuple):
    """What came of a description: the boxes, and whether it is of a kind that can be found here."""

    found: list[Found]
    understood: bool


def _singular(word: str) -> str:
    if word in ("people", "hexes"):
        return word
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


def locate(image: Image, description: str) -> Search:
    """Where in the image the described things are, surest (or largest) first."""
    if _IMAGE_NAME.match(description.strip()) and Path(description.strip()).suffix:
        return Search(_find_template(image, open_image(description.strip())), True)
    quoted = re.search(r"[\"'“‘](.+?)[\"'”’]", description)
    if quoted:
        return Search(_find_text(image, quoted.group(1)), True)
    words = [_singular(word) for word in re.findall(r"[a-z]+", description.lower()) if word not in _FILLERS]
    order = [_SUPERLATIVES[word] for word in words if word in _SUPERLATIVES]
    words = [word for word in words if word not in _SUPERLATIVES]
    search = _by_words(image, words)
    if search is None:
        spoken = " ".join(word for word in description.split() if _singular(word.lower()) not in _TEXT_WORDS)
        hits = _find_text(image, spoken)
        search = Search(hits, bool(hits))
    if order and search.found:
        by_size = sorted(search.found, key=lambda found: (-found.box.area, found.box))
        return Search([by_size[order[0]]], search.understood)
    return search


def _by_words(image: Image, words: list[str]) -> Search | None:
    """Boxes for words of the small vocabulary; None when a word is not of it."""
    known = set(words)
    if not known:
        return None
    if "face" in known and known <= _FACE_WORDS:
        return Search(_equally_sure(find_faces(image)), True)
    if known <= {"eye", "human", "person"} and "eye" in known:
        return Search(_equally_sure(find_faces(image, "eye")), True)
    colors = {_COLOR_WORDS[word] for word in known if word in _COLOR_WORDS}
    shapes = {_SHAPE_WORDS[word] for word in known if word in _SHAPE_WORDS}
    if not known <= _COLOR_WORDS.keys() | _SHAPE_WORDS.keys() | _THING_WORDS:
        return None
    if not colors and not shapes:
        return Search(_equally_sure(find_blobs(image)), True)
    wanted = shapes | ({"square"} if "rectangle" in shapes else set()) | ({"circle"} if "ellipse" in shapes else set())
    things = [
        thing
        for thing in find_things(image)
        if (not colors or thing.color in colors) and (not wanted or thing.shape in wanted)
    ]
    largest = max((thing.area for thing in things), default=1)
    return Search([Found(thing.box, max(1, round(100 * thing.area / largest))) for thing in things], True)


def _equally_sure(boxes: list[Box]) -> list[Found]:
    return [Found(box, 100) for box in boxes]


def _find_text(image: Image, wanted: str) -> list[Found]:
    """Lines of printed text that hold the wanted words, without regard to case and spaces."""
    folded = re.sub(r"\W+", "", wanted.casefold())
    if not folded:
        return []
    lines = [line for line in read_text(image) if folded in re.sub(r"\W+", "", line.text.casefold())]
    return [Found(line.box, round(100 * line.score)) for line in lines]


def _find_template(image: Image, template: Image, least: float = 0.95, most: int = 50) -> list[Found]:
    """Places that look like the template, unturned and of the same size; overlapping ones are told once."""
    import cv2
    import numpy

    if template.width > image.width or template.height > image.height:
        return []
    # The mean difference, unlike the correlation, is also defined for a template of one colour.
    squares = cv2.matchTemplate(pixels(image), pixels(template), cv2.TM_SQDIFF)
    scores = 1.0 - numpy.sqrt(numpy.maximum(squares, 0.0) / (3 * template.width * template.height)) / 255.0
    found: list[Found] = []
    while len(found) < most:
        _, best, _, (left, top) = cv2.minMaxLoc(scores)
        if best < least:
            break
        found.append(Found(Box(left, top, left + template.width, top + template.height), round(100 * best)))
        across, down = template.width // 2 + 1, template.height // 2 + 1
        scores[max(0, top - down) : top + down + 1, max(0, left - across) : left + across + 1] = -1.0
    return found
