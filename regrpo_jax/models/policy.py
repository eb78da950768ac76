"""The policy as functions of (variables, arrays): what losses, samplers and the training loop see."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.inputs import BranchCache, ImagePatches, PrefixCache, PrefixLayers, TokenBlock
from regrpo_jax.models.qwen2_vl.decoder import Policy, layer_weights

Array = jax.Array
Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PolicyFunctions:
    """Pure functions of one policy configuration.

    `variables` is `{"params": ...}` for the reference policy, `{"params": ..., "lora": ...}` with an adapter.

    Attributes:
      config: the sizes.
      init: (key) -> variables with fresh float parameters.
      run_prefix: (variables, TokenBlock [group, prefix], ImagePatches | None, *, dropout_key=None) -> (hidden,
        PrefixCache). The images are those of the prefix, then those of the group's branches. With a key, adapter inputs
        are dropped as `config.lora_dropout` says.
      run_branches: (variables, TokenBlock [group, branch, token], PrefixCache, *, dropout_key=None) -> hidden.
      layer_weights: (variables, layers of each run) -> the variables of each run of decoder layers.
      encode_images: (variables, ImagePatches) -> merged features [group, feature, width], see `VisionTower`.
      decode_branches: (variables, TokenBlock [group, branch, token], PrefixLayers, BranchCache, weights of runs,
        features [feature, width] | None) -> (hidden, BranchCache).
      head: (variables) -> output embedding [vocab, hidden].
    """

    config: PolicyConfig
    init: Callable[[Array], Variables]
    run_prefix: Callable[..., tuple[Array, PrefixCache]]
    run_branches: Callable[..., Array]
    encode_images: Callable[[Variables, ImagePatches], Array]
    layer_weights: Callable[[Variables, tuple[int, ...]], tuple[Variables, ...]]
    decode_branches: Callable[..., tuple[Array, BranchCache]]
    head: Callable[[Variables], Array]


@functools.cache
def policy_functions(config: PolicyConfig) -> PolicyFunctions:
    """The functions of `config`; cached, so that jit recognises them from call to call."""
    module = Policy(config)

    def method(name: str) -> Callable[..., Any]:
        def apply(variables: Variables, *inputs: Any, dropout_key: Array | None = None) -> Any:
            rngs = None if dropout_key is None else {"dropout": dropout_key}
            return module.apply(variables, *inputs, method=name, rngs=rngs)

        return apply

    def init(key: Array) -> Variables:
        return {"params": module.init(key, _shape_probe(), _image_probe(config), method="initialise")["params"]}

    return PolicyFunctions(
        config=config,
        init=init,
        run_prefix=method("run_prefix"),
        run_branches=method("run_branches"),
        encode_images=method("encode_images"),
        layer_weights=layer_weights,
        decode_branches=method("decode_branches"),
        head=method("head"),
    )


def empty_branch_cache(prefix: PrefixLayers, branches: int, length: int) -> BranchCache:
    """Room for `length` slots in each of `branches` branches per group of `prefix`."""

    rows = len(prefix.valid) * branches
    keys = [jnp.zeros((len(run), rows, *run.shape[2:4], length), run.dtype) for run in prefix.keys]
    values = [jnp.zeros((len(run), rows, run.shape[2], length, run.shape[4]), run.dtype) for run in prefix.values]
    return BranchCache(
        keys=tuple(keys),
        values=tuple(values),
        valid=jnp.zeros((len(prefix.valid), branches, length), bool),
        last_tokens=jnp.repeat(prefix.last_tokens[:, None], branches, axis=1),  # [group, branch, mixing]
        length=jnp.zeros((), jnp.int32),
    )


def _shape_probe() -> TokenBlock:
    ones = jnp.ones((1, 4), jnp.int32)
    return TokenBlock(ones, ones, jnp.zeros((1, 4, 3), jnp.int32), -ones)


def _image_probe(config: PolicyConfig) -> ImagePatches | None:
    if config.vision is None:
        return None
    patches = config.vision.spatial_merge_size**2
    return ImagePatches(
        jnp.zeros((1, patches, config.vision.patch_dim)),
        jnp.ones((1, patches), jnp.int32),
        jnp.zeros((1, patches, 2), jnp.int32),
        jnp.ones((1, patches), jnp.int32),
    )
