"""Images in and out of a workspace: read with a bound on their size, written under a name that counts up."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from regrpo_jax.records.opened_images import FORMATS, MOST_PIXELS
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.files import existing_file, next_name

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

DOCUMENT_SUFFIXES = frozenset(
    [".pdf", ".docx", ".pptx", ".xlsx", ".csv", ".tsv", ".html", ".htm", ".json", ".jsonl", ".txt", ".md", ".xml"]
)


def open_image(name: str) -> Image:
    """The image file `name` as RGB, upright; ToolError when it is missing, no image, damaged or too large."""
    from PIL import Image, UnidentifiedImageError

    path = existing_file(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise ToolError(f'"{name}" has {width} x {height} pixels; at most {MOST_PIXELS:,} are opened.')
                return as_rgb(image)
    except UnidentifiedImageError as error:
        raise ToolError(_no_image(name)) from error
    except Image.DecompressionBombError as error:
        raise ToolError(f'"{name}" has too many pixels; at most {MOST_PIXELS:,} are opened.') from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise ToolError(f'"{name}" is damaged: {error}.') from error


def _no_image(name: str) -> str:
    """What to say of a file that is no image, and which tool reads it."""
    known = ", ".join(name.lower() for name in FORMATS)
    if Path(name).suffix.lower() in DOCUMENT_SUFFIXES:
        return f'"{name}" is a document, not an image ({known}); read it with inspect_file_as_text.'
    return f'"{name}" is no image that can be read ({known}).'


def as_rgb(image: Image) -> Image:
    """The picture upright and in RGB: white where it was transparent, as on paper; greys beyond 8 bits are stretched.

    ValueError where it has no such form, OSError where its file is damaged or gone.
    """
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _stretched(image)
    if image.mode == "La":
        image = image.convert("LA")
    if image.mode in ("RGBA", "RGBa", "LA", "PA") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        paper = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(paper, with_alpha).convert("RGB")
    return image.convert("RGB")


def _stretched(image: Image) -> Image:
    """Greys from the darkest, which becomes black, to the lightest, which becomes white."""
    import numpy
    from PIL import Image

    values = numpy.asarray(image).astype(numpy.float64)
    if not numpy.isfinite(values).all():
        raise ValueError("some of its pixels are nan or inf")
    low, high = values.min(), values.max()
    scale = 255.0 / (high - low) if high > low else 0.0
    return Image.fromarray(((values - low) * scale).astype(numpy.uint8)).convert("RGB")


def save_image(image: Image, tool: str) -> str:
    """Write `<tool>_<n>.png` into the workspace and return that name."""
    name = next_name(tool)
    image.save(name, format="PNG")
    return name


def pixels(image: Image) -> numpy.ndarray:
    """The image as `uint8 [height, width, 3]`, red first."""
    import numpy

    return numpy.asarray(image, dtype=numpy.uint8)
