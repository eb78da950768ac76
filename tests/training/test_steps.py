"""One update on hand-made batches: what goes up, what goes down, and what is left out."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest

from regrpo_jax.data.batches import GroupBatch, SftBatch
from regrpo_jax.errors import UserError
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.training.loop import check_values
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.state import TrainState, initial_state
from regrpo_jax.training.steps import (
    RegrpoSettings,
    Step,
    group_logprobs,
    regrpo_step,
    rewards_and_advantages,
    sft_step,
)

FAILED, REFLECT_CORRECT = 1, 2
Settings = Callable[..., RegrpoSettings]
OPTIMIZER = optax.adam(1e-2)


Update = Callable[..., tuple[TrainState, list[dict[str, Any]]]]
GROUPS = 4  # in every batch, so that a step is compiled once


@pytest.fixture(scope="module")
def regrpo(functions: PolicyFunctions, variables: dict, settings: Settings) -> Update:
    """(batch, updates) -> the state after them and the metrics of each."""
    mesh = device_mesh(jax.devices()[:1])

    @functools.cache
    def step_of(zero_variance: str) -> Step:
        chosen = settings(beta=0.01, zero_variance=zero_variance)
        return regrpo_step(functions, OPTIMIZER, mesh, chosen, microbatches=1, chunk_size=64)

    def run(batch: GroupBatch, updates: int, zero_variance: str = "skip") -> tuple[TrainState, list[dict[str, Any]]]:
        state, history = initial_state(variables, OPTIMIZER), []
        for _ in range(updates):
            state, metrics = step_of(zero_variance)(state, {}, batch)
            history.append(jax.device_get(metrics))
        return state, history

    return run


@pytest.fixture(scope="module")
def sft(functions: PolicyFunctions, variables: dict) -> Callable[[SftBatch, int], list[dict[str, float]]]:
    """(batch, updates) -> the metrics of each."""
    step = sft_step(functions, OPTIMIZER, device_mesh(jax.devices()[:1]), microbatches=1, chunk_size=64)

    def run(batch: SftBatch, updates: int) -> list[dict[str, float]]:
        state, history = initial_state(variables, OPTIMIZER), []
        for _ in range(updates):
            state, metrics = step(state, {}, batch)
            history.append({name: float(value) for name, value in metrics.items()})
        return history

    return run


@pytest.fixture(scope="module")
def reference(functions: PolicyFunctions, variables: dict) -> Callable[[GroupBatch], np.ndarray]:
    """log pi of a batch under the policy before training."""
    score = jax.jit(lambda batch: group_logprobs(functions, variables, batch, chunk_size=64))
    return lambda batch: np.asarray(score(batch))


def test_thirty_updates_prefer_the_reflected_correction(
    regrpo: Update, group_batch: Callable[..., GroupBatch], reference: Callable[[GroupBatch], np.ndarray]
) -> None:
    batch = group_batch(1, GROUPS)
    batch = batch.replace(reference_logprobs=reference(batch))
    state, history = regrpo(batch, 30)
    assert int(state.step) == 30
    losses = [float(metrics["loss"]) for metrics in history]
    assert losses[-1] < losses[10] < losses[0] - 1.0
    assert history[0]["action/kl"] == pytest.approx(0.0, abs=1e-6)  # the reference is where it starts
    assert history[-1]["action/kl"] > 0.01

    def margin(metrics: dict[str, Any]) -> float:
        return float(metrics["branch/action_logprob"][REFLECT_CORRECT] - metrics["branch/action_logprob"][FAILED])

    assert margin(history[-1]) > margin(history[0]) + 1.0
    assert margin(history[-1]) > 0.0
    # The reward is of the recorded branches: no update can change it.
    assert {float(metrics["reward"]) for metrics in history} == {float(history[0]["reward"])}


def test_rewards_price_the_reflection(group_batch: Callable[..., GroupBatch], settings: Settings) -> None:
    rewards, advantages = rewards_and_advantages(group_batch(1, 2), settings(eta=0.5))
    expected = np.array([1.0, 0.0, 1.0 - 0.5 * 2 / 100, 1.0, 0.0])
    np.testing.assert_allclose(rewards, [expected] * 2, rtol=1e-6)
    np.testing.assert_allclose(advantages, [expected - expected.mean()] * 2, rtol=1e-5)


def test_two_streams_have_a_baseline_each(group_batch: Callable[..., GroupBatch], settings: Settings) -> None:
    batch = group_batch(1, 2)
    changes = {"eta": 0.5, "lambda_val": 0.3}
    rewards, advantages = rewards_and_advantages(batch, settings(**changes, two_stream_alpha=2.0))
    outcome = np.array([1.0, 0.0, 1.0 - 0.5 * 2 / 100, 1.0, 0.0])
    value = 0.3 * batch.verifier_value
    np.testing.assert_allclose(rewards, outcome + value, rtol=1e-5)
    expected = outcome - outcome.mean() + 2.0 * (value - value.mean(-1, keepdims=True))
    np.testing.assert_allclose(advantages, expected, atol=1e-6)


def test_groups_without_variance_are_dropped_and_counted(
    regrpo: Update, group_batch: Callable[..., GroupBatch]
) -> None:
    batch = group_batch(2, GROUPS, equal_rewards=(0, 3))
    state, (metrics,) = regrpo(batch, 1)
    assert metrics["groups/kept_count"] == 2
    assert metrics["groups/dropped_count"] == 2
    assert metrics["groups/dropped_share"] == pytest.approx(0.5)
    assert metrics["branches/count"] == 10
    # A skipped group is as if it were not in the batch: the same as the kept ones, twice.
    alone, (alone_metrics,) = regrpo(jax.tree.map(lambda array: array[[1, 2, 1, 2]], batch), 1)
    assert alone_metrics["groups/dropped_count"] == 0
    assert metrics["loss"] == pytest.approx(float(alone_metrics["loss"]), rel=1e-4)
    assert metrics["action/entropy"] == pytest.approx(float(alone_metrics["action/entropy"]), rel=1e-5)
    assert metrics["gradient_norm"] == pytest.approx(float(alone_metrics["gradient_norm"]), rel=1e-4)
    for updated, expected in zip(jax.tree.leaves(state.trainable), jax.tree.leaves(alone.trainable), strict=True):
        np.testing.assert_allclose(updated, expected, atol=1e-3)

    _, (held,) = regrpo(batch, 1, zero_variance="keep_kl")
    assert held["groups/kl_only_count"] == 2
    assert held["branches/count"] == 20
    assert held["loss"] != pytest.approx(float(metrics["loss"]), rel=1e-3)


def test_a_batch_without_variance_changes_nothing_and_is_told(
    regrpo: Update, variables: dict, group_batch: Callable[..., GroupBatch], capsys: pytest.CaptureFixture[str]
) -> None:
    state, (metrics,) = regrpo(group_batch(2, GROUPS, equal_rewards=tuple(range(GROUPS))), 1)
    assert metrics["gradient_norm"] == 0.0
    assert jax.tree.all(jax.tree.map(np.array_equal, jax.device_get(state.trainable), jax.device_get(variables)))
    check_values("rl", 10, {name: float(value) for name, value in metrics.items() if np.ndim(value) == 0})
    assert "rl step 10: every group since the last line had zero reward variance" in capsys.readouterr().out


def test_supervised_loss_is_the_mean_over_trained_tokens_and_falls(
    functions: PolicyFunctions,
    sft: Callable[[SftBatch, int], list[dict[str, float]]],
    sft_batch: Callable[..., SftBatch],
) -> None:
    batch = sft_batch(4, 3)
    history = sft(batch, 30)
    first = history[0]
    counts = {name: int(np.sum(batch.segments[:, 1:] == kind)) for name, kind in (("reflection", 1), ("action", 2))}
    assert {name: first[f"{name}/token_count"] for name in counts} == counts
    total = sum(first[f"{name}/logprob"] * count for name, count in counts.items())
    assert first["loss"] == pytest.approx(-total / sum(counts.values()), rel=1e-5)
    assert first["tokens"] == int(np.sum(batch.block.segment_ids > 0))
    assert history[-1]["loss"] < 0.5 * first["loss"]
    for name in counts:
        assert 0 < history[-1][f"{name}/entropy"] < first[f"{name}/entropy"] <= np.log(functions.config.vocab_size)


def test_supervised_batch_without_a_trained_token_is_an_error(
    sft: Callable[[SftBatch, int], list[dict[str, float]]], sft_batch: Callable[..., SftBatch]
) -> None:
    batch = sft_batch(4, 3)
    (metrics,) = sft(batch.replace(segments=np.zeros_like(batch.segments)), 1)
    assert (metrics["loss"], metrics["gradient_norm"]) == (0.0, 0.0)
    with pytest.raises(UserError, match="sft step 7: no token since the last line was trained on"):
        check_values("sft", 7, metrics)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_loss_that_is_not_finite_is_an_error(broken: float) -> None:
    values = {"loss": broken, "action/token_count": 3.0, "reflection/token_count": 0.0}
    with pytest.raises(UserError, match=r"sft step 7: loss is not finite; lower config\.sft\.learning_rate"):
        check_values("sft", 7, values)
    check_values("sft", 7, values | {"loss": 1.0})
