"""Clean trajectories of a person's own suite: the tasks that come with the steps which solve them."""

from __future__ import annotations

from dataclasses import replace

from regrpo_jax.engine.finite_source import FiniteSource
from regrpo_jax.engine.suite_source import situation_of
from regrpo_jax.errors import UserError
from regrpo_jax.suites.suite import Suite

_ALL = 2**31


def task_source(suite: Suite, split: str, seed: int) -> FiniteSource:
    """The steps of the split's tasks. UserError when none of them has any."""
    tasks = [task for task in suite.tasks(split, _ALL, seed) if task.oracle]
    if not tasks:
        raise UserError(
            f"config.data.source is 'suite', and no task of the split {split!r} of {suite.name} has "
            '"steps"; give some the steps that solve them, or record episodes of a policy that can'
        )
    firsts = [situation_of(task, suite.tools, brief=suite.brief) for task in tasks]
    found = [replace(first, index=index) for first in firsts for index in range(len(first.steps))]
    return FiniteSource(found, suite.tools, seed, brief=suite.brief)
