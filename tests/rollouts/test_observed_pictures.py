"""Episodes whose tools make pictures, played by the sampler: its log-probs are those of a fresh scoring pass."""

from __future__ import annotations

import dataclasses
import functools
import io
import random
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from regrpo_jax.agent.loop import EpisodeLoop, Move, Played
from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.policy import EpisodePrompt, Told, WriteRequest
from regrpo_jax.agent.prompt import instruction_text
from regrpo_jax.agent.rollout import Label, Rollout, RolloutGroup, check_rollout
from regrpo_jax.agent.shown_pictures import PictureLimits, shown_pictures
from regrpo_jax.data.online_batches import OnlineBatch, collate_rollouts, image_paths, lacks_images, with_images
from regrpo_jax.data.rollout_credit import CreditSettings
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.records.types import ImageReference, Status, Turn
from regrpo_jax.rollouts import sampler_policy
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy
from regrpo_jax.training.steps import group_scores

LIMITS = PictureLimits(of_observation=3, of_episode=4)
BRANCHES, WIDTH, STEPS = 6, 256, 4
RULES = LoopSettings(gate="failure", retries=8, max_steps=STEPS, turn_tokens=24, episode_tokens=300)
SIZES = ((28, 28), (112, 28), (56, 140), (84, 84))


def png(seed: int) -> bytes:
    """A picture of noise that has as many tokens as its size says, a few of them enlarged."""
    width, height = SIZES[seed % len(SIZES)]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, format="PNG")
    return stream.getvalue()


def made_at(chance: random.Random, branch: int) -> list[tuple[str, bytes]]:
    """What an action wrote: none, some, often the same as others did; the last branch never writes any."""
    count = (1, 1, 2, 3, chance.choice([0, 1]), 0)[branch]
    return [(f"card {number}.png", png(chance.randrange(6))) for number in range(count)]


def play(policy: SamplerPolicy, folder: Path) -> list[RolloutGroup]:
    """Two groups of episodes, one of them about a picture."""
    chance = random.Random(5)
    (folder / "task").mkdir(parents=True)
    path = folder / "task" / "seen.png"
    path.write_bytes(png(77))
    asked = [
        Told(instruction_text("find it.", ["seen.png"]), (ImageReference("<image_00>", str(path)),)),
        Told(instruction_text("say it.", [])),
    ]
    prompts = [
        EpisodePrompt((Turn("system", "Call one tool at each step."), Turn("user", told.text)), told.images, number)
        for number, told in enumerate(asked)
    ]
    session = policy.start(prompts, BRANCHES, seed=2)
    loops = {
        (group, branch): EpisodeLoop(RULES, None, asked[group]) for group in range(2) for branch in range(BRANCHES)
    }
    shown = dict.fromkeys(loops, 0)
    rollouts: dict[tuple[int, int], Rollout] = {}
    while live := [branch for branch, loop in loops.items() if branch not in rollouts]:
        turns = session.write([WriteRequest(branch, loops[branch].opening(), loops[branch].budget) for branch in live])
        for branch, turn in zip(live, turns, strict=True):
            if loops[branch].write_down(turn) is not Move.PLAY:
                continue
            pictures, note = shown_pictures(made_at(chance, branch[1]), LIMITS, folder / "shown", shown[branch])
            shown[branch] += len(pictures)
            status = chance.choice([Status.OK, Status.EMPTY])
            loops[branch].observed(Played(status, chance.choice(["17", ""]), pictures=pictures, note=note))
        going_on = [branch for branch in live if not loops[branch].done]
        told = session.observe([(branch, loops[branch].user_turn()) for branch in going_on])
        for branch, heard in zip(going_on, told, strict=True):
            loops[branch].heard(heard)
        ended = [branch for branch in live if loops[branch].done]
        session.finish(ended)
        for branch in ended:
            group, number = branch
            rollouts[branch] = loops[branch].rollout(
                task_id=f"t{group}", group=group, branch=number, policy_version=0, seed=2
            )
            check_rollout(rollouts[branch])
    return [
        RolloutGroup(
            group=group,
            task_id=f"t{group}",
            family="made up",
            error_type="",
            prefix=session.prefixes[group].tokens,
            positions=session.prefixes[group].positions,
            images=session.prefixes[group].images,
            image_files=asked[group].images,
            rollouts=tuple(rollouts[group, branch] for branch in range(BRANCHES)),
        )
        for group in range(2)
    ]


@pytest.fixture(scope="module")
def policy(sampler: SamplerPolicy) -> SamplerPolicy:
    """For short prompts, which compile faster."""
    return dataclasses.replace(sampler, prefix_buckets=(128,), branch_tokens=WIDTH)


@pytest.fixture(scope="module")
def played(policy: SamplerPolicy, tmp_path_factory: pytest.TempPathFactory) -> list[RolloutGroup]:
    return play(policy, tmp_path_factory.mktemp("played"))


def collate(groups: list[RolloutGroup], policy: SamplerPolicy) -> OnlineBatch:
    reader = policy.reader
    return collate_rollouts(
        [with_images(group, reader.settings, reader.vision) if lacks_images(group) else group for group in groups],
        rows=2,
        branches=BRANCHES,
        credit=CreditSettings("step", "shared", normalize=True),
        policy_version=0,
        image_token_id=reader.renderer.image_token_id,
        prefix_buckets=(128,),
        branch_buckets=(WIDTH,),
    )


@functools.partial(jax.jit, static_argnums=0)
def scored(functions: PolicyFunctions, variables: dict[str, Any], batch: OnlineBatch) -> jax.Array:
    """Log-probs of scored tokens, as the trainer has them.  # [group, branch, token]"""
    return group_scores(functions, variables, batch, None, chunk_size=512).logprobs


def largest_difference(groups: list[RolloutGroup], policy: SamplerPolicy) -> tuple[float, int]:
    """Between sampled and freshly scored log-probs of all sampled tokens, and how many there are."""
    batch = collate(groups, policy)
    segments = np.zeros_like(batch.segments)
    for row, group in enumerate(groups):
        for column, rollout in enumerate(group.rollouts):
            segments[row, column, : len(rollout.tokens)] = rollout.trained
    batch = dataclasses.replace(batch, segments=segments)
    fresh, largest, compared = np.asarray(scored(policy.functions, policy.variables, batch)), 0.0, 0
    for row, group in enumerate(groups):
        for column, rollout in enumerate(group.rollouts):
            sampled = np.flatnonzero(rollout.trained)
            differences = np.abs(fresh[row, column][sampled] - rollout.logprobs[sampled])
            largest, compared = max(largest, float(differences.max(initial=0))), compared + len(sampled)
    return largest, compared


def test_logprobs_are_those_of_a_fresh_scoring_pass(played: list[RolloutGroup], policy: SamplerPolicy) -> None:
    largest, compared = largest_difference(played, policy)
    assert largest < 1e-4 and compared > 300
    counts = [[len(rollout.image_files) for rollout in group.rollouts] for group in played]
    different = {count for group in counts for count in group}
    assert all(group[-1] == 0 for group in counts) and max(different) == 4 and len(different - {0}) > 2
    paths = [image.path for group in played for rollout in group.rollouts for image in rollout.image_files]
    assert len(set(paths)) < len(paths), "some are shown in several branches"
    assert [len(image_paths(group)) for group in played][0] > 1


def test_other_pictures_would_be_noticed(played: list[RolloutGroup], policy: SamplerPolicy) -> None:
    """With the tools' pictures inverted the log-probs of what was sampled after them differ."""
    group = played[0]
    wrong = with_images(group, policy.reader.settings, policy.reader.vision)
    assert wrong.images is not None
    patches = wrong.images.patches.copy()
    patches[wrong.images.segment_ids > 1] *= -1
    wrong = dataclasses.replace(wrong, images=dataclasses.replace(wrong.images, patches=patches))
    assert largest_difference([wrong, played[1]], policy)[0] > 1e-3


def test_one_chunk_width_or_another_is_no_difference(
    policy: SamplerPolicy, played: list[RolloutGroup], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Observations fed in the wide chunk, which holds whole pictures, or in the narrow one, which cuts them."""
    monkeypatch.setattr(sampler_policy, "WIDE_CHUNK", 32)
    again = play(policy, tmp_path)
    for one, other in zip(played, again, strict=True):
        for left, right in zip(one.rollouts, other.rollouts, strict=True):
            np.testing.assert_array_equal(left.tokens, right.tokens)
            np.testing.assert_allclose(left.logprobs, right.logprobs, atol=1e-4)


def test_dropped_rollouts_leave_no_picture(played: list[RolloutGroup], policy: SamplerPolicy) -> None:
    """Nothing of theirs is read, even if the file is gone."""
    gone = tuple(ImageReference(image.placeholder, "/nowhere.png") for image in played[0].rollouts[0].image_files)
    first = dataclasses.replace(played[0].rollouts[0], dropped=True, image_files=gone)
    group = dataclasses.replace(played[0], rollouts=(first, *played[0].rollouts[1:]))
    batch = collate([group, played[1]], policy)
    assert not batch.branches.segment_ids[0, 0].any() and not batch.segments[0, 0].any()
    assert np.all(batch.branches.image_index[0, 0] == -1)
    assert largest_difference([group, played[1]], policy)[0] < 1e-4


def test_image_tokens_are_observation_and_never_trained(played: list[RolloutGroup], policy: SamplerPolicy) -> None:
    image = policy.reader.renderer.image_token_id
    batch = collate(played, policy)
    for row, group in enumerate(played):
        for column, rollout in enumerate(group.rollouts):
            is_image = rollout.tokens == image
            assert np.all(rollout.labels[is_image] == Label.OBSERVATION)
            assert not batch.segments[row, column, : len(rollout.tokens)][is_image].any()
            fed = batch.branches.tokens[row, column] == image
            np.testing.assert_array_equal(batch.branches.image_index[row, column] >= 0, fed)
