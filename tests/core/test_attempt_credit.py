"""Credit of first attempts and repairs, against a loop that reads the equations one branch at a time."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.core.attempt_credit import BY_ATTEMPT, FIRST_ATTEMPTS, attempt_rewards, last_attempts
from regrpo_jax.core.step_advantages import step_advantages

LAMBDA_EXEC, ETA, LAMBDA_VAL = 1.5, 0.7, 0.3


def drawn(seed: int, shape: tuple[int, int, int, int]) -> dict[str, np.ndarray]:
    """Attempts are made in order; what stands at the others must not matter."""
    chance = np.random.default_rng(seed)
    count = chance.integers(0, shape[-1] + 1, shape[:-1])
    return {
        "right": chance.integers(0, 2, shape),
        "reflection_tokens": chance.integers(0, 60, shape),
        "grounded": chance.integers(0, 2, shape),
        "made": np.arange(shape[-1]) < count[..., None],
    }


def value(right: int, grounded: int) -> float:
    return (0.25 + 0.25 + 0.5 * grounded) * right


def loop(told: dict[str, np.ndarray], first_attempt: str) -> tuple[np.ndarray, np.ndarray]:
    groups, branches, steps, attempts = told["made"].shape
    places = steps * attempts if first_attempt in BY_ATTEMPT else steps
    rewards, reached = np.zeros((groups, branches, places)), np.zeros((groups, branches, places), bool)
    for at in np.ndindex(groups, branches, steps):
        tried = [
            {name: int(told[name][(*at, number)]) for name in ("right", "reflection_tokens", "grounded")}
            for number in range(attempts)
            if told["made"][(*at, number)]
        ]
        if first_attempt == "apart":
            judged = {at[2] * attempts + i: [one] for i, one in enumerate(tried)}
        elif first_attempt == "own":
            most = max(int(told["made"][at[0], other, at[2]].sum()) for other in range(branches))
            judged = {at[2] * attempts + i: [tried[min(i, len(tried) - 1)]] for i in range(most) if tried}
        else:
            judged = {at[2]: tried} if tried else {}
        for place, ones in judged.items():
            right, grounded = ones[-1]["right"], max(one["grounded"] for one in ones)
            cost = sum(one["reflection_tokens"] for one in ones) / 100
            rewards[at[0], at[1], place] = LAMBDA_EXEC * right - ETA * cost + LAMBDA_VAL * value(right, grounded)
            reached[at[0], at[1], place] = True
    return rewards, reached


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), shape=st.tuples(*(st.integers(1, most) for most in (2, 4, 3, 3))))
@pytest.mark.parametrize("first_attempt", FIRST_ATTEMPTS)
def test_rewards_are_those_of_the_equations(first_attempt: str, seed: int, shape: Any) -> None:
    told = drawn(seed, shape)
    weights = {"lambda_exec": LAMBDA_EXEC, "eta": ETA, "lambda_val": LAMBDA_VAL}
    rewards, reached = attempt_rewards(**told, first_attempt=first_attempt, **weights)
    wanted, there = loop(told, first_attempt)
    np.testing.assert_array_equal(reached, there)
    np.testing.assert_allclose(np.where(reached, rewards, 0), wanted, atol=1e-6)


def test_failing_first_is_paid_like_success_only_where_credit_is_shared() -> None:
    """Three branches: right at once; failed and repaired; failed twice. One step, two attempts."""
    right = np.array([[1, 0], [0, 1], [0, 0]])[None, :, None]  # [group, branch, step, attempt]
    made = np.array([[1, 0], [1, 1], [1, 1]], bool)[None, :, None]
    tokens = np.array([[0, 0], [0, 30], [0, 30]])[None, :, None]

    def advantages(first_attempt: str) -> np.ndarray:
        rewards, reached = attempt_rewards(right, tokens, tokens > 0, made, first_attempt=first_attempt)
        return np.asarray(step_advantages(rewards, reached))[0]  # [branch, place]

    shared = advantages("shared")[:, 0]
    assert shared[1] > 0 and abs(shared[1] - shared[0]) < 0.05  # the failed a_0 is paid with the rest
    own = advantages("own")
    np.testing.assert_allclose(own[:, 0], [2 / 3, -1 / 3, -1 / 3], atol=1e-6)  # first attempts among first attempts
    by = np.array([1, 1 - 0.03, -0.03])  # a repair among what all came to in the end
    np.testing.assert_allclose(own[:, 1], by - by.mean(), atol=1e-6)
    np.testing.assert_allclose(advantages("condition")[:, 0], shared, atol=1e-6)
    np.testing.assert_array_equal(last_attempts(made)[0, :, 0], [[True, False], [False, True], [False, True]])


def test_a_needless_reflection_costs_the_attempt_that_it_opens() -> None:
    right, made = np.ones((1, 2, 1, 1)), np.ones((1, 2, 1, 1), bool)
    rewards, _ = attempt_rewards(right, np.array([40, 0]).reshape(1, 2, 1, 1), 0 * right, made, first_attempt="own")
    np.testing.assert_allclose(rewards[0, :, 0], [1 - 0.1 * 0.4, 1])


def test_who_is_right_at_once_is_what_a_lonely_repair_is_measured_by() -> None:
    """One branch of three failed first; without the others there would be nothing to compare its repair with."""
    made = np.array([[1, 0], [1, 0], [1, 1]], bool)[None, :, None]  # [group, branch, step, attempt]
    for repaired in (0, 1):
        right = np.array([[1, 0], [1, 0], [0, repaired]])[None, :, None]
        rewards, reached = attempt_rewards(right, 0 * right, 0 * right, made, first_attempt="own")
        assert np.all(reached)
        advantage = np.asarray(step_advantages(rewards, reached))[0, 2, 1]
        assert advantage == pytest.approx(0 if repaired else -2 / 3, abs=1e-6)


def test_apart_repairs_that_all_fail_are_not_pushed_down() -> None:
    made = np.array([[1, 0], [1, 1], [1, 1]], bool)[None, :, None]  # [group, branch, step, attempt]
    for repaired in (0, 1):
        right = np.array([[1, 0], [0, repaired], [0, 0]])[None, :, None]
        rewards, reached = attempt_rewards(right, 0 * right, 0 * right, made, first_attempt="apart")
        advantages = np.asarray(step_advantages(rewards, reached))[0, :, 1]
        np.testing.assert_allclose(advantages, [0, repaired / 2, -repaired / 2], atol=1e-6)


def test_nothing_is_compared_at_an_attempt_that_nobody_made() -> None:
    made = np.array([[1, 0], [1, 0]], bool)[None, :, None]
    _, reached = attempt_rewards(made, 0 * made, 0 * made, made, first_attempt="own")
    np.testing.assert_array_equal(reached[0], [[True, False], [True, False]])


def test_an_unknown_choice_is_named() -> None:
    one = np.ones((1, 1, 1, 1))
    with pytest.raises(ValueError, match="unknown first_attempt 'late': choose one of own, apart, condition, shared"):
        attempt_rewards(one, one, one, one, first_attempt="late")
