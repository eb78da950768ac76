"""What a curriculum takes for success: recoveries that outrank failures, and reflections that the policy is sure of."""

from __future__ import annotations

import math
from collections.abc import Callable

import jax
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.batches import GroupBatch, SftBatch
from regrpo_jax.data.curriculum import Curriculum, Pacer
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.records.candidates import GROUP_LABELS
from regrpo_jax.training.pacing import paced, ranking, recovery_first, reflection_confidence, stage_pacer
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.state import initial_state
from regrpo_jax.training.steps import RegrpoSettings, group_logprobs, regrpo_step, rewards_and_advantages, sft_step

OPTIMIZER = optax.adam(1e-2)
CORRECT, FAILED, REFLECT, RETRY, CORRUPTED = range(5)
MEANS = (-9.0, -3.0, -2.0, -1.0, -4.0)  # of `GROUP_LABELS`
REWARDS = (1.0, 0.0, 0.9, 0.95, 0.0)


def ranked(batch: GroupBatch, means: tuple[float, ...], rewards: tuple[float, ...] = REWARDS) -> list[bool]:
    """Of a batch in which every scored token of a branch has the branch's mean log-prob."""
    logprobs = np.where(batch.segments > 0, np.array(means)[:, None], 0.0).astype(np.float32)
    return np.asarray(recovery_first(logprobs, batch, np.array([rewards] * len(batch.success)))).tolist()


def with_mean(branch: int, value: float) -> tuple[float, ...]:
    return tuple(value if index == branch else mean for index, mean in enumerate(MEANS))


class TestRanking:
    """The best-rewarded recovery against everything that fails, by mean token log-prob."""

    def test_a_recovery_above_all_failures(self, group_batch: Callable[..., GroupBatch]) -> None:
        assert GROUP_LABELS == ("correct", "failed", "reflect_correct", "retry_correct", "corrupted")
        assert ranked(group_batch(1, 3), MEANS) == [True] * 3

    @pytest.mark.parametrize("failing", (FAILED, CORRUPTED))
    def test_one_failure_above_it_is_enough(self, group_batch: Callable[..., GroupBatch], failing: int) -> None:
        assert ranked(group_batch(1, 3), with_mean(failing, -0.5)) == [False] * 3
        assert ranked(group_batch(1, 3), with_mean(failing, -1.0)) == [False] * 3  # as likely is not above

    def test_only_the_best_rewarded_recovery_counts(self, group_batch: Callable[..., GroupBatch]) -> None:
        unlikely_retry = with_mean(RETRY, -20.0)
        assert ranked(group_batch(1, 1), unlikely_retry) == [False]
        assert ranked(group_batch(1, 1), unlikely_retry, (1.0, 0.0, 0.95, 0.9, 0.0)) == [True]

    def test_an_action_that_is_right_at_once_is_no_recovery(self, group_batch: Callable[..., GroupBatch]) -> None:
        best_at_once = (-0.1, -3.0, -20.0, -20.0, -20.0)
        assert ranked(group_batch(1, 1), best_at_once) == [False]

    def test_a_group_without_a_recovery_is_not_ranked_right(self, group_batch: Callable[..., GroupBatch]) -> None:
        batch = group_batch(1, 2, equal_rewards=(1,))
        assert ranked(batch, MEANS) == [True, False]

    @settings(max_examples=30, deadline=None)
    @given(seed=st.integers(0, 2**32 - 1))
    def test_it_is_the_definition(self, group_batch: Callable[..., GroupBatch], seed: int) -> None:
        rng = np.random.default_rng(seed)
        batch = group_batch(seed, 6).replace(success=rng.random((6, 5)) < 0.6)
        scored = batch.segments > 0
        logprobs = np.where(scored, -rng.exponential(size=scored.shape), 0.0)
        rewards = rng.normal(size=(6, 5))
        expected = []
        for group in range(6):
            mean = [logprobs[group, k][scored[group, k]].mean() for k in range(5)]
            recoveries = [k for k in (REFLECT, RETRY) if batch.success[group, k]]
            best = max(recoveries, key=lambda k: rewards[group, k], default=None)
            failing = [mean[k] for k in range(5) if not batch.success[group, k]]
            expected.append(best is not None and all(mean[best] > value for value in failing))
        assert np.asarray(recovery_first(logprobs, batch, rewards)).tolist() == expected


def test_the_ranking_is_of_the_policy_before_the_update(
    functions: PolicyFunctions,
    variables: dict,
    group_batch: Callable[..., GroupBatch],
    settings: Callable[..., RegrpoSettings],
) -> None:
    chosen, mesh = settings(beta=0.0), device_mesh(jax.devices()[:1])
    score = jax.jit(lambda variables, batch: group_logprobs(functions, variables, batch, chunk_size=64))
    step = regrpo_step(functions, OPTIMIZER, mesh, chosen, microbatches=1, chunk_size=64)
    plain, state, batch = initial_state(variables, OPTIMIZER), initial_state(variables, OPTIMIZER), group_batch(3, 4)
    ranked_step, shares = ranking(step, score, chosen), []
    for _ in range(12):
        before = recovery_first(score(plain.trainable, batch), batch, rewards_and_advantages(batch, chosen)[0])
        plain, expected = step(plain, {}, batch)
        state, metrics = ranked_step(state, {}, batch)
        shares.append(float(metrics.pop("groups/recovery_first")))
        assert shares[-1] == np.mean(before)
        assert metrics.keys() == expected.keys()
    assert jax.tree.all(jax.tree.map(np.array_equal, state.trainable, plain.trainable))
    assert shares[0] < shares[-1]  # training puts recoveries first


def test_confidence_is_the_geometric_mean_of_the_reflections_probabilities(
    functions: PolicyFunctions, variables: dict, sft_batch: Callable[..., SftBatch]
) -> None:
    step = sft_step(functions, OPTIMIZER, device_mesh(jax.devices()[:1]), microbatches=1, chunk_size=64)
    batch = sft_batch(4, 3)
    _, metrics = step(initial_state(variables, OPTIMIZER), {}, batch)
    success, count = reflection_confidence(metrics)
    assert count == np.sum(batch.segments[:, 1:] == 1)
    assert float(success) == pytest.approx(math.exp(float(metrics["reflection/logprob"])))
    actions_only = batch.replace(segments=np.where(batch.segments == 1, 2, batch.segments))
    _, metrics = step(initial_state(variables, OPTIMIZER), {}, actions_only)
    _, count = reflection_confidence(metrics)
    assert count == 0  # so that the pacer does not take exp(0) for a perfect update


def test_the_pacer_is_told_of_success_and_the_line_of_the_batch() -> None:
    pacer = Pacer(Curriculum("success-paced", 0.3, 0.5, threshold=0.5, window=2, updates=10))
    pacer.metrics = {"curriculum/share": 0.25}
    step = paced(lambda state, frozen, batch: (state, {"loss": 1.0, "hits": batch}), pacer, lambda m: (m["hits"], 1))
    for hits, level in ((1.0, 30), (0.5, 30), (0.0, 40), (0.0, 40), (0.0, 40)):
        pacer.begin_update()
        assert pacer.level == level
        _, metrics = step(None, {}, hits)
        assert metrics == {"loss": 1.0, "hits": hits, "curriculum/share": 0.25}


def test_no_curriculum_has_no_pacer_and_the_others_start_where_they_are_told() -> None:
    data = base_config().data
    assert stage_pacer(data, updates=10) is None
    data.curriculum, data.curriculum_pace = "linear", (0.45, 0.5)
    assert stage_pacer(data, updates=10).level == 45
    assert not stage_pacer(data, updates=10).needs_success
    data.curriculum = "success-paced"
    assert stage_pacer(data, updates=10).needs_success
