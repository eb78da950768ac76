"""What a policy would be shown of the episodes that the engine plays: records hold what it meets at run time."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

from regrpo_jax.agent.shown_pictures import PictureLimits, ShownPicture, shown_pictures, told_apart, with_pictures
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import ImageReference, Observation

_PLACES = re.compile(r"\n[^\n]*: <image_\d+>(?=\n|\Z)")


@dataclass(frozen=True)
class Showing:
    """limits: which pictures that tools make are shown. folder: where these are kept, under the SHA-256 of each."""

    limits: PictureLimits
    folder: Path


@dataclass
class Sight:
    """The pictures of one episode so far. showing: None leaves observations as they are.

    images: those that were shown, in order. pictures: of each observation. told_apart: each as it is compared.
    """

    showing: Showing | None
    task: Task
    instruction: str
    images: list[ImageReference] = field(default_factory=list)
    pictures: list[tuple[ShownPicture, ...]] = field(default_factory=list)
    told_apart: list[str] = field(default_factory=list)
    _said: list[str] = field(default_factory=list)

    def seen(self, episode: Episode, observation: Observation) -> Observation:
        """The observation of the episode's last step, with words and places for the pictures that came with it."""
        found = [(name, episode.images[len(episode.steps) - 1, name]) for name in observation.images]
        digests = [(name, hashlib.sha256(content).hexdigest()) for name, content in found]
        self.told_apart.append(told_apart(observation.text, digests))
        if self.showing is None or not observation.images:
            self.pictures.append(())
            self._said.append(observation.text)
            return observation
        pictures, note = shown_pictures(found, self.showing.limits, self.showing.folder, len(self.images))
        text = f"{observation.text}\n{note}" if note else observation.text
        first = len(self.task.images) + len(self.images)
        text, images = with_pictures(text, pictures, first, [self.instruction, *self._said])
        self._said.append(text)
        self.images += images
        self.pictures.append(pictures)
        return replace(observation, text=text)


def without_places(text: str) -> str:
    """An observation's text without the lines that say where its pictures stand: no words of the tool."""
    return _PLACES.sub("", text)


def picture_lines(pictures: tuple[ShownPicture, ...]) -> str:
    """What the pixels of an observation's pictures say, a line each."""
    return "\n".join(f"{picture.name}: {picture.words}" for picture in pictures)
