"""The ToolRepair suite: generated tasks over real tools that measure whether an agent recovers from what goes wrong.

make_task(family, split, seed, difficulty, profile) -> Task
make_suite(split, count, seed, profile) -> list of Task, balanced over families and difficulties
families(profile), visual_families(profile): their names; the visual ones are played where they are chosen by name
plan_of(task) -> Plan: natural first actions, and for each that fails evidence, facts, fix and repaired action
BASELINES: oracle, never_repairs, random; LOADERS: the sandbox's loader of each profile's tools
"""

from __future__ import annotations

from regrpo_jax.environments.task import Task
from regrpo_jax.suites.suite import SPLITS
from regrpo_jax.suites.toolrepair.baselines import BASELINES, Policy
from regrpo_jax.suites.toolrepair.plan import (
    Attempt,
    Plan,
    Repair,
    evidence_span,
    is_visual,
    plan_from_json,
    told_with_pictures,
)
from regrpo_jax.suites.toolrepair.registry import PROFILES, families, make_suite, make_task, visual_families
from regrpo_jax.suites.toolrepair.suite import LOADERS

__all__ = [
    "BASELINES", "LOADERS", "PROFILES", "SPLITS", "Attempt", "Plan", "Policy", "Repair", "evidence_span", "families",
    "is_visual", "make_suite", "make_task", "plan_of", "told_with_pictures", "visual_families",
]  # fmt: skip


def plan_of(task: Task) -> Plan:
    """The structured plan that a task of this suite carries. KeyError for a task of another suite."""
    return plan_from_json(task.metadata["plan"])
