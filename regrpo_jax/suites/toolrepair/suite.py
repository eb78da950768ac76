"""ToolRepair as a suite: as many tasks of a split as one asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from regrpo_jax.environments.task import Task
from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.suites.toolrepair.registry import DIFFICULTIES, SURPRISES, make_suite
from regrpo_jax.suites.toolrepair_tools import compact_toolset, full_toolset

NAME = "toolrepair"
LOADERS = {"compact": compact_toolset.LOADER, "full": full_toolset.LOADER}
_TOOLS = {profile: SuiteTools(loader) for profile, loader in LOADERS.items()}


@dataclass(frozen=True)
class ToolRepair:
    """Families, difficulties and the share of surprises; see `registry.make_suite`."""

    profile: str = "compact"
    families: Sequence[str] = ()
    difficulties: Sequence[int] = DIFFICULTIES
    surprises: float = SURPRISES
    name: str = NAME

    @property
    def brief(self) -> bool:
        """Compact tasks are for policies of a few million parameters."""
        return self.profile == "compact"

    @property
    def tools(self) -> SuiteTools:
        """All tools of the profile, loaded once a process."""
        return _TOOLS[self.profile]

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """Family after family and difficulties in turn. UserError as `make_suite`."""
        return make_suite(
            split, count, seed, self.profile,
            surprises=self.surprises, difficulties=self.difficulties, chosen=self.families,
        )  # fmt: skip
