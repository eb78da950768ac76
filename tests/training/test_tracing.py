"""Chosen updates leave a trace, others nothing."""

from pathlib import Path

import jax.numpy as jnp

from regrpo_jax.training.tracing import Tracing


def test_chosen_updates_are_traced(tmp_path: Path) -> None:
    tracing = Tracing(("2",), tmp_path / "sft")
    for number in (1, 2, 3):
        tracing.begin(number)
        tracing.end(number, jnp.ones(3) + number)
        assert (tmp_path / "sft").exists() == (number >= 2)
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == 1
