"""What training changes, and what it holds still.

What is trained is float32 whatever `config.model.param_dtype` says: an update is often less than half the distance to
the next bfloat16 number, and would be lost. The policy casts it to `config.model.dtype` where it computes. Gradients
are as wide as what they are of, and so are the sums over microbatches and the optimizer's moments.
"""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import struct
from jax.sharding import Mesh

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.layers import at_least_float32
from regrpo_jax.models.lora import AdapterSettings, init_adapter, merge_adapter
from regrpo_jax.models.sharding import param_shardings

Tree = dict[str, Any]
Trainable = Literal["full", "lora"]


@struct.dataclass
class TrainState:
    """One stage's moving parts; everything here is in a checkpoint.

    Attributes:
      step: int32 scalar, updates done.
      trainable: {"params": ..} or {"lora": ..}, at least float32.
      optimizer_state: of the stage's optimizer.
    """

    step: jax.Array
    trainable: Tree
    optimizer_state: Any


def split_variables(
    variables: Tree, trainable: Trainable, key: jax.Array, config: PolicyConfig, settings: AdapterSettings
) -> tuple[Tree, Tree]:
    """(trainable, frozen) collections of a policy, what is trained in at least float32.

    "lora" trains the adapter, one of `settings` where there is none; "full" trains the weights, with an existing
    adapter merged into them first.

    Raises:
      ValueError: `trainable` is neither.
    """
    frozen = frozen_part(variables, trainable)
    if trainable == "full":
        params = _widened(variables["params"])
        if "lora" in variables:
            params = merge_adapter(params, variables["lora"], config)
        return {"params": params}, frozen
    adapter = variables.get("lora") or init_adapter(key, variables["params"], settings)
    return {"lora": _widened(adapter)}, frozen


def frozen_part(variables: Tree, trainable: Trainable) -> Tree:
    """The collections that a stage holds still; no array is made. ValueError as above."""
    if trainable not in ("full", "lora"):
        raise ValueError(f"trainable is {trainable!r}, not 'full' or 'lora'; see model_defaults.with_model_defaults")
    return {} if trainable == "full" else {"params": variables["params"]}


def trained_policy(trainable: Tree, frozen: Tree, config: PolicyConfig) -> Tree:
    """The policy after a stage, as every policy is kept: weights in `config.param_dtype`, an adapter in float32."""
    if "params" not in trainable:
        return {**frozen, **trainable}
    stored = jax.tree.map(lambda array: _cast(array, config.param_dtype), trainable["params"])
    return {**frozen, **trainable, "params": stored}


def adapter_settings(lora: ml_collections.ConfigDict) -> AdapterSettings:
    """The adapter that `config.lora` describes."""
    return AdapterSettings(
        rank=lora.rank,
        targets=tuple(lora.targets),
        last_layers=lora.last_layers,
        vision_rank=lora.vision_rank,
        vision_targets=tuple(lora.vision_targets),
    )


def initial_state(trainable: Tree, optimizer: optax.GradientTransformation) -> TrainState:
    """Step 0. The arrays are copied, because a train step donates its state."""
    own = jax.tree.map(jnp.copy, trainable)
    return TrainState(jnp.zeros((), jnp.int32), own, optimizer.init(own))


def abstract_state(make: Callable[[Tree], TrainState], variables: Tree, mesh: Mesh) -> TrainState:
    """What `make(variables)` would be on the devices of `mesh`, as shapes and shardings: a place to restore into.

    So there are never two states in memory, and a checkpoint goes onto another mesh than it was written from.
    """
    shapes = jax.eval_shape(make, variables)
    return jax.tree.map(
        lambda shape, sharding: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding),
        shapes,
        param_shardings(shapes, mesh),
    )


def _widened(tree: Tree) -> Tree:
    return jax.tree.map(lambda array: _cast(array, at_least_float32(array.dtype)), tree)


def _cast(array: jax.Array, dtype: Any) -> jax.Array:
    """The array itself where it has that type, so that no memory is taken for nothing."""
    return array if array.dtype == jnp.dtype(dtype) else array.astype(dtype)
