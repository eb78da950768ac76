"""A round of groups that several processes play, each a part of the states with its own workers and tools.

A group draws from the seed and its own number, so that it does not matter which process plays it. What was played is
told to all, because all choose what the update learns from; pictures are files of the run's folder, and only named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict

from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.hosts.agreement import gathered
from regrpo_jax.hosts.role import Role, role
from regrpo_jax.models.flops import Work
from regrpo_jax.rollouts.collect import CannotBegin
from regrpo_jax.rollouts.played_work import PlayedWork, played_work
from regrpo_jax.rollouts.states import TaskState

# (states, number of the first group) -> the groups that were played
Play = Callable[[Sequence[TaskState], int], list[RolloutGroup]]


def part_of(count: int, mine: Role) -> range:
    """The numbers of the states that a process plays, of so many; parts differ by one at most."""
    return range(mine.index * count // mine.count, (mine.index + 1) * count // mine.count)


def played_in_parts(
    states: Sequence[TaskState], first_group: int, play: Play, keep: Callable[[RolloutGroup], None]
) -> tuple[list[RolloutGroup], PlayedWork]:
    """The groups of all processes, in the order of their states, and what playing them asked of all.

    Args:
      play: plays this process's part.
      keep: is told of each group that another process played.
    Raises:
      CannotBegin: no state can be started, in no process.
    """
    part = part_of(len(states), role())
    own: list[RolloutGroup] = []
    refused = ""
    try:
        own = play(states[part.start : part.stop], first_group + part.start) if part else []
    except CannotBegin as error:
        if role().alone:
            raise
        refused = str(error)
    work = played_work(own)
    if role().alone:
        return own, work
    told = [json.loads(part) for part in gathered(_told(own, work, refused))]
    works = [PlayedWork(Work(**one["prefill"]), Work(**one["decode"])) for one in told]
    found: list[RolloutGroup] = []
    for index, one in enumerate(told):
        groups = own if index == role().index else list(map(RolloutGroup.from_json, one["groups"]))
        for group in groups if index != role().index else ():
            keep(group)
        found += groups
    if not found:
        raise CannotBegin(next((one["refused"] for one in told if one["refused"]), "no state can be started"))
    return found, sum(works, PlayedWork())


def _told(own: Sequence[RolloutGroup], work: PlayedWork, refused: str) -> bytes:
    groups = [group.to_json() for group in own]
    return json.dumps({"groups": groups, "refused": refused, **asdict(work)}).encode()
