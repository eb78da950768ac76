"""The learning rate at the edges of its schedule, and one update by hand."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from regrpo_jax.config.base_config import base_config, stage_section
from regrpo_jax.training.optimizer import learning_rate_schedule, make_optimizer


def stage(**changes: float):
    config = stage_section(base_config(), "sft")
    config.update(changes)
    return config


def test_schedule_warms_up_then_falls_to_its_share() -> None:
    schedule = learning_rate_schedule(
        stage(learning_rate=0.1, warmup_steps=10, final_learning_rate_share=0.2), steps=110
    )
    assert schedule(0) == 0.0
    assert schedule(5) == pytest.approx(0.05)
    assert schedule(10) == pytest.approx(0.1)
    assert schedule(60) == pytest.approx(0.06)  # half of the cosine: (0.1 + 0.02) / 2
    assert schedule(110) == pytest.approx(0.02)
    assert schedule(1000) == pytest.approx(0.02)


def test_schedule_without_warm_up_starts_at_its_peak() -> None:
    schedule = learning_rate_schedule(stage(learning_rate=0.1, warmup_steps=0), steps=10)
    assert schedule(0) == pytest.approx(0.1)
    assert float(schedule(1)) < 0.1


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_stage_shorter_than_its_warm_up_never_passes_the_peak(steps: int) -> None:
    schedule = learning_rate_schedule(stage(learning_rate=0.1, warmup_steps=5), steps=steps)
    rates = [float(schedule(step)) for step in range(8)]
    assert np.isfinite(rates).all()
    assert max(rates) == pytest.approx(0.1)
    assert rates[:6] == pytest.approx([0.02 * step for step in range(6)])


def test_update_is_that_of_adamw_on_the_clipped_gradient() -> None:
    config = stage(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, beta2=0.9, clip_norm=1.0)
    optimizer = make_optimizer(config, steps=100)
    weight, gradient = jnp.array([2.0, -1.0]), jnp.array([30.0, -40.0])
    state = optimizer.init(weight)
    updates, state = optimizer.update(gradient, state, weight)
    # The first step of Adam is the sign of the gradient; decay pulls every weight towards 0.
    np.testing.assert_allclose(
        optax.apply_updates(weight, updates), [2.0 - 0.1 * (1 + 0.5 * 2.0), -1.0 + 0.1 * (1 + 0.5 * 1.0)], rtol=1e-5
    )
    moments = next(part for part in state[1] if hasattr(part, "nu"))
    np.testing.assert_allclose(moments.nu, [0.1 * 0.6**2, 0.1 * 0.8**2], rtol=1e-5)  # clipped to norm 1
