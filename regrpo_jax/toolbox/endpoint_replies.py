"""What the models behind `detect`, `segment` and `caption` answer, read without trust.

docs/tools.md has the protocol. What breaks it is refused with one sentence, and not asked for again: the same picture
would bring the same. Only an answer that is no JSON may be a proxy's doing.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from regrpo_jax.records.reasons import printable
from regrpo_jax.toolbox.chat_api import BadReply, body_of

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BOXES, MOST_MASKS, MOST_TEXT = 1000, 64, 8000  # of an answer; the last in characters
_BEGINNING = "data:image/png;base64,"
_WHITE = 128  # a mask's grey from which on the thing is there
_SLACK = 0.05  # of the longer side, by which a box may stick out of the picture; detectors guess its edges
_LARGEST = 1e6
Edges = tuple[float, float, float, float]


class Detected(NamedTuple):
    """A thing that was found: x1, y1, x2, y2 in pixels of what was sent, how sure the model is (0 to 1), its name."""

    edges: Edges
    score: float
    label: str


def detected_of(reply: str, size: tuple[int, int]) -> list[Detected]:
    """The boxes of a detector's answer, surest first, cut to the picture that was sent with `size` pixels. BadReply."""
    body = body_of(reply)
    boxes = _listed(body, "boxes", MOST_BOXES)
    scores, labels = _beside(body, "scores", len(boxes), 1.0), _beside(body, "labels", len(boxes), "")
    for score in scores:
        if not _is_number(score) or not 0 <= score <= 1:
            raise _odd(f"its score {_shown(score)} is no number from 0 to 1")
    for label in labels:
        if not isinstance(label, str):
            raise _odd(f"its label {_shown(label)} is no text")
    edges = [_edges(box, size) for box in boxes]
    if edges and max(size) > 2 and max(map(max, edges)) <= 1:
        raise _odd("its boxes are shares of the picture, where pixels are wanted")
    found = map(Detected, edges, map(float, scores), labels)
    return sorted(found, key=lambda each: (-each.score, each.edges, each.label))


def masks_of(reply: str, size: tuple[int, int]) -> list[Image]:
    """The masks of an answer, each of `size`, black and white in mode L. BadReply."""
    return [_mask(mask, size) for mask in _listed(body_of(reply), "masks", MOST_MASKS)]


def caption_of(reply: str) -> str:
    """The text of an answer, "" where the model had nothing to say. BadReply."""
    text = body_of(reply).get("text")
    if not isinstance(text, str):
        raise _odd("it sent no text")
    if len(text) > MOST_TEXT:
        raise _odd(f"it sent a text of {len(text):,} characters; at most {MOST_TEXT:,} are read")
    return text.strip()


def _odd(words: str) -> BadReply:
    return BadReply(words, final=True)


def _shown(value: object) -> str:
    return printable(str(value), 80)


def _listed(body: Mapping[str, Any], name: str, most: int) -> list[Any]:
    found = body.get(name)
    if not isinstance(found, list):
        raise _odd(f"it sent no list of {name}")
    if len(found) > most:
        raise _odd(f"it sent {len(found):,} {name}; at most {most:,} are read")
    return found


def _beside(body: Mapping[str, Any], name: str, boxes: int, usual: Any) -> Sequence[Any]:
    """One for each box; they may be left out."""
    found = body.get(name)
    if found is None:
        return [usual] * boxes
    if not isinstance(found, list) or len(found) != boxes:
        sent = f"{len(found)} {name}" if isinstance(found, list) else f"no list of {name}"
        raise _odd(f"it sent {sent} with {boxes} boxes, where each box has one")
    return found


def _is_number(value: object) -> bool:
    """Of a size that means something; nan is of none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _LARGEST


def _edges(box: object, size: tuple[int, int]) -> Edges:
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise _odd(f"its box {_shown(box)} is not four numbers x1, y1, x2, y2")
    left, top, right, bottom = map(float, box)
    if left >= right or top >= bottom:
        raise _odd(f"its box {_shown(box)} is empty, as x1 is not below x2, or y1 not below y2")
    width, height = size
    slack = max(2.0, _SLACK * max(size))
    inside = left >= -slack and top >= -slack and right <= width + slack and bottom <= height + slack
    if not inside or left >= width or top >= height or right <= 0 or bottom <= 0:
        raise _odd(f"its box {_shown(box)} is outside of the picture, which was sent with {width} x {height} pixels")
    return max(0.0, left), max(0.0, top), min(float(width), right), min(float(height), bottom)


def _mask(value: object, size: tuple[int, int]) -> Image:
    from PIL import Image

    if not isinstance(value, str) or not value.startswith(_BEGINNING):
        raise _odd(f"a mask of it does not begin with {_BEGINNING}")
    try:
        data = base64.b64decode(value.removeprefix(_BEGINNING), validate=True)
        mask = Image.open(io.BytesIO(data), formats=("PNG",))
        if mask.size == size:
            mask.load()
    except (binascii.Error, OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise _odd(f"a mask of it is no PNG that can be read ({_shown(error)})") from None
    if mask.size != size:
        raise _odd(f"a mask of it has {mask.width} x {mask.height} pixels, what was sent has {size[0]} x {size[1]}")
    if mask.mode not in ("1", "L", "P", "RGB") or "transparency" in mask.info:
        raise _odd(f"a mask of it is of mode {mask.mode}, where black and white without transparency is wanted")
    grey = mask.convert("L")
    brightest = grey.getextrema()[1]
    if 0 < brightest < _WHITE:  # type: ignore[operator]
        raise _odd(f"the brightest pixel of a mask of it is {brightest}, where white (255) marks the thing")
    return grey.point([255 if grade >= _WHITE else 0 for grade in range(256)])
