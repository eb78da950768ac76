"""The policy as functions of (variables, arrays): what losses, samplers and the training loop see."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.inputs import BranchCache, ImagePatches, PrefixCache, TokenBlock
from regrpo_jax.models.qwen2_vl.decoder import Policy

Array = jax.Array
Variables = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PolicyFunctions:
    """Pure functions of one policy configuration.

    `variables` is `{"params": ...}` for the reference policy, `{"params": ..., "lora": ...}` with an adapter.

    Attributes:
      config: the sizes.
      init: (key) -> variables with fresh float parameters.
      run_prefix: (variables, TokenBlock [group, prefix], ImagePatches | None) -> (hidden, PrefixCache).
      run_branches: (variables, TokenBlock [group, branch, token], PrefixCache) -> hidden.
      decode_branches: (variables, TokenBlock, PrefixCache, BranchCache) -> (hidden, BranchCache).
      head: (variables) -> output embedding [vocab, hidden].
    """

    config: PolicyConfig
    init: Callable[[Array], Variables]
    run_prefix: Callable[[Variables, TokenBlock, ImagePatches | None], tuple[Array, PrefixCache]]
    run_branches: Callable[[Variables, TokenBlock, PrefixCache], Array]
    decode_branches: Callable[[Variables, TokenBlock, PrefixCache, BranchCache], tuple[Array, BranchCache]]
    head: Callable[[Variables], Array]


@functools.cache
def policy_functions(config: PolicyConfig) -> PolicyFunctions:
    """The functions of `config`; cached, so that jit recognises them from call to call."""
    module = Policy(config)

    def method(name: str) -> Callable[..., Any]:
        return lambda variables, *inputs: module.apply(variables, *inputs, method=name)

    def init(key: Array) -> Variables:
        return {"params": module.init(key, _shape_probe(), _image_probe(config), method="initialise")["params"]}

    return PolicyFunctions(
        config=config,
        init=init,
        run_prefix=method("run_prefix"),
        run_branches=method("run_branches"),
        decode_branches=method("decode_branches"),
        head=method("head"),
    )


def empty_branch_cache(prefix: PrefixCache, branches: int, length: int) -> BranchCache:
    """Room for `length` slots in each of `branches` branches per group of `prefix`."""
    layers, groups, _, kv_heads, head_dim = prefix.keys.shape
    shape = (layers, groups, branches, length, kv_heads, head_dim)
    last_tokens = jnp.repeat(prefix.last_tokens[:, None], branches, axis=1)  # [group, branch, mixing]
    return BranchCache(
        keys=jnp.zeros(shape, prefix.keys.dtype),
        values=jnp.zeros(shape, prefix.values.dtype),
        valid=jnp.zeros(shape[1:4], bool),
        last_tokens=last_tokens,
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
