"""What a policy would be shown of the episodes that the engine plays: records hold what it meets at run time."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from regrpo_jax.agent.shown_pictures import PictureLimits, ShownPicture, shown_pictures, with_pictures
from regrpo_jax.environments.episode import Episode
from regrpo_jax.environments.task import Task
from regrpo_jax.records.types import ImageReference, Observation


@dataclass(frozen=True)
class Showing:
    """limits: which pictures that tools make are shown. folder: where these are kept, under the SHA-256 of each."""

    limits: PictureLimits
    folder: Path


@dataclass
class Sight:
    """The pictures of one episode so far. showing: None leaves observations as they are.

    images: those that were shown, in order. pictures: of each observation.
    """

    showing: Showing | None
    task: Task
    instruction: str
    images: list[ImageReference] = field(default_factory=list)
    pictures: list[tuple[ShownPicture, ...]] = field(default_factory=list)
    _said: list[str] = field(default_factory=list)

    def seen(self, episode: Episode, observation: Observation) -> Observation:
        """The observation of the episode's last step, with words and places for the pictures that came with it."""
        if self.showing is None or not observation.images:
            self.pictures.append(())
            return observation
        made = [(name, episode.images[len(episode.steps) - 1, name]) for name in observation.images]
        pictures, note = shown_pictures(made, self.showing.limits, self.showing.folder, len(self.images))
        text = f"{observation.text}\n{note}" if note else observation.text
        first = len(self.task.images) + len(self.images)
        text, images = with_pictures(text, pictures, first, [self.instruction, *self._said])
        self._said.append(text)
        self.images += images
        self.pictures.append(pictures)
        return replace(observation, text=text)


def picture_lines(pictures: tuple[ShownPicture, ...]) -> str:
    """What the pixels of an observation's pictures say, a line each."""
    return "\n".join(f"{picture.name}: {picture.words}" for picture in pictures)
