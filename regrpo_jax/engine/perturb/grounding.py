"""GroundingDrift: looking at another place, for another thing, or at another picture than asked."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from regrpo_jax.engine.perturb.rule import Change, Rule, other_value
from regrpo_jax.engine.perturb.scene import BOX_NUMBER, Argument, Role, Scene, ToolUse, wanted_role
from regrpo_jax.engine.perturb.words import (
    IMAGE_ENDINGS,
    image_names,
    listed_beside,
    nearly_the_same,
    other_look,
    other_side,
    quoted,
    things_told,
    word_kind,
)
from regrpo_jax.records.types import ErrorType

_SIDES = (("left", "right"), ("right", "left"), ("top", "bottom"), ("bottom", "top"), ("upper", "lower"),
          ("lower", "upper"), ("low", "top"), ("top", "low"))  # fmt: skip


def wrong_region(scene: Scene) -> Iterator[Change]:
    """Another region word: of the tool's own list where it has one, apart from the right one if it can be."""
    for use, argument in scene.given(Role.REGION):
        listed = listed_beside(argument.value, argument.shape.description, use.tool.description)
        others = [other for other in listed if _apart(argument.value, other)] or listed or _mirrored(argument.value)
        yield from (other_value(scene, argument, other) for other in others)


def _mirrored(region: str) -> list[str]:
    found = [region.replace(side, other) for side, other in _SIDES if side in region and not _holds(region, side)]
    return [other for other in dict.fromkeys((*other_side(region), *found)) if other != region]


def _holds(region: str, side: str) -> bool:
    """Whether the side is only a part of a longer one: "low" in "lower"."""
    return side == "low" and "lower" in region


def _apart(region: str, other: str) -> bool:
    return any(side in region and opposite in other for side, opposite in _SIDES)


def shifted_box(scene: Scene) -> Iterator[Change]:
    """A box moved by its own size, mirrored in the picture or cut to a corner of itself, still in the picture."""
    for use, argument in scene.given(Role.BOX):
        numbers = _numbers(argument.value)
        if numbers is None:
            continue
        for box in _other_boxes(numbers, _size_of_picture(scene, use, numbers)):
            if list(box) != numbers:
                yield other_value(scene, argument, _like(argument.value, box))


def _numbers(value: Any) -> list[float] | None:
    try:
        found = [float(one) for one in (BOX_NUMBER.findall(value) if isinstance(value, str) else value)]
    except OverflowError:
        return None
    return found if len(found) == 4 and max(map(abs, found)) < 1e6 else None


def _other_boxes(box: Sequence[float], size: tuple[float, float]) -> Iterator[list[float]]:
    left, top, right, bottom = box
    width, height, (most_x, most_y) = right - left, bottom - top, size
    for across, down in ((-1, 0), (1, 0), (0, -1), (0, 1)):
        moved = [left + across * width, top + down * height, right + across * width, bottom + down * height]
        if moved[0] >= 0 and moved[1] >= 0 and moved[2] <= most_x and moved[3] <= most_y:
            yield moved
    yield [most_x - right, top, most_x - left, bottom]
    yield [left, most_y - bottom, right, most_y - top]
    yield [left, top, left + width / 4, top + height / 4]


def _size_of_picture(scene: Scene, use: ToolUse, box: Sequence[float]) -> tuple[float, float]:
    """Width and height of the call's picture, where it can be read; else twice what the box reaches, 1 for shares."""
    named = next((one.value for one in use.arguments if one.role == Role.FILE and isinstance(one.value, str)), "")
    content = next((file.content for file in scene.situation.task.files if file.name == named), b"")
    found = _image_size(content) if content else None
    if found is not None:
        return found
    return (1.0, 1.0) if max(box) <= 1 else (2 * max(box[2], 1.0), 2 * max(box[3], 1.0))


def _image_size(content: bytes) -> tuple[float, float] | None:
    """Width and height of a picture file; None for what is none."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a very large picture is no business of our log
            with Image.open(io.BytesIO(content)) as image:
                return float(image.width), float(image.height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def _like(value: Any, box: Sequence[float]) -> Any:
    """The box in the form of `value`: its kind of brackets, whole numbers where it has them."""
    texts = BOX_NUMBER.findall(value) if isinstance(value, str) else list(value)
    whole = all(isinstance(one, int) or (isinstance(one, str) and "." not in one) for one in texts)
    numbers: list[Any] = [max(0, round(one)) if whole else max(0.0, round(one, 4)) for one in box]
    if isinstance(value, str):
        rest = iter(numbers)
        return BOX_NUMBER.sub(lambda _: str(next(rest)), value)
    return tuple(numbers) if isinstance(value, tuple) else numbers


def wrong_object(scene: Scene) -> Iterator[Change]:
    """Another thing than asked: of the tool's own list, of another colour or shape, or named in the task."""
    for use, argument in scene.given(Role.OBJECT):
        value = argument.value
        listed = listed_beside(value, argument.shape.description, use.tool.description)
        told = [word for word in scene.told if word_kind(word) == word_kind(value)] if not listed else []
        things = things_told(scene.situation.instruction) if _looks_at_picture(use) and not other_look(value) else ()
        looks = other_look(value) if not listed else ()
        examples = quoted(argument.shape.description) if things else ()
        for other in (*listed, *looks, *told, *things, *examples):
            if not nearly_the_same(other, value):
                yield other_value(scene, argument, other)


def other_detail(scene: Scene) -> Iterator[Change]:
    """A question about a picture that asks for the opposite side or another colour."""
    for use, argument in scene.given(Role.QUERY):
        if _looks_at_picture(use):
            yield from (other_value(scene, argument, other) for other in (*other_side(argument.value),
                                                                          *other_look(argument.value)))  # fmt: skip


def wrong_image(scene: Scene) -> Iterator[Change]:
    """Another picture of the task."""
    for _, argument in scene.given(Role.FILE):
        if str(argument.value).lower().endswith(IMAGE_ENDINGS):
            yield from (other_value(scene, argument, other) for other in image_names(scene.situation))


def dropped_region(scene: Scene) -> Iterator[Change]:
    """The whole picture in the place of the part that is asked for."""
    for use in scene.uses:
        for argument in use.arguments:
            if argument.shape.optional and wanted_role(argument.shape) == Role.REGION and _may_go(use, argument):
                rest = [other.source for other in use.arguments if other is not argument]
                spoken = argument.value if isinstance(argument.value, str) else ""
                yield Change(scene.with_arguments(use, rest), spoken, "whole picture" if spoken else "")


def _may_go(use: ToolUse, argument: Argument) -> bool:
    """An argument given by position can only be left out at the end of those."""
    positional = [one for one in use.arguments if not one.keyword]
    return bool(argument.keyword) or positional[-1] is argument


def _looks_at_picture(use: ToolUse) -> bool:
    media = any(one.kind == "image" or "image" in one.name for one in use.tool.arguments)
    return media or any(str(one.value).lower().endswith(IMAGE_ENDINGS) for one in use.arguments)


RULES = (
    Rule("wrong_region", ErrorType.GROUNDING_DRIFT, wrong_region, asks=True),
    Rule("shifted_box", ErrorType.GROUNDING_DRIFT, shifted_box, asks=True),
    Rule("wrong_object", ErrorType.GROUNDING_DRIFT, wrong_object, asks=True),
    Rule("other_detail", ErrorType.GROUNDING_DRIFT, other_detail, asks=True),
    Rule("wrong_image", ErrorType.GROUNDING_DRIFT, wrong_image, rare=True, asks=True),
    Rule("dropped_region", ErrorType.GROUNDING_DRIFT, dropped_region, rare=True, asks=True),
)
