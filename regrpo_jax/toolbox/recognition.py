"""Text and faces in images: the two recognisers whose weights come with their packages.

Both are loaded when first needed (or by a tool's `warm_up`), use one thread and no network, and give the same
boxes for the same pixels.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from regrpo_jax.toolbox.boxes import Box
from regrpo_jax.toolbox.pictures import pixels
from regrpo_jax.toolbox.telemetry import turn_off_telemetry

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST_SIDE = 1280  # pixels of the image that the text detector sees; a larger one is shrunk for it
_THINNEST = LONGEST_SIDE // 32  # the detector works on tiles of 32 pixels
CASCADES = {
    "face": "haarcascade_frontalface_alt2.xml",
    "eye": "haarcascade_eye.xml",
}


class TextLine(NamedTuple):
    """A recognised line: where, what, and how sure (0 to 1)."""

    box: Box
    text: str
    score: float


@functools.cache
def text_engine() -> Any:
    """RapidOCR with the PP-OCR weights that lie in its wheel; nothing is downloaded."""
    turn_off_telemetry()
    from rapidocr import RapidOCR

    one_computed = {f"EngineConfig.onnxruntime.{kind}_op_num_threads": 1 for kind in ("intra", "inter")}
    settings = {
        "Global.log_level": "critical",
        "Global.use_cls": False,  # text that stands on its head is not looked for
        "Det.limit_type": "max",
        "Det.limit_side_len": LONGEST_SIDE,
    }
    engine = RapidOCR(params=one_computed | settings)
    logging.getLogger("RapidOCR").setLevel(logging.CRITICAL)
    return engine


def warm_text_engine() -> None:
    """Load the recogniser and use it once: its first line of text takes longest, and forked processes inherit it."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (160, 64), "white")
    ImageDraw.Draw(image).text((20, 16), "Warm", fill="black", font=ImageFont.load_default(28))
    read_text(image)


def read_text(image: Image) -> list[TextLine]:
    """The lines of printed text, from top to bottom and left to right."""
    found = text_engine()(pixels(_thick_enough(image))[:, :, ::-1].copy())
    if found.boxes is None or found.txts is None:
        return []
    lines = []
    for corners, text, score in zip(found.boxes, found.txts, found.scores, strict=True):
        left, top = corners.min(axis=0)
        right, bottom = corners.max(axis=0)
        box = Box(max(0, int(left)), max(0, int(top)), min(image.width, round(right)), min(image.height, round(bottom)))
        if text.strip() and box.right > box.left and box.bottom > box.top:
            lines.append(TextLine(box, text.strip(), round(float(score), 4)))
    return sorted(lines, key=lambda line: (line.box.top, line.box.left, line.text))


def _thick_enough(image: Image) -> Image:
    """The image, a strip on wider white paper, because the detector would shrink it to nothing."""
    from PIL import Image

    least = -(-max(image.size) // _THINNEST)
    if min(image.size) >= least:
        return image
    paper = Image.new("RGB", (max(image.width, least), max(image.height, least)), "white")
    paper.paste(image)
    return paper


@functools.cache
def cascade(kind: str) -> Any:
    """OpenCV's cascade for one of CASCADES."""
    import cv2

    cv2.setNumThreads(1)
    return cv2.CascadeClassifier(str(Path(cv2.__file__).parent / "data" / CASCADES[kind]))


def find_faces(image: Image, kind: str = "face") -> list[Box]:
    """Upright, frontal faces or eyes, from left to right; OpenCV's Haar cascades, with their misses."""
    import cv2

    gray = cv2.cvtColor(pixels(image), cv2.COLOR_RGB2GRAY)
    smallest = 20 if kind == "face" else 16
    found = cascade(kind).detectMultiScale(gray, scaleFactor=1.1, minNeighbors=5, minSize=(smallest, smallest))
    return sorted(Box(int(x), int(y), int(x + width), int(y + height)) for x, y, width, height in found)
