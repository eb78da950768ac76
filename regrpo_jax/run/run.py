"""A run, as its stages see it: what was asked for, where it is kept, and the policy as it stands now."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar

from ml_collections import ConfigDict

if TYPE_CHECKING:
    from regrpo_jax.run.learner import Learner, Served


class Measure(Protocol):
    """What measures policies and keeps their numbers until the run ends."""

    def print_tables(self) -> None:
        """What the run ends with."""


M = TypeVar("M", bound=Measure)


@dataclasses.dataclass
class Run:
    """What a stage is called with; it changes what it learns, and nothing else.

    Attributes:
      config: the whole configuration; a stage trusts it, because all of it was checked.
      workdir: the run's folder.
      trained: the stages that made the policy as it stands, in order, and their updates.
      measures: by stage, those that have measured something.
    """

    config: ConfigDict
    workdir: Path
    trained: dict[str, int] = dataclasses.field(default_factory=dict)
    measures: dict[str, Measure] = dataclasses.field(default_factory=dict)
    _learner: Learner | None = None
    _served: Served | None = None

    @property
    def learner(self) -> Learner:
        """The policy and what it learns from. A stage of the host wing has none."""
        if self._learner is None:
            raise RuntimeError("this stage was called before there is a policy")
        return self._learner

    @property
    def played(self) -> Learner | Served:
        """The policy, as far as its episodes can be played."""
        return self._served or self.learner

    def with_learner(self, learner: Learner) -> Run:
        """The same run, its measures and all, with another learner."""
        return dataclasses.replace(self, _learner=learner)

    def begin(self, learner: Learner) -> None:
        """From here on there is a policy."""
        self._learner = learner

    def begin_served(self, served: Served) -> None:
        """From here on there is a policy that can be measured alone."""
        self._served = served

    def measure(self, stage: str, make: Callable[[], M]) -> M:
        """The stage's own measure, made when it is first asked for."""
        if stage not in self.measures:
            self.measures[stage] = make()
        return self.measures[stage]  # type: ignore[return-value]
