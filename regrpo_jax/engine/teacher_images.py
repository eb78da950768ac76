"""Images as the data URLs that a chat API takes: as they are where it reads the format, else as PNG."""

from __future__ import annotations

import base64
import io
import warnings

from PIL import Image, ImageOps

from regrpo_jax.engine.teacher_settings import TeacherRefused
from regrpo_jax.toolbox.pictures import FORMATS, MOST_PIXELS

_READ_EVERYWHERE = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


def data_url(name: str, content: bytes, longest_side: int) -> str:
    """The image, shrunk where a side is longer. TeacherRefused when it cannot be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            opened = Image.open(io.BytesIO(content), formats=FORMATS)
            if opened.width * opened.height > MOST_PIXELS:
                raise TeacherRefused(f"image: {name!r} has more than {MOST_PIXELS} pixels")
            if opened.format in _READ_EVERYWHERE and max(opened.size) <= longest_side:
                opened.load()  # a damaged one is told here, not by the server
                return _url(_READ_EVERYWHERE[opened.format], content)
            image: Image.Image = ImageOps.exif_transpose(opened).convert("RGB")
            image.thumbnail((longest_side, longest_side))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise TeacherRefused(f"image: {name!r} is no image that can be read") from error
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return _url("image/png", stream.getvalue())


def _url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
