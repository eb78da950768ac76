"""Pictures on their way out of a tool and into one: who calls a tool holds names of files, never the pictures.

A picture that a tool returns is written into the workspace, so that it is shown like any other new image, and an
argument that a tool declares as an image may be the name of a file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from regrpo_jax.records.opened_images import LONGEST_ASPECT
from regrpo_jax.toolbox.failures import ToolError
from regrpo_jax.toolbox.pictures import MOST_PIXELS, as_rgb, open_image, save_image

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_PICTURES = 64  # of one call, as many as an action is said to have written
_DEEPEST = 4  # lists in lists that are looked through
Save = Callable[["Image", str], str]


def names_for_pictures(result: Any, tool: str, save: Save = save_image) -> Any:
    """What a tool returned, each picture in it, or in its lists, tuples and dicts, replaced by its new file's name.

    Args:
      save: writes a picture for the tool of that name, and returns the file's name.
    Raises:
      ToolError: there are too many pictures, or one that cannot be shown or written; then none is written.
    """
    pictures = list(_pictures(result, _DEEPEST))
    if not pictures:
        return result
    if len(pictures) > MOST_PICTURES:
        raise ToolError(f"{tool} returned {len(pictures)} pictures; at most {MOST_PICTURES} are kept of one call.")
    ready = iter([_ready(picture, tool) for picture in pictures])
    try:
        return _replaced(result, lambda picture: save(next(ready), tool), _DEEPEST)
    except OSError as error:
        raise ToolError(f"{tool}: the picture that it returned cannot be written: {error}.") from error


def pictures_for_names(
    tool: object, arguments: Sequence[Any], keywords: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, with the picture in the place of a file's name where the tool wants an image.

    ToolError where there is no such image.
    """
    declared = getattr(tool, "inputs", None)
    inputs: Mapping[str, Any] = declared if isinstance(declared, Mapping) else {}
    wanted = {name for name, told in inputs.items() if isinstance(told, Mapping) and told.get("type") == "image"}

    def given(name: str, value: Any) -> Any:
        return open_image(value) if name in wanted and isinstance(value, str) else value

    if not wanted:
        return tuple(arguments), dict(keywords)
    names = [*inputs, *[""] * len(arguments)]
    placed = tuple(given(name, value) for name, value in zip(names, arguments, strict=False))
    return placed, {name: given(name, value) for name, value in keywords.items()}


def _is_picture(value: Any) -> bool:
    module = sys.modules.get("PIL.Image")  # where nobody has loaded it, nothing is a picture
    return module is not None and isinstance(value, module.Image)


def _pictures(value: Any, depth: int) -> Iterator[Image]:
    if _is_picture(value):
        yield value
    elif depth and type(value) in (list, tuple, dict):
        for item in value.values() if type(value) is dict else value:
            yield from _pictures(item, depth - 1)


def _replaced(value: Any, name: Callable[[Image], str], depth: int) -> Any:
    """A copy, with a name for each picture in the order of `_pictures`."""
    if _is_picture(value):
        return name(value)
    if depth and type(value) is dict:
        return {key: _replaced(item, name, depth - 1) for key, item in value.items()}
    if depth and type(value) in (list, tuple):
        return type(value)(_replaced(item, name, depth - 1) for item in value)
    return value


def _ready(picture: Any, tool: str) -> Image:
    """The picture in RGB. ToolError, in one sentence, where it cannot be shown."""
    try:
        picture = picture.to_raw() if hasattr(picture, "to_raw") else picture  # smolagents' wrapper has no pixels
        width, height = picture.size
        if not width or not height:
            raise ToolError(f"{tool} returned a picture of {width} x {height} pixels, which shows nothing.")
        if width * height > MOST_PIXELS:
            words = f"{tool} returned a picture of {width} x {height} pixels"
            raise ToolError(f"{words}; at most {MOST_PIXELS:,} are kept, so make it smaller.")
        if max(width, height) > LONGEST_ASPECT * min(width, height):
            words = f"{tool} returned a picture of {width} x {height} pixels, which is too elongated to be shown"
            raise ToolError(f"{words}; its sides may differ {LONGEST_ASPECT} times.")
        return as_rgb(picture)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        mode = getattr(picture, "mode", "?")
        raise ToolError(f"{tool} returned a picture (mode {mode}) that cannot be written as RGB: {error}.") from error
