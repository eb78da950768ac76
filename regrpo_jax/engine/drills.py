"""Drills: one question, one short answer, so that a small policy learns each skill sooner than from whole episodes.

recall   who is told to be where: the keys are given, the values are wanted
caption  what is where in the picture, region after region
find     where in the picture each colour is
look     what is in each region of the picture
explain  from a task and the real observation of its failed action to the right fix, over what leads there
tell     the fix alone
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from PIL import Image

from regrpo_jax.agent.prompt import BRIEF, placeholders
from regrpo_jax.engine.writing import IMAGE_FOLDER, image_name
from regrpo_jax.environments.recovery import FAILURES
from regrpo_jax.environments.task import Task
from regrpo_jax.records.picture_words import picture_words
from regrpo_jax.records.types import ImageReference, Observation
from regrpo_jax.suites.toolrepair import Repair, plan_of
from regrpo_jax.suites.toolrepair.compact_desk_families import KEYS, MEANINGS
from regrpo_jax.suites.toolrepair.plan import is_visual
from regrpo_jax.suites.toolrepair.words import CITIES, PEOPLE, STEMS
from regrpo_jax.suites.toolrepair_tools.compact_pictures import COLOURS, REGIONS, card_in, frame_colour, quadrant
from regrpo_jax.suites.toolrepair_tools.compact_tools import OPENERS
from regrpo_jax.suites.toolrepair_tools.quoting import listed, q

FORMATS = ("csv", "json", "xml", "html")
# Keys, values, and the word between them, as observations pair them.
PAIRINGS: tuple[tuple[Sequence[str], Sequence[str], str], ...] = (
    (CITIES, PEOPLE, "is"),
    (PEOPLE, STEMS, "at"),
    (CITIES, STEMS, "at"),
    (FORMATS, OPENERS, "in"),
    (MEANINGS, KEYS, "in"),
)
_MOST_PAIRS = 4


@dataclass(frozen=True)
class Exercise:
    """pictured: whether the question is about the task's picture, or may be."""

    question: str
    answer: str
    pictured: bool


Maker = Callable[[Random], Exercise]


def drills_of(
    task: Task, observations: Sequence[Observation], number: int, rng: Random, count: float, pictured: float
) -> list[dict[str, Any]]:
    """`count` exercises on average beside a played task, in the form of clean trajectories: on repairs, or recall.

    Args:
      observations: that the task's actions gave, in order.
      number: makes the ids unique.
      pictured: how many more there are about a picture, where the task has one of cards; it is the slowest skill.
    """
    of_picture, of_repair = _picture_makers(task), _repair_makers(task, observations)
    makers = (of_repair or of_picture) if of_picture else [recall, *of_repair]
    chosen = [rng.choice(makers) for _ in range(_drawn(count, rng))]
    chosen += [rng.choice(of_picture) for _ in range(_drawn(pictured, rng) if of_picture else 0)]
    made = [maker(rng) for maker in chosen]
    return [_record(task, exercise, f"drill_{number:06d}_{at}") for at, exercise in enumerate(made)]


def seen_drills(images: Sequence[ImageReference], number: int) -> list[dict[str, Any]]:
    """What the pixels of pictures say that tools made, an exercise for each: evidence is worded so.

    Args:
      images: as they stand in a demonstration; number: makes the ids unique.
    """
    records = []
    for at, path in enumerate(dict.fromkeys(Path(image.path) for image in images)):
        answer = picture_words(path.read_bytes())
        records.append(
            {
                "id": f"drill_{number:06d}_seen_{at}",
                "image": {"<image_00>": f"{IMAGE_FOLDER}/{path.name}"},
                "answer": answer,
                "conversations": [
                    {"role": "system", "content": BRIEF},
                    {"role": "user", "content": "<image_00>\nSay what it shows."},
                    {"role": "assistant", "content": f"It shows {answer}."},
                ],
            }
        )
    return records


def _drawn(mean: float, rng: Random) -> int:
    """One of the two whole numbers next to the mean."""
    return int(mean) + (rng.random() < mean % 1)


def recall(rng: Random) -> Exercise:
    """Pairs in some order, then their keys in others."""
    keys, values, word = rng.choice(PAIRINGS)
    count = rng.randint(2, _MOST_PAIRS)
    pairs = list(zip(rng.sample(keys, count), rng.sample(values, count), strict=True))
    asked = [pair for _ in range(2) for pair in rng.sample(pairs, count)]
    told = listed(f"{q(key)} {word} {q(value)}" for key, value in pairs)
    return Exercise(f"{told} Recall {listed(q(key) for key, _ in asked)}", _pairs(asked, word), False)


def _pairs(pairs: Sequence[tuple[str, str]], word: str) -> str:
    return listed(f"{q(key)} {word} {q(value)}" for key, value in pairs)


def caption(colours: dict[str, str]) -> Exercise:
    """All cards, in the order of the regions."""
    return Exercise(
        "List the cards.", _pairs([(colours[region], region) for region in REGIONS if region in colours], "at"), True
    )


def find(colours: dict[str, str], rng: Random) -> Exercise:
    """The region of each colour of {region: colour}."""
    pairs = [(colour, region) for region, colour in colours.items()]
    asked = rng.sample(pairs, len(pairs))
    return Exercise(f"Find {listed(q(colour) for colour, _ in asked)}", _pairs(asked, "at"), True)


def look(colours: dict[str, str], rng: Random) -> Exercise:
    """The colour in each region, or that there is none."""
    asked = rng.sample(list(REGIONS), len(REGIONS))
    pairs = [(region, colours.get(region, "nothing")) for region in asked]
    return Exercise(f"Look at {listed(map(q, asked))}", _pairs(pairs, "is"), True)


def explain(instruction: str, observation: str, repair: Repair) -> Exercise:
    """The evidence, what follows from it, and the fix."""
    answer = listed((repair.evidence, *repair.facts, repair.fix))
    return Exercise(f"Explain: {instruction}\n{observation}", answer, True)


def tell(instruction: str, observation: str, repair: Repair) -> Exercise:
    """The fix alone."""
    return Exercise(f"Tell: {instruction}\n{observation}", listed((repair.fix,)), True)


def cards_of(task: Task) -> dict[str, str]:
    """Region -> colour of the cards in the task's picture, read off its pixels; empty without a picture of cards.

    Cards that are too small for a policy to see are none: naming them would teach to make them up.
    """
    if not task.images or is_visual(task):
        return {}
    with Image.open(io.BytesIO(task.file(task.images[0]))) as opened:
        image = opened.convert("RGB")
    if frame_colour(image):
        return {}
    found = {region: card_in(quadrant(image, region)) for region in REGIONS}
    return {region: card[0] for region, card in found.items() if card is not None and card[0] in COLOURS}


def _picture_makers(task: Task) -> list[Maker]:
    colours = cards_of(task)
    if not colours:
        return []
    where = [lambda rng: find(colours, rng)] * 2  # from a colour to its region is learnt last
    return [lambda _: caption(colours), lambda rng: look(colours, rng), *where]


def _repair_makers(task: Task, observations: Sequence[Observation]) -> list[Maker]:
    failed = next((seen.text for seen in observations if seen.status in FAILURES), None)
    repair = next((attempt.repair for attempt in plan_of(task).attempts if attempt.repair is not None), None)
    if failed is None or repair is None:
        return []
    told = (task.instruction, failed, repair)
    return [lambda _: explain(*told), lambda _: tell(*told)]


def _record(task: Task, exercise: Exercise, name: str) -> dict[str, Any]:
    shown = placeholders(task.images if exercise.pictured else ())
    return {
        "id": name,
        "image": {mark: image_name(task, file) for mark, file in shown.items()},
        "answer": exercise.answer,
        "conversations": [
            {"role": "system", "content": BRIEF},
            {"role": "user", "content": "".join(f"{mark}\n" for mark in shown) + exercise.question},
            {"role": "assistant", "content": exercise.answer},
        ],
    }
