"""Step-local credit against plain loops over groups, steps and branches."""

import math
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.core.advantages import group_advantages
from regrpo_jax.core.step_advantages import at_tokens, step_advantages, zero_variance_steps

unhurried = settings(deadline=None, max_examples=50)
GROUPS, BRANCHES, STEPS, TOKENS = 2, 4, 3, 7


@st.composite
def credits(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Rewards of sixteenths, often equal, and a mask: a branch that misses a step misses all later ones."""
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    rewards = random.choice([0.0, 1.0, 15 / 16], (GROUPS, BRANCHES, STEPS))
    reached = np.arange(STEPS) < random.integers(0, STEPS + 1, (GROUPS, BRANCHES, 1))
    return rewards, reached


options = st.fixed_dictionaries(
    {
        "baseline": st.sampled_from(["mean", "leave_one_out"]),
        "normalize": st.booleans(),
        "clip_range": st.sampled_from([None, 0.4]),
    }
)


def loop_advantage(
    rewards: list[float], index: int, *, baseline: str, normalize: bool, clip_range: float | None
) -> float:
    """Of one branch among those that reached the step."""
    others = [reward for place, reward in enumerate(rewards) if baseline == "mean" or place != index]
    if len(rewards) == 1:
        return 0.0
    advantage = rewards[index] - sum(others) / len(others)
    if normalize:
        mean = sum(rewards) / len(rewards)
        advantage /= math.sqrt(sum((reward - mean) ** 2 for reward in rewards) / len(rewards)) + 1e-8
    return advantage if clip_range is None else min(clip_range, max(-clip_range, advantage))


@unhurried
@given(drawn=credits(), chosen=options)
def test_equals_definition(drawn: tuple[np.ndarray, np.ndarray], chosen: dict[str, Any]) -> None:
    rewards, reached = drawn
    actual = np.asarray(step_advantages(np.where(reached, rewards, math.nan), reached, **chosen))
    expected = np.zeros_like(rewards)
    zero_variance = np.zeros((GROUPS, STEPS), bool)
    for group, step in np.ndindex(GROUPS, STEPS):
        there = [branch for branch in range(BRANCHES) if reached[group, branch, step]]
        values = [float(rewards[group, branch, step]) for branch in there]
        zero_variance[group, step] = len(set(values)) < 2
        for index, branch in enumerate(there):
            expected[group, branch, step] = loop_advantage(values, index, **chosen)
    np.testing.assert_allclose(actual, expected, atol=1e-9)
    np.testing.assert_array_equal(zero_variance_steps(rewards, reached), zero_variance)


@unhurried
@given(drawn=credits(), chosen=options, seed=st.integers(0, 1000))
def test_a_later_step_never_changes_an_earlier_one(
    drawn: tuple[np.ndarray, np.ndarray], chosen: dict[str, Any], seed: int
) -> None:
    rewards, reached = drawn
    before = np.asarray(step_advantages(rewards, reached, **chosen))
    changed = rewards.copy()
    changed[..., -1] = np.random.default_rng(seed).random((GROUPS, BRANCHES))
    after = np.asarray(step_advantages(changed, reached, **chosen))
    np.testing.assert_array_equal(before[..., :-1], after[..., :-1])


def test_one_step_is_the_advantage_of_an_episode() -> None:
    rewards = np.random.default_rng(0).random((GROUPS, BRANCHES))
    reached = np.ones((GROUPS, BRANCHES, 1), bool)
    steps = step_advantages(rewards[..., None], reached, normalize=True)
    np.testing.assert_array_equal(steps[..., 0], group_advantages(rewards, normalize=True))


@unhurried
@given(seed=st.integers(0, 10_000), kind=st.sampled_from([float, bool]))
def test_tokens_get_what_belongs_to_their_step(seed: int, kind: type) -> None:
    random = np.random.default_rng(seed)
    values = random.random((GROUPS, BRANCHES, STEPS)) if kind is float else random.random((2, 4, 3)) < 0.5
    steps = random.integers(-1, STEPS, (GROUPS, BRANCHES, TOKENS))
    actual = np.asarray(jax.jit(at_tokens)(values, steps))
    assert actual.dtype == values.dtype
    for group, branch, token in np.ndindex(GROUPS, BRANCHES, TOKENS):
        step = steps[group, branch, token]
        assert actual[group, branch, token] == (values[group, branch, step] if step >= 0 else 0)


def test_errors() -> None:
    with pytest.raises(ValueError, match="unknown baseline 'median'"):
        step_advantages(np.zeros((1, 2, 3)), np.ones((1, 2, 3), bool), baseline="median")
    with pytest.raises(ValueError, match="at least two branches"):
        step_advantages(np.zeros((1, 1, 3)), np.ones((1, 1, 3), bool), baseline="leave_one_out")


def test_a_softened_deviation_keeps_small_differences_small() -> None:
    """Two groups: one in which half succeed, one in which all do and half reflected for ten tokens more."""
    rewards = np.array([[[1.0], [1.0], [0.0], [0.0]], [[0.99], [0.99], [0.98], [0.98]]])  # [group, branch, step]
    reached = np.ones_like(rewards, bool)
    loud = np.abs(np.asarray(step_advantages(rewards, reached, normalize=True)))
    soft = np.abs(np.asarray(step_advantages(rewards, reached, normalize=True, epsilon=0.1)))
    np.testing.assert_allclose(loud, 1.0, rtol=1e-3)
    np.testing.assert_allclose(soft[0], 0.5 / 0.6, rtol=1e-5)
    np.testing.assert_allclose(soft[1], 0.005 / 0.105, rtol=1e-3)
