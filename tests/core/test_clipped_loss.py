"""The clipped loss against a plain Python loop over tokens, and what it must be on fresh data of the policy's own."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.core.clipped_loss import RATIOS, clipped_denominator, clipped_loss
from regrpo_jax.core.kl import KL_ESTIMATORS
from regrpo_jax.core.losses import regrpo_loss
from regrpo_jax.core.metrics import finalize_metrics

GROUPS, BRANCHES, TOKENS = 3, 4, 9
SHAPE = (GROUPS, BRANCHES, TOKENS)
BETA = 0.07
CLIP = (0.2, 0.28)
seeds = st.integers(0, 10_000)
caps = st.sampled_from([None, 1.0, 1.5])
unhurried = settings(max_examples=25, deadline=None)


class Batch(dict[str, Any]):
    """Random arrays under the argument names of `clipped_loss`; ratios from far below to far above 1."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        kinds = random.choice([0, 1, 2], size=SHAPE, p=[0.3, 0.3, 0.4])  # [group, branch, token]
        logprobs = random.uniform(-4, 0, SHAPE)
        super().__init__(
            token_logprobs=logprobs,
            reference_logprobs=random.uniform(-4, 0, SHAPE),
            behaviour_logprobs=logprobs + random.normal(scale=0.4, size=SHAPE),
            reflection_mask=kinds == 1,
            action_mask=kinds == 2,
            advantages=random.normal(size=SHAPE),
        )
        self.proximal_logprobs: Any = logprobs + random.normal(scale=0.4, size=SHAPE)
        self.keep: Any = random.random(SHAPE) < 0.7
        self.trained: Any = kinds > 0


def loop_kl(difference: float, estimator: str) -> float:
    return {
        "k1": difference,
        "k2": difference**2 / 2,
        "k3": math.exp(-difference) - 1 + difference,
        "k3_release": math.exp(difference) - 1 - difference,
    }[estimator]


def loop_loss(
    batch: Batch,
    *,
    proximal_logprobs: np.ndarray | None = None,
    weight_cap: float | None = None,
    kl_estimator: str = "k3",
    keep: np.ndarray | None = None,
    keep_kl: bool = False,
    ratio_of: str = "token",
) -> float:
    """One token after the other, as the docstring has it."""
    proximal = batch["behaviour_logprobs"] if proximal_logprobs is None else proximal_logprobs
    policy_terms, kl_terms = [], []
    in_policy = batch.trained if keep is None else batch.trained & keep  # [group, branch, token]
    differences = batch["token_logprobs"] - proximal  # [group, branch, token]
    for here in np.ndindex(*SHAPE):
        kept = keep is None or bool(keep[here])
        if not batch.trained[here] or not (kept or keep_kl):
            continue
        logprob, advantage = float(batch["token_logprobs"][here]), float(batch["advantages"][here])
        kl_terms.append(loop_kl(logprob - float(batch["reference_logprobs"][here]), kl_estimator))
        of_branch = [float(x) for x, own in zip(differences[here[:2]], in_policy[here[:2]], strict=True) if own]
        log_ratio = float(differences[here])
        if ratio_of == "branch" and kept:
            log_ratio = sum(of_branch) / len(of_branch)
        ratio = math.exp(log_ratio)
        weight = math.exp(float(proximal[here] - batch["behaviour_logprobs"][here]))
        weight = weight if weight_cap is None else min(weight, weight_cap)
        bounded = min(max(ratio, 1 - CLIP[0]), 1 + CLIP[1])
        policy_terms.append(weight * min(ratio * advantage, bounded * advantage) if kept else 0.0)
    count = max(len(kl_terms), 1)
    return -sum(policy_terms) / count + BETA * sum(kl_terms) / count


def loss_of(batch: Batch, **options: Any) -> float:
    return float(clipped_loss(**batch, beta=BETA, clip_range=CLIP, **options)[0])


def gradient_of(batch: Batch, beta: float = BETA, **options: Any) -> np.ndarray:
    def loss(token_logprobs: jax.Array) -> jax.Array:
        return clipped_loss(**{**batch, "token_logprobs": token_logprobs}, beta=beta, clip_range=CLIP, **options)[0]

    return np.asarray(jax.grad(loss)(jnp.asarray(batch["token_logprobs"])))


@unhurried
@given(
    seed=seeds,
    estimator=st.sampled_from(KL_ESTIMATORS),
    stale=st.booleans(),
    cap=caps,
    dropped=st.booleans(),
    keep_kl=st.booleans(),
    ratio_of=st.sampled_from(RATIOS),
)
def test_equals_definition(
    seed: int, estimator: str, stale: bool, cap: float | None, dropped: bool, keep_kl: bool, ratio_of: str
) -> None:
    batch = Batch(seed)
    options: dict[str, Any] = {
        "kl_estimator": estimator,
        "keep": batch.keep if dropped else None,
        "keep_kl": keep_kl,
        "proximal_logprobs": batch.proximal_logprobs if stale else None,
        "weight_cap": cap,
        "ratio_of": ratio_of,
    }
    np.testing.assert_allclose(loss_of(batch, **options), loop_loss(batch, **options), rtol=1e-10, atol=1e-12)


@unhurried
@given(seed=seeds, cap=caps, given_proximal=st.booleans())
def test_first_update_on_fresh_rollouts_is_the_plain_policy_gradient(
    seed: int, cap: float | None, given_proximal: bool
) -> None:
    """pi = pi_old = mu: every ratio and weight is exactly 1, nothing is clipped, dL/dlog pi(t) = -A_t / N."""
    batch = Batch(seed)
    batch["behaviour_logprobs"] = batch["token_logprobs"]
    options: dict[str, Any] = {
        "weight_cap": cap,
        "proximal_logprobs": batch["token_logprobs"] if given_proximal else None,
    }
    sums = clipped_loss(**batch, beta=0.0, clip_range=CLIP, **options)[1]
    for segment in ("reflection", "action"):
        count = batch[f"{segment}_mask"].sum()
        for name in ("ratio_sum", "weight_sum", "policy_token_count", "token_count"):
            assert sums[f"{segment}/{name}"] == count
        assert sums[f"{segment}/clipped_count"] == sums[f"{segment}/capped_count"] == 0

    def plain(token_logprobs: jax.Array) -> jax.Array:
        objective = jnp.where(batch.trained, batch["advantages"] * token_logprobs, 0.0)
        return -jnp.sum(objective) / batch.trained.sum()

    expected = jax.grad(plain)(jnp.asarray(batch["token_logprobs"]))
    np.testing.assert_allclose(gradient_of(batch, beta=0.0, **options), expected, rtol=1e-14)
    assert np.abs(expected).max() > 1e-3


@unhurried
@given(seed=seeds, cap=st.sampled_from([1.0, 1.2, 3.0]))
def test_gradient_of_a_stale_batch(seed: int, cap: float) -> None:
    """-w r A at tokens that are not clipped, 0 at those that are; w is a constant, at most the cap."""
    batch = Batch(seed)
    gradient = gradient_of(batch, beta=0.0, proximal_logprobs=batch.proximal_logprobs, weight_cap=cap, denominator=1)
    ratio = np.exp(batch["token_logprobs"] - batch.proximal_logprobs)
    weight = np.minimum(np.exp(batch.proximal_logprobs - batch["behaviour_logprobs"]), cap)
    clipped = np.where(batch["advantages"] > 0, ratio > 1 + CLIP[1], ratio < 1 - CLIP[0])
    expected = np.where(batch.trained & ~clipped, -weight * ratio * batch["advantages"], 0.0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-12)
    sums = clipped_loss(**batch, beta=0.0, clip_range=CLIP, proximal_logprobs=batch.proximal_logprobs, weight_cap=cap)[
        1
    ]
    means = finalize_metrics(sums)
    for segment in ("reflection", "action"):
        mask = batch[f"{segment}_mask"]
        np.testing.assert_allclose(means[f"{segment}/clip_share"], clipped[mask].mean(), rtol=1e-12)
        np.testing.assert_allclose(means[f"{segment}/ratio"], ratio[mask].mean(), rtol=1e-12)
        np.testing.assert_allclose(means[f"{segment}/weight"], weight[mask].mean(), rtol=1e-12)
        np.testing.assert_allclose(means[f"{segment}/cap_share"], (weight[mask] == cap).mean(), rtol=1e-12)


@pytest.mark.parametrize("keep_kl", [False, True])
def test_kl_and_its_gradient_are_of_the_tokens_in_the_loss(keep_kl: bool) -> None:
    batch = Batch(3)
    in_loss = batch.trained if keep_kl else batch.trained & batch.keep
    difference = batch["token_logprobs"] - batch["reference_logprobs"]
    batch["advantages"] = np.zeros(SHAPE)
    gradient = gradient_of(batch, keep=batch.keep, keep_kl=keep_kl)
    expected = np.where(in_loss, BETA * (1 - np.exp(-difference)) / in_loss.sum(), 0.0)
    np.testing.assert_allclose(gradient, expected, rtol=1e-10, atol=1e-14)
    assert (in_loss & ~batch.keep).any() == keep_kl
    assert clipped_denominator(batch.trained, batch.keep, keep_kl=keep_kl) == in_loss.sum()


@unhurried
@given(seed=seeds, garbage=st.sampled_from([-math.inf, 0.0, 1e30, math.nan]), estimator=st.sampled_from(KL_ESTIMATORS))
def test_what_is_not_trained_is_never_seen(seed: int, garbage: float, estimator: str) -> None:
    """Observations, openings, padding and dropped tokens may hold anything, in values and in gradients."""
    results = []
    for dirty in (False, True):
        batch = Batch(seed)
        unseen = ~(batch.trained & batch.keep)
        if dirty:
            for name in ("token_logprobs", "reference_logprobs", "behaviour_logprobs", "advantages"):
                batch[name][unseen] = garbage
            batch.proximal_logprobs[unseen] = garbage
        options: dict[str, Any] = {
            "kl_estimator": estimator,
            "keep": batch.keep,
            "proximal_logprobs": batch.proximal_logprobs,
            "weight_cap": 1.5,
        }
        results.append((loss_of(batch, **options), gradient_of(batch, **options)))
    assert results[0][0] == results[1][0] and math.isfinite(results[0][0])
    np.testing.assert_array_equal(results[0][1], results[1][1])
    np.testing.assert_array_equal(results[0][1][unseen], 0.0)


@unhurried
@given(seed=seeds)
def test_a_ratio_of_the_branch_is_that_of_gspo(seed: int) -> None:
    batch = Batch(seed)
    batch["advantages"] = np.broadcast_to(batch["advantages"][..., :1], SHAPE)  # one of each branch

    def gspo(token_logprobs: jax.Array) -> jax.Array:
        """-(1/N) sum_i |y_i| min(s_i A_i, clip(s_i) A_i), with s_i = (pi(y_i) / pi_old(y_i)) ^ (1 / |y_i|)."""
        difference = jnp.where(
            batch.trained, token_logprobs - batch["behaviour_logprobs"], 0.0
        )  # [group, branch, token]
        length = jnp.sum(batch.trained, axis=-1)  # [group, branch]
        ratio = jnp.exp(jnp.sum(difference, axis=-1) / jnp.maximum(length, 1))  # [group, branch]
        advantage = batch["advantages"][..., 0]  # [group, branch]
        bounded = jnp.clip(ratio, 1 - CLIP[0], 1 + CLIP[1])
        return -jnp.sum(length * jnp.minimum(ratio * advantage, bounded * advantage)) / batch.trained.sum()

    value, gradient = jax.value_and_grad(gspo)(jnp.asarray(batch["token_logprobs"]))
    ours, _ = clipped_loss(**batch, beta=0.0, clip_range=CLIP, ratio_of="branch")
    np.testing.assert_allclose(ours, value, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(gradient_of(batch, beta=0.0, ratio_of="branch"), gradient, rtol=1e-9, atol=1e-12)


def test_a_budget_counts_every_branch_that_is_in_the_loss() -> None:
    batch = Batch(3)
    batch.trained[0, 1] = False
    counted = sum(bool((batch.trained & batch.keep)[here].any()) for here in np.ndindex(*SHAPE[:2]))
    assert clipped_denominator(batch.trained, batch.keep, branch_length=50) == 50 * counted > 0


@unhurried
@given(seed=seeds, keep_kl=st.booleans(), stale=st.booleans())
def test_microbatches_with_one_denominator_equal_the_big_batch(seed: int, keep_kl: bool, stale: bool) -> None:
    batch = Batch(seed)
    parts = [slice(index, index + 1) for index in range(GROUPS)]

    def options_of(part: slice) -> dict[str, Any]:
        proximal = batch.proximal_logprobs[part] if stale else None
        return {"keep": batch.keep[part], "keep_kl": keep_kl, "proximal_logprobs": proximal, "weight_cap": 1.5}

    counts = [clipped_denominator(batch.trained[part], batch.keep[part], keep_kl=keep_kl) for part in parts]
    denominator = sum(map(int, counts))
    results = [
        clipped_loss(
            **{name: array[part] for name, array in batch.items()},
            beta=BETA,
            clip_range=CLIP,
            denominator=denominator,
            **options_of(part),
        )
        for part in parts
    ]
    whole, sums = clipped_loss(**batch, beta=BETA, clip_range=CLIP, **options_of(slice(None)))
    np.testing.assert_allclose(sum(loss for loss, _ in results), whole, rtol=1e-12)
    added = jax.tree.map(lambda *values: sum(values), *(sums for _, sums in results))
    for name, value in finalize_metrics(sums).items():
        np.testing.assert_allclose(finalize_metrics(added)[name], value, atol=1e-12, err_msg=name)


def test_a_ratio_that_overflows_is_clipped_without_a_trace() -> None:
    batch = Batch(1)
    batch["behaviour_logprobs"] = batch["token_logprobs"] - 1e4
    batch["advantages"] = np.abs(batch["advantages"])
    assert math.isfinite(loss_of(batch))
    np.testing.assert_array_equal(gradient_of(batch, beta=0.0), 0.0)


def test_nothing_to_train_is_zero() -> None:
    batch = Batch(2)
    loss, sums = clipped_loss(**batch, beta=BETA, clip_range=CLIP, keep=np.zeros(SHAPE, bool))
    assert loss == 0.0
    assert all(np.isfinite(value) for value in finalize_metrics(sums).values())
    np.testing.assert_array_equal(gradient_of(batch, keep=np.zeros(SHAPE, bool)), 0.0)


def test_half_precision_is_added_up_in_float32() -> None:
    rounded, exact = Batch(4), Batch(4)
    for name in ("token_logprobs", "reference_logprobs", "behaviour_logprobs", "advantages"):
        rounded[name] = jnp.asarray(rounded[name], jnp.bfloat16)
        exact[name] = np.asarray(rounded[name].astype(jnp.float32))
    loss, metrics = clipped_loss(**rounded, beta=jnp.float32(BETA), clip_range=CLIP)
    assert loss.dtype == metrics["loss/kl"].dtype == jnp.float32
    np.testing.assert_allclose(loss, loop_loss(exact), rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip_range": (0.0, 0.2)}, "two positive numbers"),
        ({"clip_range": CLIP, "weight_cap": 0.5}, "weight_cap 0.5 is below 1"),
        ({"clip_range": CLIP, "ratio_of": "group"}, "'group' must be one of token, branch"),
        ({"clip_range": CLIP, "kl_estimator": "forward"}, "unknown KL estimator 'forward'"),
    ],
)
def test_errors(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        clipped_loss(**Batch(0), beta=BETA, **options)


def sampled_gradient(logits: Sequence[float], behaviour: Sequence[float], proximal: Sequence[float]) -> np.ndarray:
    """Gradient for the logits of pi, averaged exactly over one token sampled from mu, at pi = pi_old."""
    rewards = np.array([1.0, -0.5, 0.2])
    mu = jax.nn.softmax(jnp.asarray(behaviour))
    total = np.zeros(3)
    for token in range(3):

        def loss(values: jax.Array, token: int = token) -> jax.Array:
            def at(of: jax.Array) -> jax.Array:
                return jax.nn.log_softmax(of)[token].reshape(1, 1, 1)

            mask = jnp.ones((1, 1, 1), bool)
            return clipped_loss(
                at(values),
                at(values),
                at(jnp.asarray(behaviour)),
                ~mask,
                mask,
                jnp.full((1, 1, 1), rewards[token]),
                beta=0.0,
                clip_range=CLIP,
                proximal_logprobs=at(jnp.asarray(proximal)),
            )[0]

        total += float(mu[token]) * np.asarray(jax.grad(loss)(jnp.asarray(logits)))
    return total


def test_weights_make_a_stale_sample_unbiased() -> None:
    """Averaged over mu, the weighted gradient is the one that samples of pi would give."""
    logits, behaviour = [0.3, -0.2, 0.5], [-0.9, 0.8, 0.1]
    fresh = sampled_gradient(logits, logits, logits)
    stale = sampled_gradient(logits, behaviour, logits)
    np.testing.assert_allclose(stale, fresh, atol=1e-14)
    unweighted = sampled_gradient(logits, behaviour, behaviour)  # clipped where mu is far away
    assert np.abs(unweighted - fresh).max() > 0.01


@pytest.mark.parametrize("estimator", KL_ESTIMATORS)
@unhurried
@given(seed=seeds)
def test_beta_weighs_the_same_offline_and_online(estimator: str, seed: int) -> None:
    """On fresh samples the two losses have the same gradient but for what they are divided by."""
    batch = Batch(seed)
    per_branch = batch["advantages"][..., :1]  # [group, branch, 1]
    shared = {name: batch[name] for name in ("reference_logprobs", "reflection_mask", "action_mask")}
    count = max(int(batch.trained.sum()), 1)

    def online(logprobs: jax.Array) -> jax.Array:
        advantages = jnp.broadcast_to(per_branch, SHAPE)
        own = {"behaviour_logprobs": batch["token_logprobs"], "advantages": advantages, "clip_range": CLIP}
        return clipped_loss(logprobs, **shared, **own, beta=BETA, kl_estimator=estimator)[0] * count

    def offline(logprobs: jax.Array) -> jax.Array:
        value = regrpo_loss(logprobs, **shared, advantages=per_branch[..., 0], beta=BETA, kl_estimator=estimator)[0]
        return value * GROUPS * BRANCHES

    gradients = [jax.grad(loss)(jnp.asarray(batch["token_logprobs"])) for loss in (online, offline)]
    np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-5)
