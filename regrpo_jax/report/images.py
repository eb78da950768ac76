"""Images of a run inside its report: decoded, made small and written anew, so that no byte of theirs is passed on."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from regrpo_jax.records.types import ImageReference

_MOST_PIXELS = 32 * 2**20  # of an image that is decoded
_SIDE = 320  # pixels of an image that is shown
_MOST_CHARACTERS = 1_200_000  # of all images of a page


@dataclass(frozen=True)
class ShownImage:
    """uri: "" when it cannot be shown; small: so few pixels that a person needs them enlarged."""

    name: str
    uri: str
    small: bool = False


@dataclass
class ImageShelf:
    """The images of one page. folders: where files are looked for by name, should the run's folder have been moved."""

    folders: Sequence[Path]
    _left: int = _MOST_CHARACTERS
    _known: dict[Path, ShownImage] = field(default_factory=dict)

    def shown(self, reference: ImageReference) -> ShownImage:
        """The image as a data URI, while the page has room for it."""
        name = reference.placeholder or Path(reference.path).name
        path = self._found(Path(reference.path))
        if path is None:
            return ShownImage(name, "")
        if path not in self._known:
            self._known[path] = _made(path)
        image = self._known[path]
        if len(image.uri) > self._left:
            return ShownImage(name, "")
        self._left -= len(image.uri)
        return ShownImage(name, image.uri, image.small)

    def _found(self, path: Path) -> Path | None:
        places = [path, *(folder / path.name for folder in self.folders)]
        return next((place for place in places if place.is_file()), None)


def _made(path: Path) -> ShownImage:
    from PIL import Image

    try:
        with Image.open(path) as image:
            if image.width * image.height > _MOST_PIXELS:
                return ShownImage("", "")
            picture = image.convert("RGB")
    except Exception:  # any file may stand there, and a decoder may fail in any way
        return ShownImage("", "")
    picture.thumbnail((_SIDE, _SIDE))
    written = []
    for kind, options in (("PNG", {"optimize": True}), ("JPEG", {"quality": 82})):
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        written.append((len(stream.getvalue()), kind.lower(), stream.getvalue()))
    _, kind, data = min(written)
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    return ShownImage("", uri, small=max(picture.size) < 120)
