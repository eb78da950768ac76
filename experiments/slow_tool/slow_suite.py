"""The tasks of configs/recovery.py over tools that answer 2 s late in 5 % of their calls, for `config.suite.name`."""

from __future__ import annotations

import dataclasses

from regrpo_jax.suites.suite import SuiteTools
from regrpo_jax.suites.toolrepair.suite import ToolRepair

FAMILIES = ("moved", "service", "search", "region", "colour", "sheet")
SLOW = "experiments.slow_tool.slow_tools:load_slow_tools"


class SlowToolRepair(ToolRepair):
    """ToolRepair; only how long its tools take is another."""

    @property
    def tools(self) -> SuiteTools:
        """Those of ToolRepair, slow at times."""
        return dataclasses.replace(super().tools, loader=SLOW)


def make_suite() -> SlowToolRepair:
    """What `config.suite.name` names."""
    return SlowToolRepair("compact", FAMILIES, surprises=0.7, name="toolrepair over slow tools")


def make_fast_suite() -> ToolRepair:
    """The same over tools as they are."""
    return ToolRepair("compact", FAMILIES, surprises=0.7, name="toolrepair over fast tools")
