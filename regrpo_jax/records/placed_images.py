"""Pictures and the places where they are shown, brought together: one picture a place, in the order of the text.

Four ways to show one occur in the wild. Image *parts* in a turn's content show their own picture, or the next one that
the record lists beside its turns; then a typed "<image>" is a word. In a text, *"<image>"* shows the next listed
picture, a *placeholder* such as "<image_00>" the one that the record gives it, and Qwen-VL's *"<img>a.png</img>"* the
file it names. Listed pictures that nothing shows lead the task. Where places and pictures do not come out even, the
record is refused: trained as it is, it would teach the text "<image>", or another picture than the one that was meant.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path, PurePath

from regrpo_jax.records.images import IMAGE_MARKER, NO_ROOTS, located, spoken_places
from regrpo_jax.records.path_roots import PathRoots
from regrpo_jax.records.picture_forms import picture_path
from regrpo_jax.records.reasons import RecordError, printable
from regrpo_jax.records.turns import Part, RawTurn
from regrpo_jax.records.types import ImageReference, Turn

_FORM = re.compile(r"<img>([^<>\n]*)</img>")
_NUMBERED = re.compile(r"<image_[0-9]+>")
_ANY_MARK = re.compile(r"<image(?:[ _-]?[0-9]+)?>")


def written_turns(raw: Sequence[RawTurn], named: Collection[str] = ()) -> tuple[tuple[Turn, ...], tuple[str, ...]]:
    """The turns as text, and what stands in it for each part, in order.

    That is "<image>" unless somebody typed this word; then a placeholder that nobody said and that is not `named`.
    """
    said = "".join((*(turn.said for turn in raw), *named))
    fresh = (mark for number in itertools.count() if (mark := f"<image_{number:02d}>") not in said)
    marks = iter(fresh if IMAGE_MARKER in said else itertools.repeat(IMAGE_MARKER))
    turns, used = [], []
    for turn in raw:
        texts = []
        for piece in turn.pieces:
            texts.append(piece if isinstance(piece, str) else next(marks))
            used += [texts[-1]] if isinstance(piece, Part) else []
        turns.append(Turn(turn.role, "".join(texts), turn.trained))
    return tuple(turns), tuple(used)


def placed_images(
    raw: Sequence[RawTurn], named: Sequence[ImageReference], base_dir: Path | None = None, roots: PathRoots = NO_ROOTS
) -> tuple[tuple[Turn, ...], tuple[ImageReference, ...]]:
    """The turns as text and the pictures they show, their paths beside the record's file.

    Args:
      named: the pictures that the record lists beside its turns.
      roots: under which other roots the pictures lie; the texts stay as they are.
    Raises:
      RecordError: a place shows no picture, or a picture has no place.
    """
    turns, marks = written_turns(raw, [image.placeholder for image in named])
    parts = [piece for turn in raw for piece in turn.pieces if isinstance(piece, Part)]
    if parts:
        images = _of_parts(parts, marks, named)
    else:
        images = tuple(named)
        _check_markers(turns, images)
    images = _of_forms(turns, images)
    return turns, tuple(replace(image, path=located(image.path, base_dir, roots)) for image in images)


def _of_parts(
    parts: Sequence[Part], marks: Sequence[str], named: Sequence[ImageReference]
) -> tuple[ImageReference, ...]:
    bare = [image for image in named if image.placeholder in ("", IMAGE_MARKER)]
    others = [image for image in named if image not in bare]
    silent = sum(not part.path for part in parts)
    twice = not silent and [image.path for image in bare] == [part.path for part in parts]
    if len(bare) != silent and not twice:
        raise RecordError(
            (
                f"image_count: {silent} image parts do not say which picture they show, and the record lists "
                f"{len(bare)} beside its turns; list one for each",
            )
        )
    listed = iter(bare)
    shown = [part.path or next(listed).path for part in parts]
    placeholders = ["" if mark == IMAGE_MARKER else mark for mark in marks]
    return (*others, *map(ImageReference, placeholders, shown))


def _check_markers(turns: Sequence[Turn], images: Sequence[ImageReference]) -> None:
    placeholders = {image.placeholder or IMAGE_MARKER for image in images}
    bare = sum((image.placeholder or IMAGE_MARKER) == IMAGE_MARKER for image in images)
    said = len(spoken_places(turns, {IMAGE_MARKER, *placeholders})[IMAGE_MARKER])
    if said and said != bare:
        raise RecordError(
            (f"image_count: the user turns say {IMAGE_MARKER!r} {said} times, the record lists {bare} such pictures",)
        )
    elsewhere = next((index for index, turn in enumerate(turns) if IMAGE_MARKER in turn.content), None)
    if bare and not said and elsewhere is not None:
        raise RecordError(
            (f"image_place: turn {elsewhere} says {IMAGE_MARKER!r} and is no user turn; only that can show one",)
        )
    pattern = _NUMBERED if images else _ANY_MARK
    for index, turn in enumerate(turns):
        for mark in pattern.findall(turn.content) if turn.role == "user" else ():
            if mark not in placeholders:
                raise RecordError(
                    (f"image_count: turn {index} says {mark!r}, and no picture of the record is called so",)
                )


def _of_forms(turns: Sequence[Turn], images: tuple[ImageReference, ...]) -> tuple[ImageReference, ...]:
    """The images with one for every "<img>..</img>" of the user turns, which is its placeholder."""
    forms = [match for turn in turns if turn.role == "user" for match in _FORM.finditer(turn.content)]
    if not forms:
        return images
    marks = {image.placeholder or IMAGE_MARKER for image in images}
    spoken = spoken_places(turns, marks | {form.group() for form in forms})  # a name inside a form is no mark
    kept = [image for image in images if spoken[image.placeholder or IMAGE_MARKER]]
    waiting = [image for image in images if image not in kept]
    known = {image.placeholder: image.path for image in kept if _FORM.fullmatch(image.placeholder)}
    names = {form.group(): _form_name(form) for form in forms if form.group() not in known}
    for form, name in names.items():
        found = _listed_as(name, waiting, set(names.values()))
        known[form] = found[0].path if found else name
        waiting = [image for image in waiting if image not in found]
    if waiting:
        raise RecordError(
            (f"image_count: {printable(waiting[0].path)} is listed, and none of the <img> in the text names it",)
        )
    others = [image for image in kept if image.placeholder not in known]
    return (*others, *(ImageReference(form.group(), known[form.group()]) for form in forms))


def _form_name(form: re.Match[str]) -> str:
    path = picture_path(form[1].strip())
    if not path:
        raise RecordError(("image_form: an <img> in the text names no file",))
    return path


def _listed_as(name: str, waiting: Sequence[ImageReference], names: Collection[str]) -> list[ImageReference]:
    """The listed picture that a form means: of this path, else of this placeholder, else the only one so called."""
    same = [image for image in waiting if image.path == name] or [i for i in waiting if i.placeholder == name]
    alike = [i for i in waiting if PurePath(i.path).name == PurePath(name).name and i.path not in names]
    return same or (alike if len({image.path for image in alike}) == 1 else [])
