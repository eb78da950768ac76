"""Which image files a record names beside its turns, and where its texts say their placeholders.

`image` and `images` occur in the wild: `{"<image_00>": "a.jpg"}` with the placeholder in the text (MAT-Agent and the
release), a bare path, an object that describes a picture, or a list of these. All become `ImageReference`s; what
stands inside turns is read in `placed_images.py`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from regrpo_jax.records.path_roots import PathRoots
from regrpo_jax.records.picture_forms import describes_picture, is_data_url, picture_path
from regrpo_jax.records.reasons import RecordError
from regrpo_jax.records.types import ImageReference, Turn

IMAGE_MARKER = "<image>"
NO_ROOTS = PathRoots()
IMAGE_KEYS = ("image", "images")
_SHAPES = "must be an object of placeholders and paths, a path, a list of these, or null"


def named_images(record: Mapping[str, object]) -> tuple[ImageReference, ...]:
    """The images of the keys `image` and `images`, their paths as written.

    A bare path has the placeholder "". Raises RecordError for a value that is none of the known shapes, and where the
    two keys name different pictures.
    """
    found = [images for key in IMAGE_KEYS if (images := _references(record.get(key), key))]
    if len(found) == 2 and found[0] != found[1]:
        raise RecordError(("schema_keys: `image` and `images` name different pictures; keep one of them",))
    return found[0] if found else ()


def _references(value: object, key: str) -> tuple[ImageReference, ...]:
    items = value if isinstance(value, list) else [] if value is None else [value]
    return tuple(reference for item in items if item != "" for reference in _item(item, key))


def _item(item: object, key: str) -> tuple[ImageReference, ...]:
    pairs: list[tuple[str, object]] = [("", item)]
    wrong = not isinstance(item, str | dict)
    if isinstance(item, dict) and not describes_picture(item):
        pairs = list(item.items())
        wrong = not all(placeholder and isinstance(named, str | dict) for placeholder, named in pairs)
    if wrong:
        raise RecordError((f"schema_types: `{key}` {_SHAPES}",))
    references = tuple(ImageReference(placeholder, picture_path(named)) for placeholder, named in pairs)
    if not all(reference.path for reference in references):
        raise RecordError((f"schema_types: `{key}` {_SHAPES}; one of them names nothing",))
    return references


def located(path: str, base_dir: Path | None, roots: PathRoots = NO_ROOTS) -> str:
    """A path beside the record's file, under its new root; a data URL, or any path without a folder, as it is."""
    return path if base_dir is None or is_data_url(path) else str(base_dir / roots.path(path))


def images_to_json(images: tuple[ImageReference, ...]) -> object:
    """The inverse of `named_images`: an object of placeholders, else a bare path, else a list of both."""
    if all(image.placeholder for image in images) and len({image.placeholder for image in images}) == len(images):
        return {image.placeholder: image.path for image in images}
    if len(images) == 1:
        return images[0].path
    return [{image.placeholder: image.path} if image.placeholder else image.path for image in images]


def spoken_places(turns: Sequence[Turn], marks: Collection[str]) -> dict[str, list[tuple[int, int, int]]]:
    """(turn, start, end) of every mark in the user turns, in order; the longest one wins where two begin."""
    found: dict[str, list[tuple[int, int, int]]] = {mark: [] for mark in marks}
    if marks:
        pattern = re.compile("|".join(re.escape(mark) for mark in sorted(marks, key=len, reverse=True)))
        for index, turn in enumerate(turns):
            for match in pattern.finditer(turn.content) if turn.role == "user" else ():
                found[match.group()].append((index, match.start(), match.end()))
    return found
