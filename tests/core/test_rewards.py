"""R(tau), C(tau) and V against the definitions written out for one trajectory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.core.rewards import reflection_cost, trajectory_reward, verifier_value

unhurried = settings(deadline=None, max_examples=50)  # the first example compiles
unit_scores = st.floats(-0.5, 1.5)


def test_paper_example() -> None:
    """A recovery with a reflection of 30 tokens is worth 1 - 0.1 * 0.3, one shot 1, a failure 0."""
    rewards = trajectory_reward(jnp.array([True, True, False]), jnp.array([30, 0, 0]))
    np.testing.assert_allclose(rewards, [0.97, 1.0, 0.0], rtol=1e-12)


def test_cost_is_linear_and_zero_without_reflection() -> None:
    np.testing.assert_allclose(reflection_cost(np.array([0, 50, 100, 250])), [0.0, 0.5, 1.0, 2.5])
    np.testing.assert_allclose(reflection_cost(50, tokens_per_unit=1.0), 50.0)


@unhurried
@given(
    success=st.booleans(),
    tokens=st.integers(0, 2000),
    verifier=st.floats(0, 1),
    lambda_exec=st.floats(0, 2),
    eta=st.floats(0, 1),
    lambda_val=st.floats(0, 1),
)
def test_reward_equals_definition(
    success: bool, tokens: int, verifier: float, lambda_exec: float, eta: float, lambda_val: float
) -> None:
    expected = (lambda_exec if success else 0.0) - eta * (tokens / 100.0) + lambda_val * verifier
    actual = trajectory_reward(success, tokens, verifier, lambda_exec=lambda_exec, eta=eta, lambda_val=lambda_val)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


def test_reward_broadcasts_and_jits() -> None:
    success = np.array([[True, False, True], [False, False, True]])  # [group, branch]
    tokens = np.array([10, 0, 40])  # [branch]
    rewards = jax.jit(trajectory_reward)(success, tokens)
    assert rewards.shape == (2, 3)
    np.testing.assert_allclose(rewards, success - 0.001 * tokens, rtol=1e-12)


def test_reward_is_float32_by_default() -> None:
    with jax.enable_x64(False):
        rewards = trajectory_reward(np.array([True, False]), np.array([30, 0]), np.float32(0.5), lambda_val=0.3)
        assert rewards.dtype == jnp.float32
        np.testing.assert_allclose(rewards, [1.12, 0.15], rtol=1e-6)


@unhurried
@given(unit_scores, unit_scores, unit_scores)
def test_verifier_value_equals_definition(consistency: float, grounding: float, validity: float) -> None:
    clamped = [max(0.0, min(1.0, score)) for score in (consistency, grounding, validity)]
    expected = 0.25 * clamped[0] + 0.5 * clamped[1] + 0.25 * clamped[2]
    np.testing.assert_allclose(verifier_value(consistency, grounding, validity), expected, atol=1e-12)


@pytest.mark.parametrize("position", [0, 1, 2])
def test_verifier_weights_belong_to_their_scores(position: int) -> None:
    scores = np.eye(3)[position]
    value = verifier_value(scores[0] > 0, scores[1] > 0, scores[2] > 0, weights=(0.1, 0.2, 0.7))
    np.testing.assert_allclose(value, (0.1, 0.2, 0.7)[position], rtol=1e-12)
