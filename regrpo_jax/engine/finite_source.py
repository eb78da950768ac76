"""Situations of a given, finite set of trajectories, dealt out so that no two attempts take the same near miss."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from regrpo_jax.engine.cases import NearMiss, Situation
from regrpo_jax.engine.perturb.near_misses import near_misses
from regrpo_jax.records.types import ErrorType
from regrpo_jax.suites.suite import SuiteTools

MOST_CHOICES = 8  # near misses of one kind that are taken of one step


@dataclass(frozen=True)
class FiniteSource:
    """Steps of recorded trajectories.

    own_only: take only the near misses that came with them. brief: see `Suite`. notes: what a person should know of the
    trajectories that were not taken. any_type: where there are too few failures of a type, others will do.
    """

    situations: Sequence[Situation]
    tools: SuiteTools
    seed: int
    own_only: bool = False
    brief: bool = False
    notes: tuple[str, ...] = ()
    any_type: bool = False
    _order: dict[ErrorType | None, list[int]] = field(default_factory=dict)

    def situation(self, error_type: ErrorType | None, number: int) -> tuple[Situation, list[NearMiss]] | None:
        """First every step once, in an order of its own for each type (`_in_turn`); then the next near miss of each."""
        places = self._places(error_type)
        if not places or number >= len(places) * (1 if error_type is None else MOST_CHOICES):
            return None
        choice, at = divmod(number, len(places))
        situation = self.situations[places[at]]
        if error_type is None:
            return situation, []
        misses = [miss for miss in situation.own if miss.error_type == error_type]
        if not self.own_only:
            misses += near_misses(situation, error_type, random.Random(f"{self.seed}/{error_type}/{places[at]}"))
        return situation, misses[choice : choice + 1]

    def _places(self, error_type: ErrorType | None) -> list[int]:
        if error_type not in self._order:
            places = [at for at, one in enumerate(self.situations) if error_type is not None or one.index == 0]
            if self.own_only and error_type is not None:
                places = [at for at in places if any(m.error_type == error_type for m in self.situations[at].own)]
            random.Random(f"{self.seed}/{error_type}/order").shuffle(places)
            self._order[error_type] = self._in_turn(places, error_type)
        return self._order[error_type]

    def _in_turn(self, places: Sequence[int], error_type: ErrorType | None) -> list[int]:
        """Each trajectory's first place, then each one's second, and so on; those that can be run before the others.

        The types begin at different trajectories, so that few records are of many.
        """
        by_source: dict[str, list[int]] = {}
        for at in places:
            by_source.setdefault(self.situations[at].source_id, []).append(at)
        names = sorted(by_source)
        random.Random(f"{self.seed}/sources").shuffle(names)
        kinds = list(ErrorType)
        first = 0 if error_type is None else kinds.index(error_type) * len(names) // len(kinds)
        names = names[first:] + names[:first]
        names.sort(key=lambda name: not self.situations[by_source[name][0]].executable)
        rounds = itertools.zip_longest(*(by_source[name] for name in names))
        return [at for one_round in rounds for at in one_round if at is not None]
