"""The groups that one update learns from: which states are played, how often again, and what is told of them.

Everything here is a function of (config, number of the update, policy, and the episodes of the update before), so that
a run which was stopped goes on exactly where it was. Each rollout is on the disk as soon as its episode has ended.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ml_collections import ConfigDict

from regrpo_jax.agent.policy import Policy
from regrpo_jax.agent.rollout import Label, Rollout, RolloutGroup
from regrpo_jax.config.base_config import STARTS, stage_section
from regrpo_jax.config.fields import shares_of
from regrpo_jax.data.rollout_buffer import GroupKey, RolloutBuffer, StoredRollouts
from regrpo_jax.data.rollout_credit import CreditSettings, credit_settings, is_learnable
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.rollout_metrics import rollout_metrics, rollouts_of
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings, Expected
from regrpo_jax.rollouts.parted_play import played_in_parts
from regrpo_jax.rollouts.played_work import PlayedWork
from regrpo_jax.rollouts.states import MIDDLE, NEAR_MISS, START, TaskState, with_forced_failures, with_own_states
from regrpo_jax.suites.find import suite_of

_TRAINING_SEEDS = 1_000_000  # suites of updates; far from the seeds that people type for evaluation


@dataclass(frozen=True)
class UpdateGroups:
    """groups: what the update learns from. values: metrics of all that was played for it. tokens: sampled for it.

    work: what was run to play it; None where it was not played here.
    """

    groups: list[RolloutGroup]
    values: dict[str, float | None]
    tokens: int
    work: PlayedWork | None = None


def played_metrics(groups: Sequence[RolloutGroup], credit: CreditSettings) -> dict[str, float | None]:
    """`rollout_metrics` of the groups that began at the beginning of their tasks; others are reported apart.

    forced_recovery: success after a failure that was put there. middle_success, near_miss_recovery: success from states
    that the policy itself came to, after an action that went well, and after one that failed. useful_groups: share of
    all groups that have something to prefer.
    """
    values = rollout_metrics(rollouts_of(group for group in groups if group.start == START))
    apart = {
        "forced_recovery": [group for group in groups if group.forced],
        "middle_success": [group for group in groups if group.start == MIDDLE],
        "near_miss_recovery": [group for group in groups if group.start == NEAR_MISS and not group.forced],
    }
    for name, found in apart.items():
        if found:
            values[name] = rollout_metrics(rollouts_of(found))["success"]
    values["useful_groups"] = sum(_is_useful(group, credit) for group in groups) / len(groups)
    return values


def sampled_tokens(groups: Iterable[RolloutGroup]) -> int:
    """Tokens that the policy sampled, dropped episodes included."""
    return sum(int((rollout.labels >= Label.REFLECTION).sum()) for rollout in rollouts_of(groups))


class GroupPlayer:
    """Plays the updates of a stage, one after another, or beside one another unless it `looks_back`.

    buffer: where all of it is written.
    """

    def __init__(
        self,
        config: ConfigDict,
        environment: Environment,
        buffer: RolloutBuffer,
        settings: CollectSettings,
    ) -> None:
        self._config, self._online = config, config.online
        self._environment, self._buffer, self._settings = environment, buffer, settings
        self._credit = credit_settings(stage_section(config, "online"))
        self._suite = suite_of(config)
        starts = shares_of(config.online.starts, STARTS)
        self._forced = starts.get("forced_failures", 0.0)
        self._shares = {MIDDLE: starts.get("middle_states", 0.0), NEAR_MISS: starts.get("near_misses", 0.0)}
        self._expected: Expected = {}
        self._last: tuple[int, list[RolloutGroup]] = (0, [])  # an update and its groups

    @property
    def looks_back(self) -> bool:
        """Whether groups of an update start where episodes of the update before came to."""
        return any(self._shares.values())

    def play(self, number: int, policy: Policy) -> UpdateGroups:
        """The groups of update `number`.

        Groups that prefer nothing are refilled from further rounds, as many as `config.online.refills` allows.
        """
        online, episodes = self._online, self._own_episodes(number - 1)
        chosen: list[RolloutGroup] = []
        played: list[RolloutGroup] = []
        work = PlayedWork()
        for round_number in range(online.refills + 1):
            found, asked = self._round(number, round_number, self._states(number, round_number, episodes), policy)
            work += asked
            played += found
            chosen += [group for group in found if _is_useful(group, self._credit)]
            if len(chosen) >= online.tasks:
                break
        rest = [group for group in played if all(group is not other for other in chosen)]
        used = (chosen + rest)[: online.tasks]
        self._buffer.add_update(number, [GroupKey(number, group.group) for group in used])
        self._last = (number, used)
        here = None if self._config.player.server else work
        return UpdateGroups(used, played_metrics(played, self._credit), sampled_tokens(played), here)

    def _round(
        self, number: int, round_number: int, states: Sequence[TaskState], policy: Policy
    ) -> tuple[list[RolloutGroup], PlayedWork]:
        """Plays the states; of several processes each plays a part, and the first keeps the books of all."""
        journal = RoundJournal(self._buffer, number)

        def play(part: Sequence[TaskState], first_group: int) -> list[RolloutGroup]:
            return collect_groups(
                self._environment,
                policy,
                part,
                self._settings,
                seed=_seed(self._config.seed, number, round_number),
                first_group=first_group,
                expected=self._expected,
                journal=journal,
            )[0]

        def keep(group: RolloutGroup) -> None:
            journal.begun(group, self._settings.branches)
            for rollout in group.rollouts:
                journal.finished(rollout)

        return played_in_parts(states, round_number * self._online.tasks, play, keep)

    def _states(self, number: int, round_number: int, episodes: Sequence[tuple[Task, Rollout]]) -> list[TaskState]:
        seed = self._config.seed
        states = with_forced_failures(self._tasks(number, round_number), self._forced, seed)
        return with_own_states(states, episodes, self._shares, f"{seed}/{number}/{round_number}")

    def _own_episodes(self, number: int) -> list[tuple[Task, Rollout]]:
        """The episodes of an update that began where their tasks do, if later groups may start from their states."""
        if number < 1 or not self.looks_back:
            return []
        last, groups = self._last
        if last != number:  # this process has only now begun
            groups = _stored_update(self._buffer, number)
        tasks = {task.id: task for again in range(self._online.refills + 1) for task in self._tasks(number, again)}
        return [
            (tasks[group.task_id], rollout)
            for group in groups
            if group.start == START and group.task_id in tasks  # no longer, if the suite was changed since then
            for rollout in group.rollouts
        ]

    def _tasks(self, number: int, round_number: int) -> list[Task]:
        online = self._online
        seed = _TRAINING_SEEDS + _seed(self._config.seed, number, round_number)
        tasks = self._suite.tasks("train", online.tasks, seed)
        return [tasks[number % len(tasks)] for number in range(online.tasks)]  # a small suite's come several times


@dataclass(frozen=True)
class RoundJournal:
    """Writes what is played for an update to the buffer."""

    buffer: RolloutBuffer
    number: int

    def begun(self, group: RolloutGroup, planned: int) -> None:
        self.buffer.add_group(self.number, group, planned=planned)

    def finished(self, rollout: Rollout) -> None:
        self.buffer.add_rollout(self.number, rollout)


def _stored_update(buffer: RolloutBuffer, number: int) -> list[RolloutGroup]:
    stored = StoredRollouts(buffer.folder)
    if number not in stored.updates:
        raise UserError(
            f"{buffer.folder}: the episodes of update {number} are not there, and later ones start from their states; "
            "restore the folder, or leave middle_states and near_misses out of config.online.starts"
        )
    return stored.update(number)


def _is_useful(group: RolloutGroup, credit: CreditSettings) -> bool:
    return bool(group.counted) and is_learnable(group, credit)


def _seed(seed: int, number: int, round_number: int) -> int:
    return (seed * 10_007 + number) * 101 + round_number
