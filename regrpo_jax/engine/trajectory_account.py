"""What becomes of the trajectories of a file: how many are clean, how many can be run, and what the others lack."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from regrpo_jax.engine.placed_trajectory import PlacedTrajectory
from regrpo_jax.engine.recorded_calls import RecordedCalls
from regrpo_jax.records.loading import first_named
from regrpo_jax.records.path_roots import suggested_root

_SEARCHING = frozenset(["search", "ask_search_agent"])


@dataclass
class Account:
    """Why trajectories are not used, or not run: what a person reads at the start.

    records: of the file. unread: those that cannot be read. unused: by the reason. run: those that can be run;
    by_recordings: those of them where recordings stand in for tools, which are counted in `stand_ins`. not_told: tools
    whose results the observations do not tell. missing: files that are not here, in `lacking` trajectories.
    suggestions: roots that would find some.
    """

    records: int
    unread: int = 0
    unused: Counter[str] = field(default_factory=Counter)
    run: int = 0
    by_recordings: int = 0
    stand_ins: Counter[str] = field(default_factory=Counter)
    not_told: Counter[str] = field(default_factory=Counter)
    missing: dict[str, None] = field(default_factory=dict)
    lacking: int = 0
    suggestions: Counter[str] = field(default_factory=Counter)

    def sentences(self) -> Iterator[str]:
        """One for each thing that a person may want to mend."""
        reasons = [f"{self.unread} cannot be read"] * bool(self.unread)
        reasons += [f"{count} {why}" for why, count in self.unused.most_common()]
        left = f" ({', '.join(reasons)})" if reasons else ""
        used = self.records - self.unread - self.unused.total()
        yield f"{used} of {self.records} trajectories are clean{left}; {self.run} of them can be run here"
        if self.by_recordings:
            names = ", ".join(f"{name} {count}" for name, count in self.stand_ins.most_common())
            yield f"recorded results stand in for tools that are not here in {self.by_recordings} trajectories: {names}"
        if self.not_told:
            names = ", ".join(f"{name} {count}" for name, count in self.not_told.most_common())
            yield f"these are not here either, and trajectories do not tell what they returned: {names}"
        if _SEARCHING & {*self.stand_ins, *self.not_told}:
            yield "config.tools.search is empty, so that nothing but recordings answers a search"
        if self.missing:
            likely = self.suggestions.most_common(1)
            advice = f', such as "{likely[0][0]}"' if likely else ""
            yield (
                f"{len(self.missing)} files that {self.lacking} trajectories read are not here: "
                f'{first_named(list(self.missing))}; say where they lie with config.data.path_roots, "old=new"{advice}'
            )

    def can_be_run(self, placed: PlacedTrajectory, told: RecordedCalls, absent: Iterable[str]) -> bool:
        """Whether the trajectory can be run; what it lacks, or gets from recordings, is counted.

        Args:
          absent: tools that it calls and that are not here.
        """
        absent = frozenset(absent)
        unknown = absent & told.unknown
        self.not_told.update(unknown)
        if placed.missing:
            self.lacking += 1
            self.missing |= dict.fromkeys(placed.missing)
            self.suggestions.update(_suggestions(placed))
        if unknown or placed.missing:
            return False
        self.run += 1
        self.by_recordings += bool(absent)
        self.stand_ins.update(absent)
        return True


def _suggestions(placed: PlacedTrajectory) -> set[str]:
    """Roots that would bring a missing file to a picture of the same name."""
    names = {Path(name).name: name for name in placed.images.values()}
    found = {suggested_root(one, names[Path(one).name]) for one in placed.missing if Path(one).name in names}
    return found - {""}
