"""Small policies with random weights everywhere (biases, norm scales and both halves of the adapter included)."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from regrpo_jax.models.config import PolicyConfig, VisionConfig, interleaved_axes
from regrpo_jax.models.lora import AdapterSettings, init_adapter
from regrpo_jax.models.policy import policy_functions

VISION = VisionConfig(
    depth=2, embed_dim=16, num_heads=2, intermediate_size=32, patch_size=2, temporal_patch_size=1, learned_grid=4
)
SMALL = PolicyConfig(
    vocab_size=23,
    hidden_size=16,
    intermediate_size=24,
    num_layers=2,
    num_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    rope_theta=10_000.0,
    rotary_axes=interleaved_axes(6),
    vision=VISION,
    token_mixing_width=3,
    embedding_scale=1.5,
    remat="none",
    lora_alpha=3.0,
)


@pytest.fixture(scope="session")
def small_config() -> PolicyConfig:
    """A decoder of two layers that sees images and mixes tokens; float32."""
    return SMALL


@pytest.fixture(scope="session")
def random_variables() -> Callable[..., dict[str, Any]]:
    """(config, seed, rank=0) -> variables of order one, none of them zero; with an adapter when rank is given."""

    def build(config: PolicyConfig, seed: int, *, rank: int = 0) -> dict[str, Any]:
        random = np.random.default_rng(seed)
        targets = ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")

        def initial(key: jax.Array) -> dict[str, Any]:
            variables = policy_functions(config).init(key)
            if rank:
                variables["lora"] = init_adapter(key, variables["params"], AdapterSettings(rank, targets))
            return variables

        def noise(path: tuple[Any, ...], shape: jax.ShapeDtypeStruct) -> jax.Array:
            mean = 1.0 if path[-1].key == "scale" else 0.0
            return jnp.asarray(mean + random.normal(scale=0.3, size=shape.shape), config.param_dtype)

        # Only the shapes of `init`: running it would compile for seconds.
        return jax.tree_util.tree_map_with_path(noise, jax.eval_shape(initial, jax.random.key(seed)))

    return build
