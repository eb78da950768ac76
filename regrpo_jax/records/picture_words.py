"""What the pixels of a picture say, in words: what a reflection may quote of an observation that is a picture.

Nobody can look up what a policy sees. What can be looked up is measured: which colours fill how much of the picture. So
evidence is grounded in a picture if it repeats these words, as it is grounded in a text if it repeats that. They are
colours and little else, so that repeating what is said of every picture grounds nothing.
"""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

PALETTE = {
    "black": (0, 0, 0), "white": (255, 255, 255), "red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220),
    "yellow": (230, 210, 40), "orange": (240, 140, 30), "purple": (140, 50, 170), "pink": (245, 150, 190),
    "brown": (130, 80, 40), "cyan": (50, 200, 220),
}  # fmt: skip
GREY = "grey"
LEAST_SHARE = 0.01  # of the pixels, for a colour to be named
ALMOST_ALL = 0.995
_COLOURLESS = 24  # difference between the largest and the smallest channel of a grey
_MOST_NAMES = 4
_LOOKED_AT = 256  # pixels of a side


def picture_words(content: bytes) -> str:
    """ "only grey", or "grey, red" from the largest part to the smallest.

    Args:
      content: of an image file that can be read, RGB.
    """
    with Image.open(io.BytesIO(content)) as opened:
        image = opened.convert("RGB")
    image.thumbnail((_LOOKED_AT, _LOOKED_AT), Image.Resampling.NEAREST)
    names, counts = np.unique(_colour_names(np.asarray(image)), return_counts=True)
    shares = sorted(zip(counts / counts.sum(), names.tolist(), strict=True), key=lambda part: (-part[0], part[1]))
    if shares[0][0] >= ALMOST_ALL:
        return f"only {shares[0][1]}"
    told = [name for share, name in shares if share >= LEAST_SHARE][:_MOST_NAMES]
    return ", ".join(told)


def _colour_names(pixels: np.ndarray) -> np.ndarray:
    """The name of each pixel's colour.  # [height, width]"""
    flat = pixels.reshape(-1, 3).astype(np.int32)
    names = np.array([*PALETTE, GREY])
    distances = np.abs(flat[:, None] - np.array(list(PALETTE.values()))).sum(axis=-1)  # [pixel, name]
    nearest = distances.argmin(axis=-1)
    light = flat.mean(axis=-1)
    colourless = np.ptp(flat, axis=-1) <= _COLOURLESS
    nearest = np.where(colourless, len(PALETTE), nearest)
    nearest = np.where(colourless & (light <= 40), list(PALETTE).index("black"), nearest)
    nearest = np.where(colourless & (light >= 225), list(PALETTE).index("white"), nearest)
    return names[nearest].reshape(pixels.shape[:2])
