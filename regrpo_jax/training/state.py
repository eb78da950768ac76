"""What training changes, and what it holds still."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import struct

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.lora import AdapterSettings, init_adapter, merge_adapter

Tree = dict[str, Any]
Trainable = Literal["full", "lora"]


@struct.dataclass
class TrainState:
    """One stage's moving parts; everything here is in a checkpoint.

    Attributes:
      step: int32 scalar, updates done.
      trainable: {"params": ..} or {"lora": ..}.
      optimizer_state: of the stage's optimizer.
    """

    step: jax.Array
    trainable: Tree
    optimizer_state: Any


def split_variables(
    variables: Tree, trainable: Trainable, key: jax.Array, config: PolicyConfig, settings: AdapterSettings
) -> tuple[Tree, Tree]:
    """(trainable, frozen) collections of a policy.

    "lora" trains the adapter, one of `settings` where there is none; "full" trains the weights, with an existing
    adapter merged into them first.
    """
    if trainable == "full":
        params = variables["params"]
        if "lora" in variables:
            params = merge_adapter(params, variables["lora"], config)
        return {"params": params}, {}
    adapter = variables.get("lora") or init_adapter(key, variables["params"], settings)
    return {"lora": adapter}, {"params": variables["params"]}


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
