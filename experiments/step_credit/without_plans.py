"""ToolRepair, compact, as a person's own suite would be: nobody knows what a step should see, only the answer."""

from __future__ import annotations

import dataclasses

from regrpo_jax.environments.task import ONE_WAY, Task
from regrpo_jax.suites.toolrepair.suite import ToolRepair

FAMILIES = ("moved", "service", "search", "region", "colour", "sheet")


class WithoutPlans(ToolRepair):
    """The tasks of configs/recovery.py; their oracles judge no step."""

    def tasks(self, split: str, count: int, seed: int) -> list[Task]:
        """As those of ToolRepair."""
        tasks = super().tasks(split, count, seed)
        return [dataclasses.replace(task, metadata=task.metadata | {ONE_WAY: True}) for task in tasks]


def make_suite() -> WithoutPlans:
    """What `config.suite.name` names."""
    return WithoutPlans("compact", FAMILIES, surprises=0.7, name="toolrepair without plans")
