"""The sampler as a player: its log-probs are those of a fresh scoring pass, whoever stands in which row."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.policy import EpisodePrompt, Told, WriteRequest
from regrpo_jax.agent.prompt import instruction_text, observation_text, system_text
from regrpo_jax.agent.rollout import Label, RolloutGroup
from regrpo_jax.data.batches import collate_groups
from regrpo_jax.data.chat import Segment
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.engine.tool_shapes import loaded_tools
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.task import Task
from regrpo_jax.errors import UserError
from regrpo_jax.models.drawing import draw_compiled
from regrpo_jax.records.types import Turn
from regrpo_jax.rollouts.collect import collect_groups
from regrpo_jax.rollouts.collect_settings import CollectSettings
from regrpo_jax.rollouts.live_rows import arranged, row_count, slot_count
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy
from regrpo_jax.rollouts.token_text import TokenText
from regrpo_jax.suites.toolrepair import LOADERS
from regrpo_jax.training.steps import group_scores

WIDTH = 384


@pytest.fixture(scope="module")
def collected(
    environment: Environment, sampler: SamplerPolicy, tasks: list[Task], tmp_path_factory: pytest.TempPathFactory
) -> list[RolloutGroup]:
    settings = rules(tmp_path_factory.mktemp("images"))
    groups, counts = collect_groups(environment, sampler, tasks, settings, seed=1)
    assert not counts.refused and not counts.dropped
    return groups


def rules(folder: Path) -> CollectSettings:
    loop = LoopSettings(gate="paper", retries=3, max_steps=4, turn_tokens=40, episode_tokens=300)
    return CollectSettings(loop, branches=3, tools=loaded_tools(LOADERS["compact"]), brief=True, image_folder=folder)


def books(groups: list[RolloutGroup]) -> list[tuple[list[int], list[int]]]:
    return [(one.tokens.tolist(), one.labels.tolist()) for group in groups for one in group.rollouts]


def test_logprobs_are_those_of_a_fresh_scoring_pass(collected: list[RolloutGroup], sampler: SamplerPolicy) -> None:
    renderer = sampler.reader.renderer
    groups = [as_training_group(group) for group in collected]
    nothing = [np.zeros((len(group.branches), WIDTH), np.float32) for group in groups]
    batch = collate_groups(
        groups, nothing, image_token_id=renderer.image_token_id, prefix_buckets=(512,), branch_buckets=(WIDTH,)
    )
    scores = group_scores(sampler.functions, sampler.variables, batch, None, chunk_size=512)
    fresh = np.asarray(scores.logprobs)  # [group, branch, token]
    compared = several = 0
    for row, group in enumerate(collected):
        for column, rollout in enumerate(group.rollouts):
            length = len(rollout.tokens)
            np.testing.assert_allclose(fresh[row, column, :length], rollout.logprobs, atol=1e-4)
            compared += int(rollout.trained.sum())
            several += len(rollout.turns) > 1
    assert compared > 300 and several > 10
    assert any(group.images is not None and len(group.images.patches) for group in collected)


def as_training_group(group: RolloutGroup) -> Group:
    branches = []
    for rollout in group.rollouts:
        kinds = np.where(rollout.labels == Label.REFLECTION, Segment.REFLECTION, Segment.ACTION)
        segments = np.where(rollout.trained, kinds, Segment.NONE).astype(np.int8)
        branches.append(Branch("rollout", rollout.tokens, segments, rollout.success, 0.0))
    return Group(group.task_id, group.prefix, group.positions, group.images, tuple(branches))


def test_the_tokens_are_what_was_said_and_heard(collected: list[RolloutGroup], sampler: SamplerPolicy) -> None:
    tokenizer = sampler.reader.renderer.tokenizer
    banned = set(sampler.sampling.banned_ids)
    for group in collected:
        for rollout in group.rollouts:
            assert not banned & set(rollout.tokens[rollout.trained].tolist())
            said = ""
            for number, turn in enumerate(rollout.turns):
                said += turn.text
                if turn.status is not None:
                    said += "<|im_end|>"
                if number + 1 < len(rollout.turns):
                    heard = observation_text(number, turn.observation)
                    said += f"\n<|im_start|>user\n{heard}<|im_end|>\n<|im_start|>assistant\n"
            decoded = tokenizer.decode(rollout.tokens, clean_up_tokenization_spaces=False)
            assert decoded.startswith(said) and "<|im_start|>assistant\n" not in decoded[len(said) :].rstrip("\n")[:-30]
            assert rollout.turns[0].text.startswith("Thought:")


def test_the_same_seed_gives_the_same_rollouts(
    environment: Environment, sampler: SamplerPolicy, tasks: list[Task], collected: list[RolloutGroup], tmp_path: Path
) -> None:
    compiled = draw_compiled._cache_size()
    again, _ = collect_groups(environment, sampler, tasks, rules(tmp_path), seed=1)
    assert draw_compiled._cache_size() == compiled
    assert books(again) == books(collected)
    for one, other in zip(again, collected, strict=True):
        for left, right in zip(one.rollouts, other.rollouts, strict=True):
            np.testing.assert_array_equal(left.logprobs, right.logprobs)
    different, _ = collect_groups(environment, sampler, tasks, rules(tmp_path), seed=2)
    assert books(different) != books(collected)


def test_a_group_draws_the_same_in_other_company_and_other_rows(
    environment: Environment, sampler: SamplerPolicy, tasks: list[Task], collected: list[RolloutGroup], tmp_path: Path
) -> None:
    alone = dataclasses.replace(sampler, lanes=1)
    part, _ = collect_groups(environment, alone, tasks[4:6], rules(tmp_path), seed=1, first_group=4)
    assert books(part) == books(collected[4:6])
    for one, other in zip(part, collected[4:6], strict=True):
        for left, right in zip(one.rollouts, other.rollouts, strict=True):
            np.testing.assert_allclose(left.logprobs, right.logprobs, atol=1e-5)


def test_branches_say_different_things(collected: list[RolloutGroup]) -> None:
    assert all(len({tuple(one.tokens) for one in group.rollouts}) > 1 for group in collected)


def test_what_has_no_room_or_cannot_be_said_is_told(sampler: SamplerPolicy, tasks: list[Task]) -> None:
    task = next(task for task in tasks if not task.images)
    turns = (
        Turn("system", system_text(task.tools, loaded_tools(LOADERS["compact"]), brief=True)),
        Turn("user", instruction_text(task.instruction, ())),
    )
    session = sampler.start([EpisodePrompt(turns, (), 0)], 2, seed=0)
    branches = [(0, 0), (0, 1)]
    written = session.write([WriteRequest(branch, "Thought:", 3) for branch in branches])
    assert all(len(turn.tokens) <= 3 for turn in written)
    spelt, long, fine = session.observe(
        [((0, 0), Told("a <|im_end|> b")), ((0, 0), Told("a b c " * 300)), ((0, 1), Told("17"))]
    )
    assert spelt is None and long is None and fine is not None
    session.finish([(0, 0)])
    room = sampler.branch_tokens - len(written[1].tokens) - len(written[1].opening) - len(fine.tokens)
    last = session.write([WriteRequest((0, 1), "", 10_000)])[0]
    assert last.finished or len(last.tokens) == room


def test_a_prompt_that_is_too_long_names_the_setting(
    environment: Environment, sampler: SamplerPolicy, tasks: list[Task], tmp_path: Path
) -> None:
    small = dataclasses.replace(sampler, prefix_buckets=(64,))
    with pytest.raises(UserError, match="prefix_buckets"):
        collect_groups(environment, small, tasks[:1], rules(tmp_path), seed=1)


def test_rows_hold_branches_of_one_group() -> None:
    live = [(0, 0), (2, 1), (0, 2), (0, 3), (2, 0)]
    rows = arranged(live, 2)
    assert rows.branches == (((0, 0), (0, 2)), ((0, 3),), ((2, 1), (2, 0)), ())
    assert set(rows.places) == set(live)
    assert len(arranged(live, 2, most=64).branches) == 4 and len(arranged(live, 2, most=8).branches) == 8
    assert [row_count(needed, 64) for needed in (1, 4, 5, 16, 17, 64)] == [1, 4, 16, 16, 64, 64]
    assert [slot_count(needed) for needed in (1, 64, 65, 200)] == [64, 64, 128, 256]


def test_text_of_tokens_and_where_each_begins(sampler: SamplerPolicy) -> None:
    tokenizer = sampler.reader.renderer.tokenizer
    for text in ('Thought: read("a").', "思考 🤷🏽‍♀️ ünï", ""):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        found, starts = TokenText(tokenizer).text_of(tokens)
        assert found == text and len(starts) == len(tokens)
        assert np.all(np.diff(starts) >= 0) and (not len(starts) or starts[0] == 0)
        for number, start in enumerate(starts):
            assert text.startswith(tokenizer.decode(tokens[:number]).rstrip("\ufffd")) and start <= len(text)
    half = tokenizer("思", add_special_tokens=False)["input_ids"]
    assert TokenText(tokenizer).text_of(half[:1])[0] == "\ufffd"
