"""KL estimators: formulas, and the claims of the docstring checked by summing over a whole vocabulary."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from regrpo_jax.core.kl import KL_ESTIMATORS, kl_estimate

unhurried = settings(deadline=None, max_examples=50)  # the first example compiles
POLICY_LOGITS = np.array([0.3, -1.0, 2.0, 0.1])  # [vocabulary]
REFERENCE_LOGITS = np.array([-0.5, 0.4, 1.1, 0.7])  # [vocabulary]


def log_softmax(logits: Array | np.ndarray) -> Array:
    return jax.nn.log_softmax(jnp.asarray(logits))


def divergence(first: Array, second: Array) -> Array:
    """KL(first || second) of two log-probability vectors, exactly."""
    return jnp.sum(jnp.exp(first) * (first - second))


def loop_kl(difference: float, estimator: str) -> float:
    return {
        "k1": difference,
        "k2": 0.5 * difference * difference,
        "k3": math.exp(-difference) + difference - 1.0,
        "k3_release": math.exp(difference) - difference - 1.0,
    }[estimator]


@unhurried
@given(policy=st.floats(-10, 0), reference=st.floats(-10, 0), estimator=st.sampled_from(KL_ESTIMATORS))
def test_equals_definition(policy: float, reference: float, estimator: str) -> None:
    actual = kl_estimate(jnp.asarray(policy), jnp.asarray(reference), estimator=estimator)
    np.testing.assert_allclose(actual, loop_kl(policy - reference, estimator), rtol=1e-9, atol=1e-12)


@unhurried
@given(difference=st.floats(-5, 5, width=32), estimator=st.sampled_from(["k2", "k3", "k3_release"]))
def test_non_negative_in_float32(difference: float, estimator: str) -> None:
    value = kl_estimate(jnp.float32(difference), jnp.float32(0.0), estimator=estimator)
    assert value.dtype == jnp.float32
    assert float(value) >= -1.2e-7 * abs(difference)


@pytest.mark.parametrize("estimator", ["k1", "k3"])
def test_unbiased_on_samples_of_the_policy(estimator: str) -> None:
    policy, reference = log_softmax(POLICY_LOGITS), log_softmax(REFERENCE_LOGITS)
    expectation = jnp.sum(jnp.exp(policy) * kl_estimate(policy, reference, estimator=estimator))
    np.testing.assert_allclose(expectation, divergence(policy, reference), rtol=1e-12)


def test_release_k3_is_unbiased_for_the_mirrored_kl_on_samples_of_the_reference() -> None:
    policy, reference = log_softmax(POLICY_LOGITS), log_softmax(REFERENCE_LOGITS)
    expectation = jnp.sum(jnp.exp(reference) * kl_estimate(policy, reference, estimator="k3_release"))
    np.testing.assert_allclose(expectation, divergence(reference, policy), rtol=1e-12)
    on_policy = jnp.sum(jnp.exp(policy) * kl_estimate(policy, reference, estimator="k3_release"))
    assert abs(float(on_policy - divergence(policy, reference))) > 0.05


def expected_loss_gradient(estimator: str) -> Array:
    """Gradient for the logits when tokens sampled from pi carry the estimate as a loss, averaged exactly."""
    reference = log_softmax(REFERENCE_LOGITS)
    sampling = jax.nn.softmax(jnp.asarray(POLICY_LOGITS))

    def loss(logits: Array) -> Array:
        return jnp.sum(sampling * kl_estimate(log_softmax(logits), reference, estimator=estimator))

    return jax.grad(loss)(jnp.asarray(POLICY_LOGITS))


def test_gradients_on_samples_of_the_policy() -> None:
    """k1 has no gradient on average, k2 that of KL(pi || pi_ref), k3 that of KL(pi_ref || pi)."""
    reference = log_softmax(REFERENCE_LOGITS)
    forward = jax.grad(lambda logits: divergence(log_softmax(logits), reference))(jnp.asarray(POLICY_LOGITS))
    mirrored = jax.grad(lambda logits: divergence(reference, log_softmax(logits)))(jnp.asarray(POLICY_LOGITS))
    np.testing.assert_allclose(expected_loss_gradient("k1"), 0.0, atol=1e-12)
    np.testing.assert_allclose(expected_loss_gradient("k2"), forward, atol=1e-12)
    np.testing.assert_allclose(expected_loss_gradient("k3"), mirrored, atol=1e-12)
    assert float(jnp.max(jnp.abs(forward))) > 0.1


@pytest.mark.parametrize(
    ("estimator", "coefficient"),
    [("k1", 1.0), ("k2", 0.7), ("k3", 1 - math.exp(-0.7)), ("k3_release", math.exp(0.7) - 1)],
)
def test_gradient_coefficients(estimator: str, coefficient: float) -> None:
    gradient = jax.grad(lambda logprob: kl_estimate(logprob, jnp.asarray(-2.0), estimator=estimator))(-1.3)
    np.testing.assert_allclose(gradient, coefficient, rtol=1e-12)


def test_k3_keeps_its_digits_near_the_reference_in_float32() -> None:
    small = jnp.float32(1e-3)
    np.testing.assert_allclose(kl_estimate(small, jnp.float32(0), estimator="k3"), 0.5e-6, rtol=1e-3)


def test_unknown_estimator() -> None:
    with pytest.raises(ValueError, match="unknown KL estimator 'k4'"):
        kl_estimate(jnp.zeros(2), jnp.zeros(2), estimator="k4")
