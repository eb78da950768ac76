"""Rollouts as arrays, read back token by token: nothing is trained that was not sampled, nothing dropped enters."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from regrpo_jax.agent.rollout import Label, Rollout, RolloutGroup
from regrpo_jax.core.attempt_credit import BY_ATTEMPT
from regrpo_jax.data.chat import Segment
from regrpo_jax.data.image_settings import ImageSettings
from regrpo_jax.data.images import load_image, pack_images
from regrpo_jax.data.online_batches import OnlineBatch, collate_rollouts, with_images
from regrpo_jax.data.rollout_credit import CreditSettings, is_learnable, judge
from regrpo_jax.errors import UserError
from regrpo_jax.evaluation.recovery_metrics import row_of
from regrpo_jax.evaluation.rollout_metrics import rollout_metrics
from regrpo_jax.models.config import VisionConfig
from regrpo_jax.records.types import Status
from tests.data.rollout_groups import IMAGE, make_group

ROWS, BRANCHES = 4, 5
ETA = 0.5
VISION = VisionConfig(depth=1, embed_dim=16, num_heads=1, intermediate_size=64, temporal_patch_size=1)
SETTINGS = ImageSettings(min_pixels=28 * 28, max_pixels=64 * 28 * 28, temporal_patch_size=1)


def collate(groups: Sequence[RolloutGroup], **changes: Any) -> OnlineBatch:
    options: dict[str, Any] = {
        "rows": ROWS,
        "branches": BRANCHES,
        "credit": CreditSettings("step", "shared", eta=ETA, normalize=True),
        "policy_version": 0,
        "image_token_id": IMAGE,
        "prefix_buckets": (8, 16, 32),
        "branch_buckets": (32, 64, 128),
    }
    return collate_rollouts(groups, **(options | changes))


@st.composite
def drawn_groups(draw: st.DrawFn) -> list[RolloutGroup]:
    """Up to as many groups as there are rows, with dropped rollouts among the others."""
    seed = draw(st.integers(0, 100_000))
    groups = []
    for number in range(draw(st.integers(1, ROWS))):
        branches = draw(st.integers(2, BRANCHES))
        dropped = draw(st.sets(st.integers(0, branches - 1), max_size=branches - 1))
        images = draw(st.integers(0, 2))
        versions = draw(st.lists(st.integers(0, 1), min_size=branches, max_size=branches))
        groups.append(
            make_group(seed, number, branches=branches, dropped=sorted(dropped), images=images, versions=versions)
        )
    return groups


Place = tuple[int, int]  # step and attempt; 0 where that makes no difference
CREDITS = [("step", "own"), ("step", "apart"), ("step", "condition"), ("step", "shared"), ("episode", "shared")]


def loop_places(rollout: Rollout, credit: CreditSettings) -> list[Place | None]:
    """Where each turn is judged; None where its tokens are a condition."""
    found: list[Place | None] = []
    for number, turn in enumerate(rollout.turns):
        earlier = sum(other.step == turn.step for other in rollout.turns[:number])
        ends = all(other.step != turn.step for other in rollout.turns[number + 1 :])
        if credit.success == "episode":
            found.append((0, 0))
        elif credit.first_attempt == "condition":
            found.append((turn.step, 0) if ends else None)
        else:
            found.append((turn.step, earlier if credit.first_attempt in BY_ATTEMPT else 0))
    return found


def loop_rewards(rollout: Rollout, credit: CreditSettings) -> dict[Place, float]:
    if rollout.dropped:
        return {}
    found: dict[Place, float] = {}
    own = credit.first_attempt in BY_ATTEMPT
    for number, turn in enumerate(rollout.turns):
        place = (0, 0)
        if credit.success == "step":
            place = (turn.step, sum(one.step == turn.step for one in rollout.turns[:number]) if own else 0)
        right = rollout.success
        if credit.success == "step":
            right = turn.went_right and (turn.right is not None or rollout.success)
        before = found.get(place, 0.0)
        paid = round(before) if place in found else 0  # the last turn's outcome takes the place of the one before
        cost = before - paid - ETA * turn.reflection_tokens / 100
        found[place] = float(right) + cost
    return found


def loop_advantage(group: RolloutGroup, branch: int, place: Place, credit: CreditSettings) -> tuple[float, bool]:
    """Of one branch among those that got to the place, and whether there was anything to prefer."""
    rewards = [loop_rewards(rollout, credit) for rollout in group.rollouts]
    step, attempt = place
    # A repair meets how those left the step who needed none: by their last attempt; apart, it meets repairs alone.
    last = attempt - 1 if credit.first_attempt == "apart" else -1
    left = [[values[step, i] for i in range(attempt, last, -1) if (step, i) in values] for values in rewards]
    there = [values[0] for values in left if values]
    mean = sum(there) / len(there)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in there) / len(there))
    return (rewards[branch][place] - mean) / (deviation + 1e-8), deviation > 1e-4


def test_an_episode_that_ran_out_of_tokens_can_be_compared_only() -> None:
    group = make_group(5, branches=4)
    rollouts = [dataclasses.replace(rollout, truncated=number == 1) for number, rollout in enumerate(group.rollouts)]
    group = dataclasses.replace(group, rollouts=tuple(rollouts))
    trained, masked = collate([group]), collate([group], train_truncated=False)
    assert trained.segments[0, 1].any() and not (masked.segments[0, 1].any() or masked.keep[0, 1].any())
    np.testing.assert_array_equal(masked.rewards, trained.rewards)
    np.testing.assert_array_equal(masked.reached, trained.reached)
    for other in (0, 2, 3):
        np.testing.assert_array_equal(masked.segments[0, other], trained.segments[0, other])
        np.testing.assert_array_equal(masked.advantages[0, other], trained.advantages[0, other])


@pytest.mark.parametrize("credit", [CreditSettings("step"), CreditSettings("episode", "shared")])
def test_an_episode_without_any_turn_has_nothing_to_train_and_takes_nothing_from_others(credit: CreditSettings) -> None:
    group = make_group(5, branches=3)
    nothing = {name: getattr(group.rollouts[0], name)[:0] for name in ("tokens", "labels", "logprobs", "steps")}
    empty = dataclasses.replace(
        group.rollouts[0], **nothing, turns=(), step_success=(), success=False, truncated=True, outcome="out_of_tokens"
    )
    mixed = dataclasses.replace(group, rollouts=(empty, *group.rollouts[1:]))
    alone = dataclasses.replace(group, rollouts=(empty,) * 2)
    batch, nobody = collate([mixed], credit=credit), collate([alone], credit=credit)
    assert not batch.segments[0, 0].any() and batch.segments[0, 1].any() and not nobody.segments.any()
    assert np.isfinite(batch.advantages).all() and not is_learnable(alone, credit)
    assert rollout_metrics([empty, *mixed.rollouts])["truncated"] == 0.5 and row_of(mixed)["dropped"] == 0


@settings(max_examples=120, deadline=None)
@given(groups=drawn_groups(), chosen=st.sampled_from(CREDITS))
def test_every_token_is_where_it_belongs(groups: list[RolloutGroup], chosen: Any) -> None:
    credit = CreditSettings(*chosen, eta=ETA, normalize=True)
    batch = collate(groups, credit=credit)
    assert batch.targets.shape == (ROWS, BRANCHES, batch.targets.shape[-1])
    for row, group in enumerate(groups):
        for column in range(BRANCHES):
            rollout = group.rollouts[column] if column < len(group.rollouts) else None
            if rollout is None or rollout.dropped:
                check_empty(batch, (row, column))
            else:
                check_rollout_in(batch, (row, column), group, rollout, credit)
    for row in range(len(groups), ROWS):
        last = len(groups) - 1
        np.testing.assert_array_equal(batch.prefix.tokens[row], batch.prefix.tokens[last])
        if batch.images is not None:
            np.testing.assert_array_equal(batch.images.patches[row], batch.images.patches[last])
        for column in range(BRANCHES):
            check_empty(batch, (row, column))


def check_empty(batch: OnlineBatch, place: tuple[int, int]) -> None:
    arrays = (batch.targets, batch.segments, batch.behaviour_logprobs, batch.advantages, batch.keep, batch.stale)
    for array in (*arrays, batch.branches.tokens, batch.branches.segment_ids, batch.rewards, batch.reached):
        assert not np.any(array[place])


def check_rollout_in(
    batch: OnlineBatch, place: tuple[int, int], group: RolloutGroup, rollout: Rollout, credit: CreditSettings
) -> None:
    size = len(rollout.tokens)
    assert batch.branches.tokens[place][0] == group.prefix[-1]
    np.testing.assert_array_equal(batch.branches.tokens[place][1:size], rollout.tokens[:-1])
    np.testing.assert_array_equal(batch.targets[place][:size], rollout.tokens)
    np.testing.assert_array_equal(batch.branches.segment_ids[place], np.arange(batch.targets.shape[-1]) < size)
    first = group.positions[-1].max()  # of the last prefix token, which leads
    np.testing.assert_array_equal(batch.branches.positions[place][:, 0], first + np.arange(batch.targets.shape[-1]))
    assert batch.stale[place] == (rollout.policy_version != 0)
    judged: list[Place | None] = [None] * size
    for turn, found in zip(rollout.turns, loop_places(rollout, credit), strict=True):
        judged[turn.sampled_from : turn.end] = [found] * (turn.end - turn.sampled_from)
    np.testing.assert_array_equal(batch.segments[place][:size] > 0, [found is not None for found in judged])
    for token, found in enumerate(judged):
        here = (*place, token)
        if found is None:
            assert batch.behaviour_logprobs[here] == batch.advantages[here] == 0 and not batch.keep[here]
            continue
        wanted = Segment.REFLECTION if rollout.labels[token] == Label.REFLECTION else Segment.ACTION
        assert batch.segments[here] == wanted
        assert batch.behaviour_logprobs[here] == rollout.logprobs[token]
        advantage, learnable = loop_advantage(group, place[1], found, credit)
        assert batch.keep[here] == learnable
        assert batch.advantages[here] == pytest.approx(advantage if learnable else 0.0, abs=2e-4)
    for array in (batch.targets, batch.segments, batch.behaviour_logprobs, batch.advantages, batch.keep):
        assert not np.any(array[place][size:])


def test_groups_that_were_dropped_whole_leave_no_row() -> None:
    lost, kept = make_group(0, 0, branches=3, dropped=(0, 1, 2)), make_group(0, 1, branches=3)
    batch, alone = collate([lost, kept]), collate([kept])
    for first, second in zip(*(vars(entry).values() for entry in (batch.prefix, alone.prefix)), strict=True):
        np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(batch.targets, alone.targets)
    with pytest.raises(UserError, match="every rollout of this update was dropped"):
        collate([lost])


def test_another_engine_makes_every_branch_stale() -> None:
    batch = collate([make_group(1, branches=4, dropped=(2,))], policy_version=None)
    np.testing.assert_array_equal(batch.stale[0], [True, True, False, True, False])


def test_the_verifier_pays_for_grounded_success_only() -> None:
    group = make_group(2, branches=5)
    plain = judge([group], CreditSettings("step", "shared", eta=0.0), branches=5).rewards[0]
    paid = judge([group], CreditSettings("step", "shared", eta=0.0, lambda_val=1.0), branches=5).rewards[0]
    seen = set()
    for branch, rollout in enumerate(group.rollouts):
        for step, success in enumerate(rollout.step_success):
            grounded = any(turn.grounded for turn in rollout.turns if turn.step == step)
            expected = (0.5 + 0.5 * grounded) if success else 0.0
            assert paid[branch, step] - plain[branch, step] == pytest.approx(expected)
            seen.add(expected)
    assert seen == {0.0, 0.5, 1.0}


def with_outcome(rollout: Rollout, right: bool) -> Rollout:
    """All its turns went right, or all wrong."""
    turns = tuple(dataclasses.replace(turn, status=Status.OK, right=right) for turn in rollout.turns)
    return dataclasses.replace(rollout, turns=turns, step_success=(right,), success=right)


@pytest.mark.parametrize(("outcomes", "learnable"), [((True, False), True), ((True, True), False)])
def test_a_group_is_worth_an_update_where_its_rollouts_differ(outcomes: tuple[bool, bool], learnable: bool) -> None:
    group = make_group(4, branches=2, steps=1)
    rollouts = tuple(with_outcome(rollout, outcome) for rollout, outcome in zip(group.rollouts, outcomes, strict=True))
    group = dataclasses.replace(group, rollouts=rollouts)
    assert is_learnable(group, CreditSettings("step", eta=0.0)) == learnable
    batch = collate([group], credit=CreditSettings("step", eta=0.0))
    assert batch.keep.any() == learnable
    assert (batch.segments > 0).any()


def test_a_trained_token_of_an_unknown_step_is_refused() -> None:
    group = make_group(5, branches=2)
    broken = dataclasses.replace(group.rollouts[0], step_success=())
    with pytest.raises(ValueError, match=r"0/0 of task task 0 knows of 0 step\(s\)"):
        collate([dataclasses.replace(group, rollouts=(broken, group.rollouts[1]))])


def test_what_does_not_fit_is_told() -> None:
    group = make_group(6, branches=3)
    with pytest.raises(ValueError, match="1 groups do not fit into 4 rows of 2 branches"):
        collate([group], branches=2)
    with pytest.raises(ValueError, match="5 groups do not fit"):
        collate([group] * 5)
    with pytest.raises(UserError, match=r"exceed the largest of config\.data\.branch_buckets \(2\)"):
        collate([group], branch_buckets=(2,))
    tokens = group.rollouts[0].tokens.copy()
    tokens[-1] = IMAGE
    pictured = (dataclasses.replace(group.rollouts[0], tokens=tokens), *group.rollouts[1:])
    with pytest.raises(UserError, match="task 0, branch 0: 1 image tokens for 0 image features"):
        collate([dataclasses.replace(group, rollouts=pictured)])


def test_patches_are_made_again_from_the_files(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 56, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "card.png")
    group = dataclasses.replace(make_group(7, images=1, files=(str(tmp_path / "card.png"),)), images=None)
    with pytest.raises(ValueError, match="no packed images"):
        collate([group])
    expected = pack_images([load_image(tmp_path / "card.png", SETTINGS)], VISION)
    batch = collate([with_images(group, SETTINGS, VISION)])
    np.testing.assert_array_equal(batch.images.patches[0, : len(expected.patches)], expected.patches)
    with pytest.raises(ValueError, match="has images, but the policy is text-only"):
        with_images(group, None, None)
    text = with_images(make_group(7), None, None)
    assert text.images.token_counts == ()
