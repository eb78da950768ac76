"""Pictures that an action made, as the policy is shown them: files by hash, few enough and small enough, or why not.

A tool may write four hundred pictures, one of 20,000 pixels, a damaged or an animated one. What the policy is shown is
a PNG of at most so many pixels; what it is not shown, it is told in words. So records, buffers, engines and the vision
tower all meet the same file.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_collections import ConfigDict
from PIL import Image

from regrpo_jax.agent.prompt import free_placeholders
from regrpo_jax.errors import UserError
from regrpo_jax.records.opened_images import LONGEST_ASPECT, ImageError, open_image_bytes
from regrpo_jax.records.picture_words import picture_words
from regrpo_jax.records.reasons import printable
from regrpo_jax.records.types import ImageReference

_MOST_NAMED = 4  # pictures that are named each when they are not shown
_LONGEST_NAME = 60


@dataclass(frozen=True)
class ShownPicture:
    """name: in the workspace. digest: SHA-256 of what its tool made. path: the file that is shown, "<SHA-256>.png".
    words: see `picture_words`.
    """

    name: str
    digest: str
    path: str
    words: str


@dataclass(frozen=True)
class PictureLimits:
    """of_observation, of_episode: most pictures shown; 0 tells their names only. pixels: most of each; a larger one is
    made smaller. blind: black pictures of the same size are shown, the control that tells whether a policy looks.
    """

    of_observation: int = 4
    of_episode: int = 16
    pixels: int = 401_408  # 512 image tokens of Qwen2-VL, 392 of Qwen3-VL
    blind: bool = False

    def __post_init__(self) -> None:
        """UserError for numbers that mean nothing."""
        if min(self.of_observation, self.of_episode) < 0 or self.pixels < 1:
            raise UserError("agent.observation_images: numbers of pictures are at least 0, pixels at least 1")


NO_PICTURES = PictureLimits(0, 0)


def configured_limits(agent: ConfigDict) -> PictureLimits:
    """What `config.agent` says."""
    of_observation, of_episode, pixels = map(int, agent.observation_images)
    return PictureLimits(of_observation, of_episode, pixels, agent.blind)


def shown_pictures(
    images: Sequence[tuple[str, bytes]], limits: PictureLimits, folder: Path, before: int
) -> tuple[tuple[ShownPicture, ...], str]:
    """What is shown of an observation's pictures, and what is told of the others.

    Args:
      images: name in the workspace and content of each, in order.
      folder: where files that are shown are kept, under the SHA-256 of what they hold; made if missing.
      before: pictures that the episode was shown already.
    Returns:
      the pictures, and words to be put after the observation's text, "" where all are shown.
    """
    most = min(limits.of_observation, limits.of_episode - before)
    shown: list[ShownPicture] = []
    untold: list[str] = []
    words: list[str] = []
    for name, content in images:
        if len(shown) >= most or len(words) >= _MOST_NAMED:
            untold.append(name)
            continue
        try:
            picture = _as_shown(content, limits)
        except ImageError as error:
            words.append(f"({printable(name, _LONGEST_NAME)} is not shown: {printable(error, 120)})")
            continue
        digest = hashlib.sha256(content).hexdigest()
        shown.append(ShownPicture(name, digest, str(_kept(picture, folder)), picture_words(picture)))
    if untold:
        words.append(_untold(untold, limits, before))
    return tuple(shown), "\n".join(words)


def told_apart(text: str, made: Sequence[tuple[str, str]]) -> str:
    """An observation as it is compared with another: its text, and which pictures came with it.

    Pictures are told apart by what they show, not by names, which may count on: `plot_2.png` is no other than
    `plot_1.png`.

    Args:
      made: name and SHA-256 of every picture, shown or not.
    """
    for number, (name, _) in enumerate(made):
        text = text.replace(name, f"<picture {number}>")
    return "\n".join((text, *(digest for _, digest in made)))


def with_pictures(
    text: str, pictures: Sequence[ShownPicture], first: int, said: Sequence[str]
) -> tuple[str, tuple[ImageReference, ...]]:
    """An observation's text with a line for each picture, and the pictures in the order of these lines.

    Args:
      first: number of the next placeholder.
      said: the user turns so far; no placeholder is taken that was said already, whatever tools print.
    """
    names = [picture.name for picture in pictures]  # a file may be called like a placeholder
    places = free_placeholders(len(pictures), first, (*said, text, *names))
    lines = [f"{picture.name}: {place}" for picture, place in zip(pictures, places, strict=True)]
    images = [ImageReference(place, picture.path) for picture, place in zip(pictures, places, strict=True)]
    return "\n".join((text, *lines)), tuple(images)


def _untold(names: Sequence[str], limits: PictureLimits, before: int) -> str:
    told = ", ".join(printable(name, _LONGEST_NAME) for name in names[:_MOST_NAMED])
    told += f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    if not min(limits.of_observation, limits.of_episode):
        return f"(pictures are not shown here: {told})"
    if before + limits.of_observation > limits.of_episode:
        return f"(not shown, as an episode shows at most {limits.of_episode} pictures: {told})"
    return f"(not shown, as a step shows at most {limits.of_observation} pictures: {told})"


def _as_shown(content: bytes, limits: PictureLimits) -> bytes:
    """The file that is shown. ImageError where nothing can be."""
    image = open_image_bytes(content, trusted=False)
    share = (limits.pixels / (image.width * image.height)) ** 0.5
    if share < 1:
        width, height = max(1, int(image.width * share)), max(1, int(image.height * share))
        short = min(width, height)  # which is at least a pixel, or lost more than its share
        longest = min(LONGEST_ASPECT * short, limits.pixels // short)
        image = image.resize((min(width, longest), min(height, longest)), Image.Resampling.BICUBIC)
    if limits.blind:
        image = Image.new("RGB", image.size)
    stream = io.BytesIO()
    image.save(stream, format="PNG")
    return stream.getvalue()


def _kept(content: bytes, folder: Path) -> Path:
    path = folder / f"{hashlib.sha256(content).hexdigest()}.png"
    if path.exists():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=folder, prefix=".unfinished-")
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.replace(temporary, path)
    except OSError as error:
        raise UserError(f"{path}: a picture cannot be kept there ({error.strerror})") from error
    return path
