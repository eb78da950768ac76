"""Batches of a stage with a curriculum: grain deals places of one endless shuffle, and the level tells the record.

grain reads ahead, at a time when the level of a draw is not known yet. What it reads ahead is therefore only the place
in the shuffle; which record the place stands for is decided when a batch takes it.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import grain
import numpy as np

from regrpo_jax.data.curriculum import Pacer, count_in_play, easiest_first

FINENESS = 1 << 16  # parts that a place is divided into


class Deal(NamedTuple):
    """A draw that has not met its level yet.

    Attributes:
      draw: its number among the draws of the stage.
      place: of the dealt record in order of ease.
      part: of the place, in [0, FINENESS).
    """

    draw: int
    place: int
    part: int


class Deck:
    """Records in order of ease, drawn uniformly from those in play.

    The shuffle visits the places p = 0 .. n - 1 once per pass. With a random v in [0, 1), place p stands for record
    floor((p + v) * m / n) of the m easiest: each of them is drawn equally often, evenly spread over the pass, and for
    m = n the shuffle is the one that a stage without a curriculum has.
    """

    def __init__(self, complexities: Sequence[float], pacer: Pacer) -> None:
        self._complexities = np.asarray(complexities, np.float64)
        self._order = easiest_first(complexities)
        self.pacer = pacer

    def deals(self, seed: int) -> grain.MapDataset:
        """Endless `Deal`s."""
        place_of = np.argsort(self._order)

        def divide(record: int, rng: np.random.Generator) -> tuple[int, int]:
            return int(place_of[record]), int(rng.integers(FINENESS))

        shuffled = grain.MapDataset.range(len(self._order)).seed(seed).shuffle().repeat()
        return shuffled.random_map(divide).map_with_index(lambda draw, dealt: Deal(draw, *dealt))

    def record(self, deal: Deal) -> int:
        """The index of the record that a deal stands for."""
        records = len(self._order)
        playing = count_in_play(records, self.pacer.level_of(deal.draw))
        return int(self._order[(deal.place * FINENESS + deal.part) * playing // (records * FINENESS)])

    def metrics(self, complexities: np.ndarray) -> dict[str, float]:
        """The share in play, and the mean complexity of a batch (of what is in play when it has no record)."""
        playing = self._order[: count_in_play(len(self._order), self.pacer.level)]
        found = complexities if len(complexities) else self._complexities[playing]
        return {
            "curriculum/share": len(playing) / len(self._order),
            "curriculum/complexity": float(np.mean(found, dtype=np.float64)),
        }


class PacedBatches:
    """An endless iterator of batches whose state holds the pace as well; the pacer gets the numbers of each batch."""

    def __init__(self, batches: grain.DatasetIterator, deck: Deck) -> None:
        """`batches` gives (batch, complexities of its records), drawn from `deck`."""
        self._batches, self._deck = batches, deck

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        pacer = self._deck.pacer
        pacer.begin_update()
        batch, complexities = next(self._batches)
        pacer.metrics = self._deck.metrics(complexities)
        return batch

    def get_state(self) -> dict[str, Any]:
        """Plain JSON."""
        return {"batches": self._batches.get_state(), "curriculum": self._deck.pacer.get_state()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on with the batch that would have come next."""
        self._batches.set_state(state["batches"])
        self._deck.pacer.set_state(state["curriculum"])
