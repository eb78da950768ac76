"""What is trained and what is held still, for weights and adapters that may or may not be there."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from regrpo_jax.models.config import tiny
from regrpo_jax.models.lora import AdapterSettings
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.training.state import Trainable, initial_state, split_variables

CONFIG = tiny(40, hidden_size=32, num_layers=1, images=False)
SETTINGS = AdapterSettings(2, ("q_proj", "v_proj"))


def split(variables: dict, trainable: Trainable, seed: int = 1) -> tuple[dict, dict]:
    return split_variables(variables, trainable, jax.random.key(seed), CONFIG, SETTINGS)


@pytest.fixture
def adapted(variables: dict) -> dict:
    """The policy with an adapter that changes it."""
    lora = split(variables, "lora")[0]["lora"]
    return variables | {"lora": jax.tree.map(lambda x: x + 0.05, lora)}


def test_full_training_of_a_plain_policy_freezes_nothing(variables: dict) -> None:
    trainable, frozen = split(variables, "full")
    assert trainable == {"params": variables["params"]}
    assert frozen == {}


def test_fresh_adapter_changes_nothing_yet(variables: dict) -> None:
    trainable, frozen = split(variables, "lora")
    flat = traverse_util.flatten_dict(trainable["lora"], sep="/")
    assert {path.rsplit("/", 1)[0] for path in flat} == {"layers/q_proj", "layers/v_proj"}
    assert all((array == 0).all() == path.endswith("/up") for path, array in flat.items())
    assert flat["layers/q_proj/down"].shape == (1, 32, 2)
    assert frozen == {"params": variables["params"]}
    again, other = split(variables, "lora")[0], split(variables, "lora", seed=2)[0]
    assert jax.tree.all(jax.tree.map(jnp.array_equal, trainable, again))
    assert not jax.tree.all(jax.tree.map(jnp.array_equal, trainable, other))


def test_existing_adapter_goes_on(adapted: dict) -> None:
    trainable, frozen = split(adapted, "lora")
    assert trainable == {"lora": adapted["lora"]}
    assert frozen == {"params": adapted["params"]}


def test_full_training_after_an_adapter_starts_from_the_same_policy(
    functions: PolicyFunctions, variables: dict, adapted: dict, group_batch: Any
) -> None:
    trainable, frozen = split(adapted, "full")
    assert frozen == {} and set(trainable) == {"params"}
    block = group_batch(0, 2).prefix
    before, _ = functions.run_prefix(variables, block, None)
    with_adapter, _ = functions.run_prefix(adapted, block, None)
    merged, _ = functions.run_prefix(trainable, block, None)
    assert functions.config.lora_alpha == CONFIG.lora_alpha
    np.testing.assert_allclose(merged, with_adapter, atol=1e-5)
    assert not np.allclose(before, with_adapter, atol=1e-3)


def test_initial_state_owns_its_arrays(variables: dict) -> None:
    optimizer = optax.sgd(0.1)
    state = initial_state({"params": variables["params"]}, optimizer)
    assert state.step == 0 and state.step.dtype == jnp.int32
    pairs = zip(jax.tree.leaves(state.trainable["params"]), jax.tree.leaves(variables["params"]), strict=True)
    for own, given in pairs:
        np.testing.assert_array_equal(own, given)
        assert own is not given and own.unsafe_buffer_pointer() != given.unsafe_buffer_pointer()
