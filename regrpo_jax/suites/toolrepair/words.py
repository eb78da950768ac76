"""The names that tasks speak of, and which combinations of them belong to which split.

Splits share the words, because a policy of a million parameters has to have met a word to copy it. What is held out
is the *combination*: all names of a task, right ones and distractors alike and in no order, fall into one bucket.
So no split ever learns that a certain name is never the right one, as it would if pairs (right name, question)
were held out.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable

_BUCKETS = 10
# Buckets of each split; held_out has, beyond its own combinations, tools and faults of its own.
_SPLIT_OF_BUCKET = (*("train",) * 7, "validation", "test", "held_out")

_STEMS = (
    "fox moon lake river stone tiger cedar pearl amber eagle storm coral maple frost field tower bridge garden copper "
    "silver"
)
_PEOPLE = "Ann Bob Eve Dan Kim Leo Max Pam Ray Sue Tom Zoe"
_CITIES = "Oslo Lima Rome Cairo Delhi Paris Quito Tokyo Milan Perth"
STEMS, PEOPLE, CITIES = (tuple(words.split()) for words in (_STEMS, _PEOPLE, _CITIES))
YEARS = tuple(str(year) for year in range(2011, 2021))
TEAMS = ("sales", "legal", "press", "audit", "field")


def split_of(names: Iterable[str]) -> str:
    """The split that owns this combination of names, in whatever order."""
    key = "|".join(sorted(names))
    return _SPLIT_OF_BUCKET[hashlib.sha256(key.encode()).digest()[0] % _BUCKETS]


def values(rng: random.Random, count: int) -> list[str]:
    """Different numbers of two digits."""
    return [str(number) for number in rng.sample(range(10, 100), count)]
