"""Images in and out of a workspace: read with a bound on their size, written under a name that counts up."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.files import existing_file, next_name

if TYPE_CHECKING:
    import numpy
    from PIL.Image import Image

MOST_PIXELS = 40_000_000  # of an image that is opened
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
DOCUMENT_SUFFIXES = frozenset(
    [".pdf", ".docx", ".pptx", ".xlsx", ".csv", ".tsv", ".html", ".htm", ".json", ".jsonl", ".txt", ".md", ".xml"]
)


def open_image(name: str) -> Image:
    """The image file `name` as RGB, upright; ToolError when it is missing, no image, damaged or too large."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    path = existing_file(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise ToolError(f'"{name}" has {width} x {height} pixels; at most {MOST_PIXELS:,} are opened.')
                return _on_white(ImageOps.exif_transpose(image))
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


def _on_white(image: Image) -> Image:
    """RGB; what was transparent becomes white, as on paper."""
    from PIL import Image

    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        with_alpha = image.convert("RGBA")
        paper = Image.new("RGBA", with_alpha.size, "white")
        return Image.alpha_composite(paper, with_alpha).convert("RGB")
    if image.mode in ("I", "I;16", "I;16B", "I;16L", "F"):
        low, high = (float(value) for value in image.getextrema())  # type: ignore[arg-type]
        scale = 255.0 / (high - low) if high > low else 0.0
        return image.convert("F").point(lambda value: (value - low) * scale).convert("L").convert("RGB")
    return image.convert("RGB")


def save_image(image: Image, tool: str) -> str:
    """Write `<tool>_<n>.png` into the workspace and return that name."""
    name = next_name(tool)
    image.save(name, format="PNG")
    return name


def pixels(image: Image) -> numpy.ndarray:
    """The image as `uint8 [height, width, 3]`, red first."""
    import numpy

    return numpy.asarray(image, dtype=numpy.uint8)
