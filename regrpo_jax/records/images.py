"""Which image files a record names, and how it names them.

Three shapes occur in the wild: `{"<image_00>": "a.jpg"}` with the placeholder in the text (MAT-Agent and the
release), a bare path or a list of them, and image parts inside a turn's content. All become
`ImageReference`s.
"""

from __future__ import annotations

from pathlib import Path

from regrpo_jax.records.reasons import RecordError
from regrpo_jax.records.types import ImageReference

IMAGE_MARKER = "<image>"


def _is_reference(item: object) -> bool:
    if isinstance(item, dict):
        return all(placeholder and isinstance(path, str) and path for placeholder, path in item.items())
    return isinstance(item, str)


def image_reasons(image: object) -> tuple[str, ...]:
    """What is wrong with the value of a record's `image` key; () when nothing is."""
    items = image if isinstance(image, list) else [] if image is None else [image]
    if all(_is_reference(item) for item in items):
        return ()
    return ("schema_types: `image` must be an object of placeholders and paths, a path, a list of these, or null",)


def _located(path: str, base_dir: Path | None) -> str:
    return path if base_dir is None else str(base_dir / path)


def image_references(image: object, base_dir: Path | None = None) -> tuple[ImageReference, ...]:
    """The images of a record's `image` key; relative paths are resolved against `base_dir` unless it is None.

    A bare path has the placeholder "": the k-th of them belongs to the k-th "<image>" in the text, or before
    the task. Raises RecordError for a value that is none of the known shapes.
    """
    reasons = image_reasons(image)
    if reasons:
        raise RecordError(reasons)
    if isinstance(image, dict):
        return tuple(ImageReference(placeholder, _located(path, base_dir)) for placeholder, path in image.items())
    if isinstance(image, list):
        return tuple(reference for item in image for reference in image_references(item, base_dir))
    return (ImageReference("", _located(image, base_dir)),) if isinstance(image, str) and image else ()


def images_to_json(images: tuple[ImageReference, ...]) -> object:
    """The inverse of `image_references`: an object of placeholders, else a bare path, else a list of both."""
    if all(image.placeholder for image in images) and len({image.placeholder for image in images}) == len(images):
        return {image.placeholder: image.path for image in images}
    if len(images) == 1:
        return images[0].path
    return [{image.placeholder: image.path} if image.placeholder else image.path for image in images]


def _inline_path(part: dict[str, object]) -> str:
    for key in ("image", "path", "image_url", "url"):
        value = part.get(key)
        value = value.get("url") if isinstance(value, dict) else value
        if isinstance(value, str) and value:
            return value
    return ""


def inline_images(raw_turns: object, base_dir: Path | None = None) -> tuple[ImageReference, ...]:
    """The images given as parts of turns' content, in order; a part without a path adds none."""
    turns = raw_turns if isinstance(raw_turns, list) else []
    contents = [turn.get("content", turn.get("value")) for turn in turns if isinstance(turn, dict)]
    parts = [part for content in contents if isinstance(content, list) for part in content if isinstance(part, dict)]
    paths = [_inline_path(part) for part in parts if part.get("type") in ("image", "image_url")]
    return tuple(ImageReference("", _located(path, base_dir)) for path in paths if path)
