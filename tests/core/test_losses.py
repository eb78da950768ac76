"""The losses against a plain Python loop over rollouts, written from the paper's equation."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from regrpo_jax.core.advantages import group_advantages, two_stream_advantages, zero_variance_groups
from regrpo_jax.core.kl import KL_ESTIMATORS
from regrpo_jax.core.losses import branch_denominator, regrpo_loss, sft_loss, token_denominator
from regrpo_jax.core.metrics import finalize_metrics

GROUPS, BRANCHES, TOKENS = 3, 5, 9
BETA = 0.07


class Batch(dict[str, Any]):
    """Random arrays under the argument names of `regrpo_loss`."""

    def __init__(self, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        shape = (GROUPS, BRANCHES, TOKENS)
        # Each branch: padding, then reflection (maybe none), then a gap, then action tokens.
        kinds = random.choice([0, 1, 2], size=shape, p=[0.3, 0.3, 0.4])  # [group, branch, token]
        kinds[:, 0][kinds[:, 0] == 1] = 0  # one-shot branches have no reflection
        super().__init__(
            token_logprobs=random.uniform(-4, 0, shape),
            reference_logprobs=random.uniform(-4, 0, shape),
            reflection_mask=kinds == 1,
            action_mask=kinds == 2,
            advantages=random.normal(size=(GROUPS, BRANCHES)),
        )
        self.branch_mask: Any = random.random((GROUPS, BRANCHES)) < 0.7
        self.branch_mask[:, :2] = True
        self.group_keep: Any = np.array([True, False, True])


def loop_kl(difference: float, estimator: str) -> float:
    if estimator == "k1":
        return difference
    if estimator == "k2":
        return difference**2 / 2
    exponent = -difference if estimator == "k3" else difference
    return math.exp(exponent) - 1 - exponent


def loop_loss(
    batch: Batch,
    *,
    kl_estimator: str = "k1",
    length_normalize: bool = False,
    group_keep: np.ndarray | None = None,
    keep_kl: bool = False,
    branch_mask: np.ndarray | None = None,
) -> float:
    """One rollout after the other; -mean of A_k log pi(z_k, a_k) plus beta times the mean KL_k."""
    policy_terms, kl_terms = [], []
    for group, branch in np.ndindex(GROUPS, BRANCHES):
        if branch_mask is not None and not branch_mask[group, branch]:
            continue
        kept = group_keep is None or bool(group_keep[group])
        if not kept and not keep_kl:
            continue
        advantage = float(batch["advantages"][group, branch])
        policy_sum, kl_sum, count = 0.0, 0.0, 0
        for token in range(TOKENS):
            here = (group, branch, token)
            if not (batch["reflection_mask"][here] or batch["action_mask"][here]):
                continue
            logprob = float(batch["token_logprobs"][here])
            count += 1
            kl_sum += loop_kl(logprob - float(batch["reference_logprobs"][here]), kl_estimator)
            policy_sum += advantage * logprob
        scale = max(count, 1) if length_normalize else 1
        policy_terms.append(policy_sum / scale if kept else 0.0)
        kl_terms.append(kl_sum / scale)
    if not kl_terms:
        return 0.0
    return -sum(policy_terms) / len(policy_terms) + BETA * sum(kl_terms) / len(kl_terms)


def loss_of(batch: Batch, **options: Any) -> float:
    return float(regrpo_loss(**batch, beta=BETA, **options)[0])


def gradient_of(batch: Batch, **options: Any) -> np.ndarray:
    def loss(token_logprobs: Array) -> Array:
        arrays = {**batch, "token_logprobs": token_logprobs}
        return regrpo_loss(**arrays, beta=BETA, **options)[0]

    return np.asarray(jax.grad(loss)(jnp.asarray(batch["token_logprobs"])))


@pytest.mark.parametrize("length_normalize", [False, True])
@pytest.mark.parametrize("estimator", KL_ESTIMATORS)
def test_plain_loss_equals_definition(estimator: str, length_normalize: bool) -> None:
    batch = Batch(1)
    options: dict[str, Any] = {"kl_estimator": estimator, "length_normalize": length_normalize}
    np.testing.assert_allclose(loss_of(batch, **options), loop_loss(batch, **options), rtol=1e-10)


@pytest.mark.parametrize("keep_kl", [False, True])
@pytest.mark.parametrize("length_normalize", [False, True])
def test_masked_branches_and_dropped_groups_equal_definition(keep_kl: bool, length_normalize: bool) -> None:
    batch = Batch(3)
    options: dict[str, Any] = {
        "group_keep": batch.group_keep,
        "keep_kl": keep_kl,
        "branch_mask": batch.branch_mask,
        "length_normalize": length_normalize,
    }
    np.testing.assert_allclose(loss_of(batch, **options), loop_loss(batch, **options), rtol=1e-10)


@pytest.mark.parametrize(
    "options",
    [
        {"baseline": "mean"},
        {"baseline": "mean", "normalize": True, "clip_range": 0.8},
        {"baseline": "leave_one_out", "normalize": True},
    ],
)
def test_from_rewards_to_loss(options: dict[str, Any]) -> None:
    """The whole chain on rewards with one zero-variance group, with each kind of advantage."""
    batch = Batch(4)
    rewards = np.array([[1.0, 0.0, 0.97, 1.0, 0.0], [1.0] * 5, [1.0, 0.0, 0.95, 0.0, 0.0]])  # [group, branch]
    keep = np.asarray(~zero_variance_groups(rewards))  # [group]
    np.testing.assert_array_equal(keep, [True, False, True])
    batch["advantages"] = np.asarray(group_advantages(rewards, **options))
    np.testing.assert_allclose(loss_of(batch, group_keep=keep), loop_loss(batch, group_keep=keep), rtol=1e-10)


def test_two_stream_loss() -> None:
    batch = Batch(5)
    random = np.random.default_rng(5)
    outcomes, verifiers = random.random((2, GROUPS, BRANCHES))
    batch["advantages"] = np.asarray(two_stream_advantages(outcomes, verifiers, alpha=0.5))
    expected = (outcomes - outcomes.mean(-1, keepdims=True)) + 0.5 * (verifiers - verifiers.mean(-1, keepdims=True))
    reference = Batch(5)
    reference["advantages"] = expected
    np.testing.assert_allclose(loss_of(batch), loop_loss(reference), rtol=1e-10)


def test_gradient_is_minus_advantage_plus_beta_on_trained_tokens_only() -> None:
    """With k1: dL/dlog pi(t) = (beta - A_k) / number of branches at reflection and action tokens, else 0."""
    batch = Batch(6)
    trained = batch["reflection_mask"] | batch["action_mask"]  # [group, branch, token]
    expected = np.where(trained, (BETA - batch["advantages"])[..., None] / (GROUPS * BRANCHES), 0.0)
    np.testing.assert_allclose(gradient_of(batch), expected, atol=1e-14)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    garbage=st.sampled_from([-math.inf, 0.0, 1e30, math.nan]),
    estimator=st.sampled_from(KL_ESTIMATORS),
)
def test_padding_never_changes_loss_or_gradient(seed: int, garbage: float, estimator: str) -> None:
    """Masked tokens, masked branches and dropped groups may hold -inf, nan or anything."""
    clean, dirty = Batch(seed), Batch(seed)
    unseen = ~(clean["reflection_mask"] | clean["action_mask"])  # [group, branch, token]
    unseen |= ~clean.branch_mask[..., None] | ~clean.group_keep[:, None, None]
    for array in (dirty["token_logprobs"], dirty["reference_logprobs"]):
        array[unseen] = garbage
    dirty["advantages"][~clean.branch_mask] = garbage
    losses, gradients = [], []
    for batch in (clean, dirty):
        options: dict[str, Any] = {
            "kl_estimator": estimator,
            "branch_mask": batch.branch_mask,
            "group_keep": batch.group_keep,
        }
        losses.append(loss_of(batch, **options))
        gradients.append(gradient_of(batch, **options))
    assert losses[0] == losses[1] and math.isfinite(losses[0])
    np.testing.assert_array_equal(gradients[0], gradients[1])
    np.testing.assert_array_equal(gradients[0][unseen], 0.0)


def test_appending_padding_changes_nothing() -> None:
    """More token slots, more branch slots and more group slots, all masked."""
    batch = Batch(9)
    widths = ((0, 2), (0, 1), (0, 4))
    padded = Batch(9)
    for name, array in batch.items():
        padded[name] = np.pad(array, widths[: array.ndim])
    branch_mask = np.pad(batch.branch_mask, widths[:2])
    np.testing.assert_allclose(
        loss_of(padded, branch_mask=branch_mask), loss_of(batch, branch_mask=batch.branch_mask), rtol=1e-12
    )
    gradient = gradient_of(padded, branch_mask=branch_mask)[:GROUPS, :BRANCHES, :TOKENS]
    np.testing.assert_allclose(gradient, gradient_of(batch, branch_mask=batch.branch_mask), atol=1e-14)


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    keep=st.lists(st.booleans(), min_size=GROUPS, max_size=GROUPS),
    keep_kl=st.booleans(),
    length_normalize=st.booleans(),
)
def test_microbatches_with_one_denominator_equal_the_big_batch(
    seed: int, keep: Sequence[bool], keep_kl: bool, length_normalize: bool
) -> None:
    batch = Batch(seed)
    group_keep: Any = np.array(keep)  # [group]
    shared: dict[str, Any] = {"keep_kl": keep_kl, "length_normalize": length_normalize}
    big = {**shared, "group_keep": group_keep, "branch_mask": batch.branch_mask}
    slices = [slice(index, index + 1) for index in range(GROUPS)]
    denominator = sum(
        int(branch_denominator(batch.branch_mask[part], group_keep[part], keep_kl=keep_kl)) for part in slices
    )
    total, gradients, sums = 0.0, [], []
    for part in slices:
        micro = Batch(seed)
        for name, array in batch.items():
            micro[name] = array[part]
        options = {**shared, "group_keep": group_keep[part], "branch_mask": batch.branch_mask[part]}
        total += loss_of(micro, **options, denominator=denominator)
        gradients.append(gradient_of(micro, **options, denominator=denominator))
        sums.append(regrpo_loss(**micro, beta=BETA, **options, denominator=denominator)[1])
    np.testing.assert_allclose(total, loss_of(batch, **big), atol=1e-12)
    np.testing.assert_allclose(np.concatenate(gradients), gradient_of(batch, **big), atol=1e-14)
    added = jax.tree.map(lambda *parts: sum(parts), *sums)
    whole = regrpo_loss(**batch, beta=BETA, **big)[1]
    for name, value in finalize_metrics(whole).items():
        np.testing.assert_allclose(finalize_metrics(added)[name], value, atol=1e-12, err_msg=name)


def test_metrics_per_segment() -> None:
    batch = Batch(10)
    options: dict[str, Any] = {"branch_mask": batch.branch_mask, "group_keep": batch.group_keep}
    loss, sums = regrpo_loss(**batch, beta=BETA, **options, kl_estimator="k2")
    metrics = {name: float(value) for name, value in finalize_metrics(sums).items()}
    real = (batch.branch_mask & batch.group_keep[:, None])[..., None]  # [group, branch, 1]
    for segment in ("reflection", "action"):
        mask = batch[f"{segment}_mask"] & real  # [group, branch, token]
        logprobs, reference = batch["token_logprobs"][mask], batch["reference_logprobs"][mask]
        assert metrics[f"{segment}/token_count"] == mask.sum() > 0
        np.testing.assert_allclose(metrics[f"{segment}/logprob"], logprobs.mean(), rtol=1e-12)
        np.testing.assert_allclose(metrics[f"{segment}/kl"], ((logprobs - reference) ** 2 / 2).mean(), rtol=1e-12)
    assert metrics["branches/count"] == real.sum()
    assert (metrics["groups/kept_count"], metrics["groups/dropped_count"]) == (2.0, 1.0)
    np.testing.assert_allclose(metrics["groups/dropped_share"], 1 / 3)
    np.testing.assert_allclose(metrics["loss/policy"] + BETA * metrics["loss/kl"], float(loss), rtol=1e-12)


def test_kept_kl_of_dropped_groups_is_counted() -> None:
    batch = Batch(11)
    dropped = regrpo_loss(**batch, beta=BETA, group_keep=batch.group_keep)[1]
    kept = regrpo_loss(**batch, beta=BETA, group_keep=batch.group_keep, keep_kl=True)[1]
    assert (float(dropped["groups/kl_only_count"]), float(kept["groups/kl_only_count"])) == (0.0, 1.0)
    assert float(kept["action/token_count"]) == batch["action_mask"].sum()
    assert float(kept["action/policy_token_count"]) == float(dropped["action/token_count"])


def test_nothing_to_train_on_is_zero_not_nan() -> None:
    batch = Batch(12)
    nothing: Any = np.zeros(GROUPS, bool)
    assert loss_of(batch, group_keep=nothing) == 0.0
    np.testing.assert_array_equal(gradient_of(batch, group_keep=nothing), 0.0)
    metrics = finalize_metrics(regrpo_loss(**batch, beta=BETA, group_keep=nothing)[1])
    assert float(metrics["groups/dropped_share"]) == 1.0
    assert all(math.isfinite(float(value)) for value in metrics.values())


def test_padding_groups_count_neither_as_kept_nor_as_dropped() -> None:
    batch = Batch(13)
    branch_mask: Any = np.ones((GROUPS, BRANCHES), bool)
    branch_mask[2] = False
    metrics = regrpo_loss(**batch, beta=BETA, branch_mask=branch_mask, group_keep=batch.group_keep)[1]
    assert (float(metrics["groups/kept_count"]), float(metrics["groups/dropped_count"])) == (1.0, 1.0)


def test_advantages_and_reference_are_constants() -> None:
    batch = Batch(14)

    def loss(advantages: Array, reference: Array) -> Array:
        arrays: dict[str, Any] = {**batch, "advantages": advantages, "reference_logprobs": reference}
        return regrpo_loss(**arrays, beta=BETA)[0]

    constants = (batch["advantages"], batch["reference_logprobs"])
    for gradient in jax.grad(loss, argnums=(0, 1))(*map(jnp.asarray, constants)):
        np.testing.assert_array_equal(gradient, 0.0)


def test_jit_gives_the_same_loss() -> None:
    batch = Batch(16)
    jitted = jax.jit(lambda values: regrpo_loss(**values, beta=BETA)[0])
    np.testing.assert_allclose(jitted(dict(batch)), loss_of(batch), rtol=1e-12)


def test_low_precision_logprobs_are_summed_in_float32() -> None:
    rounded, exact = Batch(16), Batch(16)
    for name in ("token_logprobs", "reference_logprobs", "advantages"):
        rounded[name] = jnp.asarray(rounded[name], jnp.bfloat16)
        exact[name] = rounded[name].astype(jnp.float32)
    loss, metrics = regrpo_loss(**rounded, beta=jnp.float32(BETA))
    assert loss.dtype == metrics["loss/kl"].dtype == metrics["action/logprob_sum"].dtype == jnp.float32
    np.testing.assert_allclose(loss, loss_of(exact), rtol=1e-5)
    np.testing.assert_allclose(loss, loop_loss(exact), rtol=1e-5)


def test_errors() -> None:
    batch = Batch(17)
    with pytest.raises(ValueError, match="unknown KL estimator 'forward'"):
        regrpo_loss(**batch, beta=BETA, kl_estimator="forward")


def test_sft_loss_is_the_mean_over_trained_tokens() -> None:
    batch = Batch(18)
    arrays: dict[str, Any] = {name: batch[name].copy() for name in ("token_logprobs", "reflection_mask", "action_mask")}
    trained = arrays["reflection_mask"] | arrays["action_mask"]  # [group, branch, token]
    arrays["token_logprobs"][~trained] = -math.inf
    loss, sums = sft_loss(**arrays)
    np.testing.assert_allclose(loss, -arrays["token_logprobs"][trained].mean(), rtol=1e-12)
    gradient = jax.grad(lambda logprobs: sft_loss(**{**arrays, "token_logprobs": logprobs})[0])(
        jnp.asarray(arrays["token_logprobs"])
    )
    np.testing.assert_allclose(gradient, np.where(trained, -1 / trained.sum(), 0.0), atol=1e-14)
    metrics = finalize_metrics(sums)
    expected = arrays["token_logprobs"][arrays["action_mask"]].mean()
    np.testing.assert_allclose(metrics["action/logprob"], expected, rtol=1e-12)
    assert set(metrics) == {
        f"{segment}/{name}" for segment in ("reflection", "action") for name in ("logprob", "token_count")
    }


def test_sft_microbatches_with_one_denominator_equal_the_big_batch() -> None:
    batch = Batch(19)
    arrays: dict[str, Any] = {name: batch[name] for name in ("token_logprobs", "reflection_mask", "action_mask")}
    denominator = token_denominator(arrays["reflection_mask"], arrays["action_mask"])
    parts = [
        sft_loss(**{name: array[group] for name, array in arrays.items()}, denominator=denominator)[0]
        for group in range(GROUPS)
    ]
    np.testing.assert_allclose(sum(parts), sft_loss(**arrays)[0], rtol=1e-12)


def test_sft_without_trained_tokens_is_zero() -> None:
    nothing = jnp.zeros((2, TOKENS), bool)
    loss, sums = sft_loss(jnp.full((2, TOKENS), -1.0), nothing, nothing)
    assert float(loss) == 0.0
    assert all(float(value) == 0.0 for value in finalize_metrics(sums).values())
