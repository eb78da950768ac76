"""Adapters: fresh ones change nothing, merged ones equal applied ones, only what is named gets one."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from flax import traverse_util

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.lora import ATTENTION_TARGETS, init_adapter, merge_adapter
from regrpo_jax.models.policy import policy_functions

VariablesOf = Callable[..., dict[str, Any]]


@functools.cache
def hidden_states_of(config: PolicyConfig) -> Callable[[dict[str, Any]], jax.Array]:
    """variables -> hidden states of a fixed row of eight tokens.  # [1, token, hidden]"""
    tokens = np.arange(8, dtype=np.int32)[None]
    positions = np.repeat(tokens[..., None], 3, axis=-1)
    block = TokenBlock(tokens, np.ones_like(tokens), positions, np.full_like(tokens, -1))
    run = jax.jit(policy_functions(config).run_prefix, compiler_options={"xla_backend_optimization_level": 0})
    return lambda variables: run(variables, block, None)[0]


def test_a_fresh_adapter_changes_nothing(small_config: PolicyConfig, random_variables: VariablesOf) -> None:
    variables = random_variables(small_config, 1)
    adapter = init_adapter(jax.random.key(0), variables["params"], rank=3)
    run = hidden_states_of(small_config)
    np.testing.assert_array_equal(run({**variables, "lora": adapter}), run(variables))
    for path, array in traverse_util.flatten_dict(adapter, sep="/").items():
        assert np.any(array) == path.endswith("/down"), path


def test_down_is_within_the_bound_of_peft_and_differs_by_layer_and_key(
    small_config: PolicyConfig, random_variables: VariablesOf
) -> None:
    params = random_variables(small_config, 1)["params"]
    first, second = (init_adapter(jax.random.key(seed), params, rank=3) for seed in (0, 1))
    down = np.asarray(first["layers"]["q_proj"]["down"])  # [layer, in_features, rank]
    assert np.max(np.abs(down)) <= small_config.hidden_size**-0.5
    assert np.all(down[0] != down[1])
    assert np.all(down != second["layers"]["q_proj"]["down"])
    assert np.all(down != first["layers"]["k_proj"]["down"])


def test_merged_weights_equal_the_applied_adapter(small_config: PolicyConfig, random_variables: VariablesOf) -> None:
    variables = random_variables(small_config, 2, rank=2)
    run = hidden_states_of(small_config)
    applied = run(variables)
    merged = merge_adapter(variables["params"], variables["lora"], alpha=small_config.lora_alpha)
    np.testing.assert_allclose(run({"params": merged}), applied, atol=2e-5)
    assert np.max(np.abs(run({"params": variables["params"]}) - applied)) > 0.1
    assert jax.tree.map(np.shape, merged) == jax.tree.map(np.shape, variables["params"])


def test_only_named_projections_get_an_adapter(small_config: PolicyConfig, random_variables: VariablesOf) -> None:
    params = random_variables(small_config, 1)["params"]
    attention = init_adapter(jax.random.key(0), params, rank=4)
    assert set(attention) == {"layers"}
    assert set(attention["layers"]) == set(ATTENTION_TARGETS)
    chosen = init_adapter(jax.random.key(0), params, rank=4, targets=("up_proj",))
    assert jax.tree.map(np.shape, chosen) == {
        "layers": {
            "up_proj": {
                "down": (small_config.num_layers, small_config.hidden_size, 4),
                "up": (small_config.num_layers, 4, small_config.intermediate_size),
            }
        }
    }


@pytest.mark.parametrize("rank", [0, -1])
def test_rank_below_one_is_an_error(small_config: PolicyConfig, random_variables: VariablesOf, rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank must be at least 1, got {rank}"):
        init_adapter(jax.random.key(0), random_variables(small_config, 1)["params"], rank=rank)


@pytest.mark.parametrize(
    ("targets", "named"),
    [(("query",), "query"), (("q_proj", "o_porj"), "o_porj"), (("q_.*",), "q_.*"), (("qkv",), "qkv")],
)
def test_an_unknown_target_is_an_error_even_beside_known_ones(
    small_config: PolicyConfig, random_variables: VariablesOf, targets: tuple[str, ...], named: str
) -> None:
    with pytest.raises(ValueError, match="no projection") as error:
        init_adapter(jax.random.key(0), random_variables(small_config, 1)["params"], rank=2, targets=targets)
    assert named in str(error.value)
    assert "down_proj, gate_proj, k_proj" in str(error.value)
    assert "q_proj," not in str(error.value).split(";")[0]


def test_no_target_at_all_is_an_error(small_config: PolicyConfig, random_variables: VariablesOf) -> None:
    with pytest.raises(ValueError, match="name at least one projection"):
        init_adapter(jax.random.key(0), random_variables(small_config, 1)["params"], rank=2, targets=())
