"""Image files as a policy may see them: any kind of file opened upright and in RGB, or the reason why not.

Apart from the cutting of patches, because an audit asks it too, and needs neither a model nor its libraries.
"""

import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from regrpo_jax.errors import UserError
from regrpo_jax.records.picture_forms import picture_bytes
from regrpo_jax.records.reasons import printable

FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF")
MOST_PIXELS = 40_000_000  # of a picture that an action wrote
LONGEST_ASPECT = 200  # of Qwen2-VL's image processor


class ImageError(UserError):
    """An image file that cannot be shown to the policy as it is."""


def open_image(path: str | Path) -> Image.Image:
    """A picture as a person sees it: its first frame, upright, in RGB, on white where it is transparent.

    Args:
      path: of a file, or a data URL.
    Raises:
      ImageError: the file is missing, damaged, truncated, no image, dangerously large, more than 200 times wider than
        high (or the reverse), or its pixels are numbers without a known white.
    """
    try:
        content = picture_bytes(str(path))
    except FileNotFoundError as error:
        raise ImageError(f"{path}: no such image file") from error
    except Exception as error:  # a folder, a damaged data URL
        raise ImageError(f"{printable(path, 300)}: not a readable image ({error})") from error
    try:
        return open_image_bytes(content)
    except ImageError as error:
        raise ImageError(f"{printable(path, 300)}: {error}") from error


def open_image_bytes(content: bytes, *, trusted: bool = True) -> Image.Image:
    """`open_image` of what a file holds.

    Args:
      trusted: False for what an action wrote: of a few formats whose readers run nothing else, and not too large.
    Raises:
      ImageError: as `open_image`; it names no file.
    """
    try:
        with Image.open(io.BytesIO(content), formats=None if trusted else FORMATS) as opened:
            if not trusted and opened.width * opened.height > MOST_PIXELS:
                raise ImageError(
                    f"{opened.width}x{opened.height} pixels are more than the {MOST_PIXELS:,} that are opened"
                )
            image = _as_seen(ImageOps.exif_transpose(opened), opened.format)
    except ImageError:
        raise
    except UnidentifiedImageError as error:  # its words name an address in memory
        raise ImageError("not a readable image (no known format)") from error
    except Exception as error:  # a decoder may end in an error of any type on a damaged file
        raise ImageError(f"not a readable image ({error})") from error
    if max(image.size) > LONGEST_ASPECT * min(image.size):
        raise ImageError(
            f"{image.width}x{image.height} pixels is too elongated; crop the image below an aspect of {LONGEST_ASPECT}"
        )
    return image


def _as_seen(image: Image.Image, file_format: str | None) -> Image.Image:
    """RGB of any mode. Raises ValueError where there is nothing to see, or nobody knows what is white."""
    if not all(image.size):
        raise ValueError(f"it is {image.width}x{image.height} pixels")
    # The readers of these formats stretch greys of more than 8 bits to 16, whatever the mode is called.
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format in ("PNG", "PPM")):
        greys = np.asarray(image).astype(np.float32) / 257  # [height, width]; PIL's own conversion would clip
        image = Image.fromarray(np.rint(greys).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are {image.mode} numbers without a known white; save them as 8 or 16 bits")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        # White as in qwen-vl-utils: black writing on nothing would otherwise be black on black.
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel("A"))
        return white
    return image.convert("RGB")
