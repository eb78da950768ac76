"""The inference gate against the paper's equation, clause by clause."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrpo_jax.agent.gate import GateDecision, adaptive_threshold, confidence, reflection_gate
from regrpo_jax.records import Status

FAILING = [Status.TOOL_ERROR, Status.TIMEOUT, Status.INVALID_ACTION, Status.EMPTY]
UNITS = st.floats(0.0, 1.0)


def test_confidence_is_the_geometric_mean_of_the_probabilities() -> None:
    assert confidence([math.log(0.5), math.log(0.125)]) == pytest.approx(0.25)
    assert confidence([-1e9]) == 0.0
    assert confidence([]) == 0.0


@given(st.lists(st.floats(-50.0, 0.0), min_size=1))
def test_confidence_lies_between_the_least_and_most_likely_token(logprobs: list[float]) -> None:
    value = confidence(logprobs)
    assert math.exp(min(logprobs)) <= value * (1 + 1e-12)
    assert value <= math.exp(max(logprobs)) * (1 + 1e-12)


def test_threshold_is_the_mean_of_the_history() -> None:
    assert adaptive_threshold([0.2, 0.4, 0.9]) == pytest.approx(0.5)
    assert adaptive_threshold([]) == -math.inf


@pytest.mark.parametrize("status", FAILING)
def test_a_failure_opens_at_any_step_and_confidence(status: Status) -> None:
    assert reflection_gate(status, 1, 1.0, [], 0) == GateDecision(True, status.value, 1.0, -math.inf)
    assert reflection_gate(status, 5, 1.0, [0.1], 0) == GateDecision(True, status.value, 1.0, 0.1)


def test_low_confidence_opens_after_the_first_step_only() -> None:
    assert reflection_gate(Status.OK, 2, 0.3, [0.8], 0) == GateDecision(True, "low_confidence", 0.3, 0.8)
    assert reflection_gate(Status.OK, 2, 0.8, [0.8], 0) == GateDecision(False, "none", 0.8, 0.8)
    assert reflection_gate(Status.OK, 1, 0.3, [0.8], 0) == GateDecision(False, "none", 0.3, 0.8)
    assert reflection_gate(Status.OK, 2, 0.0, [], 0) == GateDecision(False, "none", 0.0, -math.inf)


@given(st.sampled_from(Status), st.integers(1, 20), UNITS, st.lists(UNITS), st.integers(1, 5))
def test_a_step_has_one_block_at_most(
    status: Status, step: int, certainty: float, previous: list[float], opened: int
) -> None:
    first = reflection_gate(status, step, certainty, previous, 0)
    second = reflection_gate(status, step, certainty, previous, opened)
    assert not second.open
    assert second.reason == ("block_limit" if first.open else first.reason)


@given(st.integers(1, 20), UNITS, st.lists(UNITS), st.integers(0, 2))
def test_an_infra_error_never_opens(step: int, certainty: float, previous: list[float], opened: int) -> None:
    decision = reflection_gate(Status.INFRA_ERROR, step, certainty, previous, opened)
    assert (decision.open, decision.reason) == (False, "infra_error")


@given(st.sampled_from(Status), st.integers(1, 20), UNITS, st.lists(UNITS))
def test_the_equation(status: Status, step: int, certainty: float, previous: list[float]) -> None:
    mean = sum(previous) / len(previous) if previous else -math.inf
    expected = status in FAILING or (status is Status.OK and step > 1 and certainty < mean)
    decision = reflection_gate(status, step, certainty, previous, 0)
    assert abs(certainty - mean) < 1e-9 or decision.open is expected
