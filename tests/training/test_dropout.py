"""Adapter dropout: another draw each update, the same draw for the same update, none where nothing trains."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from regrpo_jax.config.base_config import base_config
from regrpo_jax.data.batches import GroupBatch
from regrpo_jax.models.layers import Projection
from regrpo_jax.models.lora import AdapterSettings
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.training.loop import RunContext
from regrpo_jax.training.metrics import MetricsWriter
from regrpo_jax.training.parallel import device_mesh, parallel_gradient
from regrpo_jax.training.state import TrainState, initial_state, split_variables
from regrpo_jax.training.steps import RegrpoSettings, group_logprobs, regrpo_step

OPTIMIZER = optax.sgd(0.1)
KEY = jax.random.key(7)
Update = Callable[..., tuple[dict[str, Any], dict[str, float]]]


@pytest.fixture(scope="module")
def dropping(functions: PolicyFunctions) -> PolicyFunctions:
    return policy_functions(dataclasses.replace(functions.config, lora_dropout=0.3))


@pytest.fixture(scope="module")
def adapted(functions: PolicyFunctions, variables: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """An adapter away from zero, and the frozen weights."""
    adapter, frozen = split_variables(variables, "lora", KEY, functions.config, AdapterSettings(rank=2))
    return jax.tree.map(lambda x: x + 0.1, adapter), frozen


@pytest.fixture(scope="module")
def update(
    adapted: tuple[dict[str, Any], dict[str, Any]],
    settings: Callable[..., RegrpoSettings],
    group_batch: Callable[..., GroupBatch],
) -> Callable[[PolicyFunctions, jax.Array | None], Update]:
    """(functions, key) -> (number of the update) -> adapter and metrics after it, always from the same adapter."""
    adapter, frozen = adapted
    batch = group_batch(1, 2)

    def make(functions: PolicyFunctions, key: jax.Array | None) -> Update:
        mesh = device_mesh(jax.devices()[:1])
        step = regrpo_step(functions, OPTIMIZER, mesh, settings(), microbatches=1, chunk_size=64, dropout_key=key)

        def run(number: int) -> tuple[dict[str, Any], dict[str, float]]:
            start = initial_state(adapter, OPTIMIZER)
            state = TrainState(jnp.asarray(number, jnp.int32), start.trainable, start.optimizer_state)
            state, metrics = step(state, frozen, batch)
            return jax.device_get((state.trainable, metrics))

        return run

    return make


def is_same(tree: Any, other: Any) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, tree, other))


def test_an_update_draws_by_its_number_and_nothing_else(
    update: Callable[..., Update], dropping: PolicyFunctions
) -> None:
    """So a resumed run, which knows the number from its checkpoint, drops what the uninterrupted one dropped."""
    run = update(dropping, KEY)
    assert is_same(run(3), run(3))
    assert run(3)[1]["loss"] != run(4)[1]["loss"]
    assert not is_same(run(3)[0], run(4)[0])


def test_without_dropout_a_key_changes_nothing(update: Callable[..., Update], functions: PolicyFunctions) -> None:
    assert is_same(update(functions, KEY)(3), update(functions, None)(3))


def test_scoring_never_drops(
    functions: PolicyFunctions,
    dropping: PolicyFunctions,
    adapted: tuple[dict[str, Any], dict[str, Any]],
    group_batch: Callable[..., GroupBatch],
) -> None:
    variables = {**adapted[0], **adapted[1]}
    plain, other = (group_logprobs(f, variables, group_batch(1, 2), chunk_size=64) for f in (functions, dropping))
    np.testing.assert_array_equal(plain, other)


def test_every_part_of_a_batch_draws_its_own() -> None:
    def loss(
        trainable: jax.Array, frozen: None, rows: jax.Array, denominator: jax.Array, key: jax.Array | None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        assert key is not None
        return jnp.sum(trainable), {"draws": jnp.zeros(4).at[rows[0]].set(jax.random.uniform(key))}

    mesh = device_mesh(jax.devices()[:1])
    _, sums = parallel_gradient(loss, mesh, microbatches=4)(jnp.ones(()), None, jnp.arange(4), jnp.ones(()), KEY)
    assert len(set(sums["draws"].tolist())) == 4


def test_the_expected_output_of_an_adapter_is_that_without_dropout() -> None:
    random = np.random.default_rng(0)
    inputs, down, up = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((3, 16), (16, 2), (2, 5)))
    variables = {"params": {"kernel": jnp.zeros((16, 5))}, "lora": {"down": down, "up": up}}
    projection = Projection(5, use_bias=False, param_dtype="float32", lora_alpha=2.0, lora_dropout=0.25)

    def output(**rngs: jax.Array) -> jax.Array:
        return jnp.asarray(projection.apply(variables, inputs, rngs=rngs))

    kept = output()  # [row, feature]
    np.testing.assert_allclose(kept, inputs @ down @ up, rtol=1e-4, atol=1e-5)
    drawn = jax.vmap(lambda key: output(dropout=key))(jax.random.split(KEY, 20_000))  # [draw, row, feature]
    error = np.std(drawn, axis=0) / np.sqrt(len(drawn))  # [row, feature]
    assert np.all(error > 0.001)
    assert np.all(np.abs(np.mean(drawn, axis=0) - kept) < 5 * error)


def test_stages_draw_from_keys_of_their_own_and_only_if_something_drops(
    tmp_path: Path, functions: PolicyFunctions, dropping: PolicyFunctions
) -> None:
    def context(functions: PolicyFunctions) -> RunContext:
        mesh = device_mesh(jax.devices()[:1])
        return RunContext(base_config(), tmp_path, MetricsWriter(tmp_path), functions, mesh, -1)

    assert context(functions).dropout_key("sft") is context(functions).dropout_key("rl") is None
    keys = [context(dropping).dropout_key("sft"), context(dropping).dropout_key("rl"), context(dropping).key(2)]
    assert len({tuple(np.asarray(jax.random.key_data(key))) for key in keys if key is not None}) == 3
