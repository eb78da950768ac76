"""Advantages against plain Python over one group at a time, and the properties the paper relies on."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.core.advantages import (
    group_advantages,
    group_variance,
    two_stream_advantages,
    zero_variance_groups,
)

unhurried = settings(deadline=None, max_examples=50)  # the first example compiles
BRANCHES = 5
# Sixteenths: exact in binary, so that adding constants is exact too.
reward_values = st.integers(-32, 32).map(lambda sixteenths: sixteenths / 16)
reward_groups = st.lists(reward_values, min_size=BRANCHES, max_size=BRANCHES).map(np.array)
masks = st.lists(st.booleans(), min_size=BRANCHES, max_size=BRANCHES).map(np.array)
options = st.fixed_dictionaries(
    {
        "baseline": st.sampled_from(["mean", "leave_one_out"]),
        "normalize": st.booleans(),
        "clip_range": st.sampled_from([None, 0.5, 1.2]),
    }
)


def loop_variance(rewards: Sequence[float] | np.ndarray) -> float:
    mean = sum(rewards) / len(rewards)
    return sum((reward - mean) ** 2 for reward in rewards) / len(rewards)


def loop_advantages(
    rewards: Sequence[float] | np.ndarray,
    baseline: str = "mean",
    normalize: bool = False,
    clip_range: float | None = None,
) -> list[float]:
    """The definition for one group of real branches, one branch after the other."""
    advantages = []
    for branch, reward in enumerate(rewards):
        siblings = [other for index, other in enumerate(rewards) if baseline == "mean" or index != branch]
        advantage = reward - sum(siblings) / len(siblings)
        if normalize:
            advantage /= math.sqrt(loop_variance(rewards)) + 1e-8
        if clip_range is not None:
            advantage = min(clip_range, max(-clip_range, advantage))
        advantages.append(advantage)
    return advantages


def test_paper_example() -> None:
    """The release's group: correct, failed, reflect_correct (30 tokens), retry_correct, corrupted."""
    advantages = group_advantages(np.array([1.0, 0.0, 0.97, 1.0, 0.0]))
    np.testing.assert_allclose(advantages, [0.406, -0.594, 0.376, 0.406, -0.594], atol=1e-12)


@unhurried
@given(rewards=reward_groups, chosen=options)
def test_equals_definition(rewards: np.ndarray, chosen: dict) -> None:
    expected = loop_advantages(rewards, **chosen)
    np.testing.assert_allclose(group_advantages(rewards, **chosen), expected, atol=1e-9)


@unhurried
@given(rewards=reward_groups, mask=masks, chosen=options)
def test_masked_branches_are_as_if_absent(rewards: np.ndarray, mask: np.ndarray, chosen: dict) -> None:
    padded = np.where(mask, rewards, math.nan)
    advantages = np.asarray(group_advantages(padded, mask=mask, **chosen))
    real_rewards = rewards[mask].tolist()
    expected = loop_advantages(real_rewards, **chosen) if len(real_rewards) > 1 else [0.0] * len(real_rewards)
    np.testing.assert_allclose(advantages[mask], expected, atol=1e-9)
    np.testing.assert_array_equal(advantages[~mask], 0.0)


@unhurried
@given(
    outcomes=reward_groups,
    verifiers=reward_groups,
    alpha=st.sampled_from([0.0, 0.3, 1.0]),
    normalize=st.booleans(),
    clip_range=st.sampled_from([None, 0.5]),
)
def test_two_streams_equal_definition(
    outcomes: np.ndarray, verifiers: np.ndarray, alpha: float, normalize: bool, clip_range: float | None
) -> None:
    first = loop_advantages(outcomes, "mean", normalize, clip_range)
    second = loop_advantages(verifiers, "mean", normalize, clip_range)
    actual = two_stream_advantages(outcomes, verifiers, alpha=alpha, normalize=normalize, clip_range=clip_range)
    np.testing.assert_allclose(actual, np.array(first) + alpha * np.array(second), atol=1e-9)


def test_two_streams_learn_from_the_verifier_when_all_succeed() -> None:
    advantages = two_stream_advantages(np.ones(2), np.array([0.3, 0.1]), normalize=True)
    np.testing.assert_allclose(advantages, [1.0, -1.0], rtol=1e-6)


def test_two_streams_share_the_mask() -> None:
    mask = np.array([True, True, False])
    outcomes, verifiers = np.array([[1.0, 0.0, 9.0], [0.0, 1.0, 9.0]])
    advantages = two_stream_advantages(outcomes, verifiers, alpha=0.5, mask=mask)
    np.testing.assert_allclose(advantages, [0.25, -0.25, 0.0], atol=1e-12)


@unhurried
@given(rewards=reward_groups)
def test_mean_advantages_sum_to_zero(rewards: np.ndarray) -> None:
    assert abs(float(jnp.sum(group_advantages(rewards)))) < 1e-12


@unhurried
@given(rewards=reward_groups, chosen=options, constant=reward_values)
def test_adding_a_constant_changes_nothing(rewards: np.ndarray, chosen: dict, constant: float) -> None:
    shifted = group_advantages(rewards + constant, **chosen)
    np.testing.assert_array_equal(shifted, group_advantages(rewards, **chosen))


@unhurried
@given(rewards=reward_groups, chosen=options, order=st.permutations(range(BRANCHES)))
def test_permutation_equivariance(rewards: np.ndarray, chosen: dict, order: list[int]) -> None:
    permuted = group_advantages(rewards[order], **chosen)
    np.testing.assert_allclose(permuted, group_advantages(rewards, **chosen)[np.array(order)], atol=1e-12)


@unhurried
@given(rewards=reward_groups, mask=masks)
def test_variance_and_zero_variance(rewards: np.ndarray, mask: np.ndarray) -> None:
    real_rewards = rewards[mask].tolist()
    variance = loop_variance(real_rewards) if real_rewards else 0.0
    np.testing.assert_allclose(group_variance(rewards, mask), variance, atol=1e-12)
    assert bool(zero_variance_groups(rewards, mask=mask)) == (len(set(real_rewards)) < 2)


def test_groups_are_independent_and_jit() -> None:
    rewards = np.array([[[1.0, 0.0, 0.5], [2.0, 2.0, 2.0]]])  # [1, group, branch]
    advantages = jax.jit(lambda values: group_advantages(values, normalize=True))(rewards)
    np.testing.assert_allclose(advantages[0, 0], loop_advantages([1.0, 0.0, 0.5], normalize=True), atol=1e-9)
    np.testing.assert_array_equal(advantages[0, 1], 0.0)
    np.testing.assert_array_equal(zero_variance_groups(rewards), [[False, True]])


@unhurried
@given(reward=st.floats(-2, 2, width=32), branches=st.sampled_from([3, 5, 7]))
def test_equal_float32_rewards_give_exactly_zero(reward: float, branches: int) -> None:
    """A rounding error in the mean must not be blown up by the division by a deviation of about 0."""
    rewards = jnp.full((branches,), reward, jnp.float32)
    advantages = group_advantages(rewards, normalize=True)
    assert advantages.dtype == jnp.float32
    np.testing.assert_array_equal(advantages, 0.0)


def test_tolerance_decides_what_zero_variance_means() -> None:
    rewards = np.array([1.0, 1.1])
    assert not bool(zero_variance_groups(rewards))
    assert bool(zero_variance_groups(rewards, tolerance=0.01))


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown baseline 'median'"):
        group_advantages(np.array([1.0, 0.0]), baseline="median")
    with pytest.raises(ValueError, match="at least two branches"):
        group_advantages(np.array([[1.0], [0.0]]), baseline="leave_one_out")
    with pytest.raises(ValueError, match="same shape"):
        two_stream_advantages(np.array([1.0, 0.0]), np.array([1.0]))
