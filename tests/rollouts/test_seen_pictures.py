"""Episodes whose failure is a picture, over the real suite: what is shown, judged, kept and learnt from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from regrpo_jax.agent.policy import Branch, EpisodePrompt, Heard, Prefix, Told
from regrpo_jax.agent.prompt import instruction_text
from regrpo_jax.agent.rollout import Opener, RolloutGroup
from regrpo_jax.agent.shown_pictures import PictureLimits
from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.online_batches import collate_rollouts, image_paths, with_images
from regrpo_jax.data.rollout_buffer import GroupKey, RolloutBuffer, StoredRollouts
from regrpo_jax.data.rollout_credit import CreditSettings
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.rollout_metrics import rollout_metrics, rollouts_of
from regrpo_jax.records.reflection import render_reflection
from regrpo_jax.rollouts import update_groups
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.rollouts.states import NEAR_MISS, TaskState
from regrpo_jax.rollouts.update_groups import GroupPlayer, UpdateGroups
from regrpo_jax.stages.online import collect_settings, picture_limits
from regrpo_jax.suites.toolrepair import make_task
from regrpo_jax.suites.toolrepair.suite import ToolRepair
from tests.data.test_rollout_buffer import check_equal
from tests.rollouts.scripted_policy import ScriptedPolicy, ScriptedSession
from tests.rollouts.test_update_groups import Follower

ORACLE, DIRECT, SILENT, HASTY = range(4)


@dataclasses.dataclass
class SeeingSession(ScriptedSession):
    """Tokens of what it is told come from the reader that training uses, pictures among them."""

    reader: ConversationReader | None = None

    def observe(self, observations: Sequence[tuple[Branch, Told]]) -> list[Heard | None]:
        assert self.reader is not None
        return [self.reader.read_told(told)[0] for _, told in observations]


@dataclasses.dataclass
class SeeingPolicy(ScriptedPolicy):
    """See `SeeingSession`."""

    reader: ConversationReader | None = None

    def start(self, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> SeeingSession:
        assert self.reader is not None
        prefixes = [Prefix(*self.reader.read_prompt(prompt.turns, prompt.images)) for prompt in prompts]
        return SeeingSession(self.renderer, self.script, prefixes, np.random.default_rng(seed), reader=self.reader)


@pytest.fixture(scope="module")
def zooms() -> list[Task]:
    """With a blank place first."""
    return [make_task("zoom", "train", seed, 1, surprises=1.0) for seed in range(2)]


class Actors:
    """Follow the oracle; go to the right place at once; repair without a reflection; answer what they did not see."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._tasks = tasks

    def __call__(self, branch: Branch, opening: str, number: int) -> str:
        miss, repair, answer = self._tasks[branch[0]].oracle
        bare = dataclasses.replace(repair, reflection=None)
        steps = {
            ORACLE: (miss, repair, answer),
            DIRECT: (bare, answer),
            SILENT: (miss, bare, answer),
            HASTY: (miss, answer),
        }[branch[1]]
        step = steps[number]
        assert not opening or step.reflection is None, "nobody but the policy opens a block here"
        block = "" if step.reflection is None else render_reflection(step.reflection)
        return (block + dataclasses.replace(step, reflection=None).turn()).removeprefix(opening)


@pytest.fixture
def seeing(settings: CollectSettings) -> CollectSettings:
    loop = dataclasses.replace(settings.loop, turn_tokens=400, episode_tokens=3000, max_steps=8)
    return dataclasses.replace(settings, branches=4, loop=loop, pictures=PictureLimits())


def play(
    environment: Environment, reader: ConversationReader, states: Sequence[Task | TaskState], settings: CollectSettings
) -> list[RolloutGroup]:
    tasks = [state.task if isinstance(state, TaskState) else state for state in states]
    policy = SeeingPolicy(reader.renderer, Actors(tasks), reader=reader)
    return collect_groups(environment, policy, states, settings, seed=0)[0]


def test_a_picture_is_seen_and_judged_and_nobody_is_told(
    environment: Environment, reader: ConversationReader, zooms: list[Task], seeing: CollectSettings
) -> None:
    for group in play(environment, reader, zooms, seeing):
        oracle, direct, silent, hasty = group.rollouts
        assert [r.success for r in group.rollouts] == [True, True, True, True], "the script knows the colour"
        assert [turn.right for turn in oracle.turns] == [False, True, True]
        assert [turn.step for turn in oracle.turns] == [0, 0, 1] == [turn.step for turn in silent.turns]
        assert [turn.right for turn in silent.turns] == [False, True, True]
        assert [turn.step for turn in direct.turns] == [0, 1] and direct.first_attempt_success
        assert oracle.failed and silent.failed and hasty.failed and not direct.failed
        block = oracle.turns[1]
        assert block.reflection == Opener.POLICY and block.grounded and not block.needless
        assert [len(turn.images) for turn in oracle.turns] == [1, 1, 0]
        assert [len(rollout.image_files) for rollout in group.rollouts] == [2, 1, 2, 1]
        assert oracle.turns[0].images == silent.turns[0].images and len(image_paths(group)) == 3
        assert all(Path(path).read_bytes()[:4] == b"\x89PNG" for path in image_paths(group)[1:])
        assert all(str(turn.status) == "ok" for rollout in group.rollouts for turn in rollout.turns)
    metrics = rollout_metrics(rollouts_of(play(environment, reader, zooms, seeing)))
    assert metrics["recovery"] == 1.0 and metrics["first_attempt_success"] == 0.25 and metrics["needless"] == 0.0


def test_blind_ones_are_judged_by_what_their_tools_made(
    environment: Environment, reader: ConversationReader, zooms: list[Task], seeing: CollectSettings
) -> None:
    blind = dataclasses.replace(seeing, pictures=PictureLimits(blind=True))
    for group in play(environment, reader, zooms, blind):
        oracle = group.rollouts[ORACLE]
        assert [turn.right for turn in oracle.turns] == [False, True, True]
        assert oracle.turns[0].images[0].path == oracle.turns[1].images[0].path, "black is black"
        assert not oracle.turns[1].grounded


def test_pictures_that_are_not_shown_are_told(
    environment: Environment, reader: ConversationReader, zooms: list[Task], seeing: CollectSettings
) -> None:
    few = dataclasses.replace(seeing, pictures=PictureLimits(of_observation=4, of_episode=1))
    none = dataclasses.replace(seeing, pictures=PictureLimits(0, 0))
    for group in play(environment, reader, zooms, few):
        first, second, _ = group.rollouts[ORACLE].turns
        assert len(first.images) == 1 and not second.images
        assert "(not shown, as an episode shows at most 1 pictures: zoom_" in second.observation
    for group in play(environment, reader, zooms, none):
        assert not any(rollout.image_files for rollout in group.rollouts)
        assert "(pictures are not shown here: zoom_" in group.rollouts[ORACLE].turns[0].observation


def test_a_state_behind_a_picture_has_it_in_its_prompt(
    environment: Environment, reader: ConversationReader, zooms: list[Task], seeing: CollectSettings
) -> None:
    states = [TaskState(task, (task.oracle[0].turn(),), "middle") for task in zooms]

    def script(branch: Branch, opening: str, number: int) -> str:
        _, repair, answer = zooms[branch[0]].oracle
        return dataclasses.replace((repair, answer)[number], reflection=None).turn().removeprefix(opening)

    policy = SeeingPolicy(reader.renderer, script, reader=reader)
    groups, _ = collect_groups(environment, policy, states, dataclasses.replace(seeing, branches=2), seed=0)
    for group in groups:
        assert [image.placeholder for image in group.image_files] == ["<image_00>", "<image_01>"]
        assert len(group.images.merged_grids) == 2
        assert all(len(r.image_files) == 1 and r.image_files[0].placeholder == "<image_02>" for r in group.rollouts)
        assert all(rollout.success for rollout in group.rollouts)


def test_what_was_kept_is_learnt_from_bit_for_bit(
    environment: Environment, reader: ConversationReader, zooms: list[Task], seeing: CollectSettings, tmp_path: Path
) -> None:
    groups = play(environment, reader, zooms, seeing)
    with RolloutBuffer(tmp_path / "buffer") as buffer:
        for group in groups:
            buffer.add_group(1, group, planned=4)
            for rollout in group.rollouts:
                buffer.add_rollout(1, rollout)
        buffer.add_update(1, [GroupKey(1, group.group) for group in groups])
    for group in groups:
        for path in image_paths(group):
            Path(path).unlink()
    stored = StoredRollouts(tmp_path / "buffer").update(1)

    def batch(found: Sequence[RolloutGroup]) -> object:
        return collate_rollouts(
            [with_images(group, reader.settings, reader.vision) for group in found],
            rows=2,
            branches=4,
            credit=CreditSettings("step", "own", normalize=True),
            policy_version=3,
            image_token_id=reader.renderer.image_token_id,
            prefix_buckets=(512,),
            branch_buckets=(512,),
        )

    first = batch(stored)
    again = batch(StoredRollouts(tmp_path / "buffer").update(1))
    check_equal(first, again)
    for group, kept in zip(groups, stored, strict=True):
        assert [len(rollout.image_files) for rollout in kept.rollouts] == [2, 1, 2, 1]
        assert [r.tokens.tolist() for r in kept.rollouts] == [r.tokens.tolist() for r in group.rollouts]
        names = [Path(image.path).name for rollout in group.rollouts for image in rollout.image_files]
        assert names == [Path(image.path).name for rollout in kept.rollouts for image in rollout.image_files]


def test_a_template_without_a_place_for_them_is_refused(reader: ConversationReader) -> None:
    config = base_config()
    assert picture_limits(config, reader) == PictureLimits(4, 16, 401_408)
    assert picture_limits(config, dataclasses.replace(reader, settings=None, vision=None)).of_observation == 0
    tokenizer = reader.renderer.tokenizer
    before = tokenizer.chat_template
    try:
        tokenizer.chat_template = (
            "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.content is string %}{{ m.content }}{% else %}"
            "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}{% endif %}"
            "<|im_end|>\n"
            "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
        )
        dropping = dataclasses.replace(reader, renderer=ChatRenderer(tokenizer, True, reader.renderer.image_token))
        with pytest.raises(UserError, match="no place for a picture in the user turn after an action; set config"):
            picture_limits(config, dropping)
        config.agent.observation_images = (0, 0, 1)
        assert picture_limits(config, dropping).of_observation == 0
    finally:
        tokenizer.chat_template = before


class SeeingFollower(Follower):
    """A `Follower` that is told of pictures."""

    def __init__(self, reader: ConversationReader, known: dict[str, Task], dies_after: int) -> None:
        super().__init__(reader.renderer, known, 0, dies_after)
        self._reader = reader

    def start(self, prompts: Sequence[EpisodePrompt], branches: int, seed: int) -> SeeingSession:
        super().start([dataclasses.replace(prompt, images=()) for prompt in prompts], branches, seed)
        prefixes = [Prefix(*self._reader.read_prompt(prompt.turns, prompt.images)) for prompt in prompts]
        return SeeingSession(self.renderer, self.script, prefixes, np.random.default_rng(seed), reader=self._reader)


def test_a_new_start_after_a_death_plays_the_same_with_pictures(
    environment: Environment, reader: ConversationReader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: dict[str, Task] = {}

    class Remembered(ToolRepair):
        def tasks(self, split: str, count: int, seed: int) -> list[Task]:
            made = super().tasks(split, count, seed)
            known.update({instruction_text(task.instruction, task.images): task for task in made})
            return made

    monkeypatch.setattr(update_groups, "suite_of", lambda config: Remembered(families=("zoom",), surprises=1.0))
    config = base_config()
    config.agent.update({"turn_tokens": 400, "episode_tokens": 3000})
    config.online.update({"tasks": 4, "starts": ("near_misses=0.5",)})

    def played(*numbers: int, folder: str, dies_after: int = 10**9) -> list[UpdateGroups]:
        work = tmp_path / folder
        with RolloutBuffer(work / "rollouts") as buffer:
            settings = collect_settings(config, work, reader, branches=2)
            player = GroupPlayer(config, environment, buffer, settings)
            return [player.play(number, SeeingFollower(reader, known, dies_after)) for number in numbers]

    def plain(groups: Sequence[RolloutGroup], folder: str) -> str:
        return json.dumps([group.to_json() for group in groups]).replace(str(tmp_path / folder), "")

    whole = played(1, 2, folder="whole")
    with pytest.raises(MemoryError):
        played(1, folder="cut", dies_after=10)
    first = played(1, folder="cut")
    with pytest.raises(MemoryError):
        played(2, folder="cut", dies_after=5)
    again = [*first, *played(2, folder="cut")]
    for one, other in zip(whole, again, strict=True):
        assert plain(one.groups, "whole") == plain(other.groups, "cut")
    assert any(group.start == NEAR_MISS for group in again[1].groups), "a state behind a picture that missed"
    assert any(rollout.image_files for group in again[1].groups for rollout in group.rollouts)
    stored = StoredRollouts(tmp_path / "cut" / "rollouts")
    assert [plain(stored.update(number), "cut") for number in (1, 2)] == [plain(one.groups, "cut") for one in again]
