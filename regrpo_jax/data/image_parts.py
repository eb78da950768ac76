"""Where the images of a record stand in its conversation: at their placeholders, or before the task."""

import dataclasses
from collections.abc import Sequence

from regrpo_jax.records.images import IMAGE_MARKER, spoken_places
from regrpo_jax.records.types import ImageReference, Turn


@dataclasses.dataclass(frozen=True)
class ImagePlace:
    """An image stands in the place of the characters [start, end) of user turn `turn`."""

    turn: int
    start: int
    end: int
    image: ImageReference


def image_places(turns: Sequence[Turn], images: Sequence[ImageReference]) -> list[ImagePlace]:
    """All images in reading order.

    The k-th image of a placeholder ("<image>" for an image without one) stands where the user turns say it for the
    k-th time; an image whose placeholder they do not say leads the first user turn.
    """
    first_user = next((index for index, turn in enumerate(turns) if turn.role == "user"), -1)
    spoken = spoken_places(turns, {image.placeholder or IMAGE_MARKER for image in images})
    places = []
    for image in images:
        spots = spoken.get(image.placeholder or IMAGE_MARKER, [])
        places.append(ImagePlace(*(spots.pop(0) if spots else (first_user, 0, 0)), image))
    return sorted(places, key=lambda place: (place.turn, place.start, place.end))


def image_order(turns: Sequence[Turn], images: Sequence[ImageReference]) -> list[ImageReference]:
    """The images in the order in which their tokens stand in the rendered conversation."""
    return [place.image for place in image_places(turns, images)]


def images_before(
    conversation: Sequence[Turn], turn_count: int, images: Sequence[ImageReference]
) -> tuple[ImageReference, ...]:
    """The images that stand in the first `turn_count` turns: what may be seen at that point of the conversation."""
    places = image_places(conversation, images)
    return tuple(place.image for place in places if place.turn < turn_count)


def with_image_parts(turns: Sequence[Turn], images: Sequence[ImageReference]) -> list[dict]:
    """Messages for a chat template; a turn with images is a list of text and image parts, others are strings."""
    places = image_places(turns, images)
    messages = []
    for index, turn in enumerate(turns):
        here = [place for place in places if place.turn == index]
        messages.append({"role": turn.role, "content": _parts(turn.content, here) if here else turn.content})
    return messages


def _parts(text: str, places: Sequence[ImagePlace]) -> list[dict[str, str]]:
    parts: list[dict[str, str]] = []
    cursor = 0
    for place in places:
        parts += [{"type": "text", "text": text[cursor : place.start]}, {"type": "image"}]
        cursor = place.end
    parts.append({"type": "text", "text": text[cursor:]})
    return [part for part in parts if part.get("text") != ""]
