"""What `image_edit` understands: a few real operations, named in plain words, one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from regrpo_jax.toolbox.boxes import parse_region
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.pictures import MOST_PIXELS

if TYPE_CHECKING:
    from PIL.Image import Image

CAN_EDIT = (
    "rotate 90 [clockwise|counterclockwise], flip [horizontally|vertically], grayscale, sepia, blur [radius], "
    "sharpen, brighten [percent], darken [percent], contrast [percent], invert, resize to WIDTHxHEIGHT, "
    'resize to PERCENT%, crop REGION; several are joined by "then"'
)
Edit = Callable[["Image", re.Match[str]], "Image"]


def _amount(match: re.Match[str], default: float) -> float:
    """The number in the instruction, `default` without one."""
    number = re.search(r"\d+(?:\.\d+)?", match.string)
    return float(number.group()[:12]) if number else default


def _rotate(image: Image, match: re.Match[str]) -> Image:
    angle = _amount(match, 90.0) % 360
    counter = re.search(r"counter|anti|left", match.string)
    return image.rotate(angle if counter else -angle, expand=True, fillcolor="white")


def _flip(image: Image, match: re.Match[str]) -> Image:
    from PIL import ImageOps

    return ImageOps.flip(image) if re.search(r"vertical|upside", match.string) else ImageOps.mirror(image)


def _gray(image: Image, match: re.Match[str]) -> Image:
    return image.convert("L").convert("RGB")


def _sepia(image: Image, match: re.Match[str]) -> Image:
    from PIL import ImageOps

    return ImageOps.colorize(image.convert("L"), black="#2b1a0e", mid="#a0825a", white="#fff3dc")


def _blur(image: Image, match: re.Match[str]) -> Image:
    from PIL import ImageFilter

    return image.filter(ImageFilter.GaussianBlur(min(100.0, _amount(match, 4.0))))


def _sharpen(image: Image, match: re.Match[str]) -> Image:
    from PIL import ImageFilter

    return image.filter(ImageFilter.UnsharpMask(radius=2, percent=150, threshold=2))


def _brightness(image: Image, match: re.Match[str]) -> Image:
    from PIL import ImageEnhance

    share = min(1000.0, _amount(match, 30.0)) / 100
    darker = re.search(r"dark|dim|less|decrease|lower", match.string)
    return ImageEnhance.Brightness(image).enhance(max(0.0, 1 - share) if darker else 1 + share)


def _contrast(image: Image, match: re.Match[str]) -> Image:
    from PIL import ImageEnhance

    share = min(1000.0, _amount(match, 30.0)) / 100
    less = re.search(r"less|decrease|lower|reduce", match.string)
    return ImageEnhance.Contrast(image).enhance(max(0.0, 1 - share) if less else 1 + share)


def _invert(image: Image, match: re.Match[str]) -> Image:
    from PIL import ImageOps

    return ImageOps.invert(image)


def _resize(image: Image, match: re.Match[str]) -> Image:
    sides = re.search(r"(\d{1,6})\s*(?:x|×|by|\*)\s*(\d{1,6})", match.string)
    percent = re.search(r"(\d{1,5}(?:\.\d+)?)\s*(?:%|percent)", match.string)
    if sides:
        width, height = int(sides.group(1)), int(sides.group(2))
    elif percent:
        share = float(percent.group(1)) / 100
        width, height = round(image.width * share), round(image.height * share)
    else:
        raise ToolError(f'"{match.string}" names no size; write "resize to 200x100" or "resize to 50%".')
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        raise ToolError(f"{width} x {height} pixels cannot be made; 1 to {MOST_PIXELS:,} pixels can.")
    return image.resize((width, height))


def _crop(image: Image, match: re.Match[str]) -> Image:
    region = re.sub(r".*?\bcrop(?:ped)?\b(?:\s+(?:it|to|the|out)\b)*", "", match.string).strip()
    return image.crop(parse_region(region, image.size))


_EDITS: tuple[tuple[str, Edit], ...] = (
    (r"\bcrop", _crop),
    (r"\brotat|\bturn\b.*\b(?:degrees?|clockwise|counterclockwise)\b", _rotate),
    (r"\bflip|\bmirror|\bupside down\b", _flip),
    (r"\bgr[ae]y|\bblack[ -]and[ -]white\b|\bmonochrome\b|\bdesaturate", _gray),
    (r"\bsepia\b", _sepia),
    (r"\bblur", _blur),
    (r"\bsharpen", _sharpen),
    (r"\bbright|\bdark|\blighten|\bdim\b", _brightness),
    (r"\bcontrast", _contrast),
    (r"\binvert|\bnegative\b", _invert),
    (r"\bresiz|\bscale|\benlarge|\bshrink", _resize),
)


def edit_image(image: Image, instruction: str) -> Image:
    """The image after an instruction; ToolError listing what is understood."""
    from regrpo_jax.toolbox.boxes import Box

    protected = re.sub(r"\bblack[ -]and[ -]white\b", "grayscale", instruction.strip().lower()[:1000])
    parts = [part.strip() for part in re.split(r"\s*(?:;|\band then\b|\bthen\b|\band\b)\s*", protected) if part.strip()]
    if not 0 < len(parts) <= 8:
        raise ToolError(f'"{instruction[:200]}" is no instruction. This tool can {CAN_EDIT}.')
    edited = image.crop(Box(0, 0, *image.size))
    for part in parts:
        for pattern, edit in _EDITS:
            match = re.search(pattern, part)
            if match:
                edited = edit(edited, match)
                break
        else:
            raise ToolError(f'"{part[:200]}" is not understood. This tool can {CAN_EDIT}.')
    return edited
