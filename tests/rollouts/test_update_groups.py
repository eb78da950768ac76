"""The groups of updates over the real suite: where they start, what is told of them, what a death leaves of them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from regrpo_jax.agent.policy import Branch, EpisodePrompt
from regrpo_jax.agent.prompt import instruction_text
from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.config.base_config import base_config, stage_section
from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.rollout_buffer import RolloutBuffer, StoredRollouts
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.rollout_metrics import rollout_metrics, rollouts_of
from regrpo_jax.records.types import Status
from regrpo_jax.rollouts import update_groups
from regrpo_jax.rollouts.states import MIDDLE, NEAR_MISS, START, TaskState, with_own_states
from regrpo_jax.rollouts.update_groups import GroupPlayer, UpdateGroups, played_metrics
from regrpo_jax.stages.online import collect_settings
from regrpo_jax.suites.toolrepair import make_suite
from regrpo_jax.suites.toolrepair.suite import ToolRepair
from tests.rollouts.scripted_policy import ScriptedPolicy, ScriptedSession

TASKS, BRANCHES = 8, 3
Play = Callable[..., list[UpdateGroups]]


class Follower(ScriptedPolicy):
    """Branch 0 goes on as the oracle would; the others do so for as many turns as their number, then answer wrongly.

    known: instruction -> task. dies_after: turns.
    """

    def __init__(self, renderer: ChatRenderer, known: dict[str, Task], version: int, dies_after: int) -> None:
        super().__init__(renderer, self._act, version)
        self._known, self._turns_left = known, dies_after
        self._begun: list[tuple[Task, int]] = []

    def start(self, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> ScriptedSession:
        self._begun = [(self._known[prompt.turns[1].content], (len(prompt.turns) - 2) // 2) for prompt in prompts]
        return super().start(prompts, branches, seed)

    def _act(self, branch: Branch, opening: str, number: int) -> str:
        self._turns_left -= 1
        if self._turns_left < 0:
            raise MemoryError("killed")
        task, done = self._begun[branch[0]]
        if number >= branch[1] > 0:
            return ' done.\n\nCode:\n```py\nfinal_answer("wrong")\n```'
        return task.oracle[min(done + number, len(task.oracle) - 1)].turn().removeprefix(opening)


@pytest.fixture
def play(environment: Environment, reader: ConversationReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Plays these updates as one start of the program does, by a policy without reflections."""
    known: dict[str, Task] = {}

    class Remembered(ToolRepair):
        def tasks(self, split: str, count: int, seed: int) -> list[Task]:
            made = super().tasks(split, count, seed)
            known.update({instruction_text(task.instruction, task.images): task for task in made})
            return made

    def started(*numbers: int, dies_after: int = 10**9, **changes: Any) -> list[UpdateGroups]:
        config = base_config()
        config.agent.update({"turn_tokens": 400, "episode_tokens": 3000})
        config.online.update({"algorithm": "grpo", "tasks": TASKS})
        config.online.update(changes)
        renderer = ChatRenderer(reader.renderer.tokenizer)
        with RolloutBuffer(tmp_path / "rollouts") as buffer:
            player = GroupPlayer(
                config,
                environment,
                buffer,
                collect_settings(config, tmp_path, None, branches=BRANCHES),
            )
            return [player.play(number, Follower(renderer, known, number - 1, dies_after)) for number in numbers]

    suite = Remembered(families=("moved", "service"), surprises=1.0)
    monkeypatch.setattr(update_groups, "suite_of", lambda config: suite)
    return started


def plain(groups: Sequence[RolloutGroup]) -> str:
    return json.dumps([{**group.to_json(), "image_files": []} for group in groups])


def test_what_has_ended_when_the_process_dies_is_on_the_disk(play: Play, tmp_path: Path) -> None:
    with pytest.raises(MemoryError, match="killed"):
        play(1, dies_after=2 * TASKS * BRANCHES + TASKS)  # in the middle of the third turns
    left = StoredRollouts(tmp_path / "rollouts")
    assert not left.keys and len(left.unfinished) == TASKS and not left.updates
    (again,) = play(1)
    stored = StoredRollouts(tmp_path / "rollouts")
    assert not stored.unfinished and plain(stored.update(1)) == plain(again.groups)
    (once,) = play(1)
    assert plain(once.groups) == plain(again.groups)
    for key in left.unfinished:
        survived = left.group(key).rollouts
        assert survived and all(rollout.outcome == "answered" for rollout in survived)
        whole = {rollout.branch: rollout for rollout in stored.group(key).rollouts}
        assert all(rollout.to_json() == whole[rollout.branch].to_json() for rollout in survived)


def test_groups_start_from_states_of_the_update_before(play: Play, tmp_path: Path) -> None:
    shares = {"starts": ("middle_states=0.3", "near_misses=0.3")}
    first, second = play(1, 2, **shares)
    assert {group.start for group in first.groups} == {START}
    found = {start: [group for group in second.groups if group.start == start] for start in (START, MIDDLE, NEAR_MISS)}
    assert all(found.values()) and not any(group.forced for group in second.groups)
    own = {(group.task_id, turn.text) for group in first.groups for r in group.rollouts for turn in r.turns}
    for group in [*found[MIDDLE], *found[NEAR_MISS]]:
        assert group.task_id in {task for task, _ in own}
        assert group.rollouts[0].success, "the oracle goes on from there"
    assert not {group.task_id for group in found[START]} & {task for task, _ in own}

    values = second.values
    assert values["success"] == rollout_metrics(rollouts_of(found[START]))["success"]
    assert values["episodes"] == BRANCHES * len(found[START])
    assert values["middle_success"] == rollout_metrics(rollouts_of(found[MIDDLE]))["success"]
    assert values["near_miss_recovery"] == rollout_metrics(rollouts_of(found[NEAR_MISS]))["success"]
    assert "middle_success" not in first.values and "forced_recovery" not in values

    (resumed,) = play(2, **shares)  # a new start reads the episodes of update 1 from the disk
    assert plain(resumed.groups) == plain(second.groups) and resumed.values == values
    with pytest.raises(UserError, match="the episodes of update 6 are not there"):
        play(7, **shares)


def test_forced_failures_stay_forced_and_apart(play: Play) -> None:
    _, second = play(1, 2, starts=("near_misses=0.9", "forced_failures=0.5"))
    forced = [group for group in second.groups if group.forced]
    own = [group for group in second.groups if group.start == NEAR_MISS and not group.forced]
    assert forced and own
    assert second.values["forced_recovery"] == rollout_metrics(rollouts_of(forced))["success"]
    assert second.values["near_miss_recovery"] == rollout_metrics(rollouts_of(own))["success"]
    everything_apart = played_metrics(forced, update_groups.credit_settings(stage_section(base_config(), "online")))
    assert everything_apart["episodes"] == 0 and everything_apart["success"] is None


def test_own_states_are_drawn_by_the_seed_and_each_task_once(play: Play) -> None:
    (first,) = play(1)
    tasks = make_suite("train", TASKS, 5, surprises=1.0, chosen=("moved",))
    episodes = [(task, group.rollouts[0]) for task, group in zip(tasks, first.groups, strict=True)]
    states = [TaskState(task) for task in make_suite("train", 40, 6, chosen=("moved",))]
    drawn = with_own_states(states, episodes, {MIDDLE: 0.5, NEAR_MISS: 0.5}, "3/1/0")
    assert drawn == with_own_states(states, episodes, {MIDDLE: 0.5, NEAR_MISS: 0.5}, "3/1/0")
    assert drawn != with_own_states(states, episodes, {MIDDLE: 0.5, NEAR_MISS: 0.5}, "3/2/0")
    for start in (MIDDLE, NEAR_MISS):
        chosen = [state.task.id for state in drawn if state.start == start]
        assert 0 < len(chosen) == len(set(chosen)) <= TASKS
    assert any(state.start == START for state in drawn), "there are fewer states than tasks"
    assert with_own_states(states, [], {MIDDLE: 1.0}, "3/1/0") == states
    fallen = next(state for state in drawn if state.start == NEAR_MISS)
    played = next(rollout for task, rollout in episodes if task.id == fallen.task.id)
    assert played.turns[len(fallen.before) - 1].status != Status.OK
    shares = [random.Random(seed).random() for seed in range(20)]
    few = [sum(s.start == MIDDLE for s in with_own_states(states[:1], episodes, {MIDDLE: 0.3}, str(x))) for x in shares]
    assert 0 < sum(few) < 20
