"""bfloat16 beside float32: what is trained is float32, so that small updates are not rounded away."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from regrpo_jax.data.batches import SftBatch
from regrpo_jax.models.lora import AdapterSettings
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.training.checkpoints import StageCheckpoints
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.state import TrainState, initial_state, split_variables, trained_policy
from regrpo_jax.training.steps import sft_step
from regrpo_jax.training.train_step import Step

SETTINGS = AdapterSettings(2, ("q_proj", "v_proj"))
# Less than half the distance between neighbouring bfloat16 numbers of the size of most weights.
OPTIMIZER = optax.adamw(2e-4)
UPDATES = 150


def half(functions: PolicyFunctions) -> PolicyFunctions:
    return policy_functions(dataclasses.replace(functions.config, dtype="bfloat16", param_dtype="bfloat16"))


@pytest.fixture(scope="module")
def half_variables(variables: dict) -> dict[str, Any]:
    return jax.tree.map(lambda x: x.astype(jnp.bfloat16), variables)


def split(variables: dict, functions: PolicyFunctions, trainable: Any = "full") -> tuple[dict, dict]:
    return split_variables(variables, trainable, jax.random.key(1), functions.config, SETTINGS)


@functools.cache
def step_of(functions: PolicyFunctions) -> Step:
    return sft_step(functions, OPTIMIZER, device_mesh(jax.devices()[:1]), microbatches=2, chunk_size=64)


def trained(
    functions: PolicyFunctions, trainable: dict, batch: SftBatch, *, frozen: dict | None = None, updates: int = UPDATES
) -> tuple[TrainState, list[float]]:
    """The state after some updates on the same batch, and the loss before each."""
    state, losses = initial_state(trainable, OPTIMIZER), []
    for _ in range(updates):
        state, metrics = step_of(functions)(state, frozen or {}, batch)
        losses.append(metrics["loss"])
    return state, [float(loss) for loss in losses]


def share_moved(before: dict, after: dict) -> float:
    """Of the weights that are not where they were; none counts twice."""
    pairs = list(zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True))
    moved = sum(int(np.sum(np.asarray(old, np.float32) != np.asarray(new, np.float32))) for old, new in pairs)
    return moved / sum(old.size for old, _ in pairs)


def float_dtypes(tree: Any) -> set[str]:
    return {str(x.dtype) for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)}


def test_bfloat16_trains_as_float32_does(functions: PolicyFunctions, half_variables: dict, sft_batch: Any) -> None:
    batch, start = sft_batch(0, 4), half_variables["params"]
    same = {"params": jax.tree.map(lambda x: x.astype(jnp.float32), start)}
    wide, losses = trained(functions, split(same, functions)[0], batch)
    state, half_losses = trained(half(functions), split(half_variables, half(functions))[0], batch)
    rounded, lost = trained(half(functions), half_variables, batch)  # as it would be without float32 underneath

    learnt = losses[0] - losses[-1]
    assert learnt > 0.25
    assert half_losses[0] == pytest.approx(losses[0], rel=0.001)
    assert half_losses[-1] == pytest.approx(losses[-1], abs=0.01 * learnt)
    assert lost[0] - lost[-1] < 0.6 * learnt
    moved = [share_moved(start, each.trainable["params"]) for each in (wide, state, rounded)]
    assert moved[0] > 0.99 and moved[1] > 0.99 and moved[2] < 0.85


@pytest.mark.parametrize("trainable", ["full", "lora"])
def test_what_is_trained_is_float32_and_what_is_kept_is_not(
    functions: PolicyFunctions, half_variables: dict, sft_batch: Any, trainable: str
) -> None:
    policy = half(functions)
    own, frozen = split(half_variables, policy, trainable)
    assert float_dtypes(own) == {"float32"}
    assert float_dtypes(frozen) == ({"bfloat16"} if trainable == "lora" else set())
    state, _ = trained(policy, own, sft_batch(0, 4), frozen=frozen, updates=1)
    assert float_dtypes(state.trainable) == float_dtypes(state.optimizer_state) == {"float32"}
    after = trained_policy(state.trainable, frozen, policy.config)
    assert float_dtypes(after["params"]) == {"bfloat16"}
    assert float_dtypes(after.get("lora", {})) == ({"float32"} if trainable == "lora" else set())
    assert jax.tree.structure(after["params"]) == jax.tree.structure(half_variables["params"])


def test_the_policy_before_the_first_update_is_the_one_that_came_in(
    functions: PolicyFunctions, half_variables: dict, sft_batch: Any
) -> None:
    policy, block = half(functions), sft_batch(0, 4).block
    own, frozen = split(half_variables, policy)
    before, _ = policy.run_prefix(half_variables, block, None)
    wide, _ = policy.run_prefix({**frozen, **own}, block, None)
    assert wide.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(wide, np.float32), np.asarray(before, np.float32))
    for array, given in zip(
        jax.tree.leaves(trained_policy(own, frozen, policy.config)), jax.tree.leaves(half_variables), strict=True
    ):
        np.testing.assert_array_equal(array, given)


def test_an_adapter_is_merged_before_anything_is_rounded(functions: PolicyFunctions, half_variables: dict) -> None:
    adapter = jax.tree.map(lambda x: x + 1e-3, split(half_variables, functions, "lora")[0]["lora"])
    own, _ = split(half_variables | {"lora": adapter}, half(functions))
    kernel, old = (tree["params"]["layers"]["q_proj"]["kernel"] for tree in (own, half_variables))
    down, up = (np.asarray(adapter["layers"]["q_proj"][name]) for name in ("down", "up"))
    scale = functions.config.lora_alpha / down.shape[-1]
    np.testing.assert_allclose(kernel, np.asarray(old, np.float32) + scale * down @ up, rtol=1e-5, atol=1e-7)
    assert np.any(np.asarray(kernel) != np.asarray(kernel.astype(jnp.bfloat16), np.float32))


def test_a_checkpoint_keeps_what_bfloat16_could_not(
    functions: PolicyFunctions, half_variables: dict, sft_batch: Any, tmp_path: Path
) -> None:
    policy, batch = half(functions), sft_batch(0, 4)
    own, _ = split(half_variables, policy)
    state, _ = trained(policy, own, batch, updates=3)
    checkpoints = StageCheckpoints(tmp_path / "sft", keep=1)
    checkpoints.save(state, {})
    checkpoints.close()
    checkpoints = StageCheckpoints(tmp_path / "sft", keep=1)
    restored, _ = checkpoints.restore(initial_state(own, OPTIMIZER))
    checkpoints.close()
    assert share_moved(state.trainable, jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.trainable)) > 0.5
    for array, expected in zip(jax.tree.leaves(restored), jax.tree.leaves(state), strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_array_equal(array, expected)


def test_another_word_than_full_or_lora_is_refused(functions: PolicyFunctions, variables: dict) -> None:
    with pytest.raises(ValueError, match="trainable is 'auto', not 'full' or 'lora'"):
        split(variables, functions, "auto")
