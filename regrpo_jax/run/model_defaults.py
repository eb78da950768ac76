"""What "auto" stands for: types, recomputation, and what is trained, from the size of the model.

    fewer than `LARGE` parameters    float32, nothing recomputed, all weights trained: a policy from scratch on a CPU
    more                             bfloat16, layers recomputed, an adapter trained: a pretrained one on accelerators

Trained in full, a model takes 16 bytes a parameter before anything is computed (weights, gradient and two moments in
float32): 130 GiB for Qwen2-VL-7B. A value that a person sets is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from regrpo_jax.config.combinations import optimizer_field
from regrpo_jax.config.command_line import field_values
from regrpo_jax.models.config import PolicyConfig, tiny
from regrpo_jax.models.model_files import described_in
from regrpo_jax.models.parameter_count import parameter_count
from regrpo_jax.models.qwen2_vl.hf_config import read_config

AUTO = "auto"
TRAINABLE = "optimizer.trainable"  # which a stage may have for itself, too
LARGE = 400_000_000  # parameters; Qwen2.5-0.5B has 494 million, SmolLM2-360M 362 million
SMALL_CHOICES = {
    "model.dtype": "float32",
    "model.param_dtype": "float32",
    "model.remat": "none",
    TRAINABLE: "full",
}
LARGE_CHOICES = {
    "model.dtype": "bfloat16",
    "model.param_dtype": "bfloat16",
    "model.remat": "full",
    TRAINABLE: "lora",
}


def chosen_values(values: Mapping[str, Any], parameters: int) -> dict[str, str]:
    """Field -> what it is, for each field that may be "auto".

    Args:
      values: of every field, flat.
      parameters: of the model.
    """
    choices = dict(LARGE_CHOICES if parameters >= LARGE else SMALL_CHOICES)
    if values["model.quantize"] != "none" or values["player.server"]:
        # Weights in few bits stay frozen, and a server can be given an adapter and no other weights.
        choices[TRAINABLE] = "lora"
    choices |= {field: choices[TRAINABLE] for field in values if field.endswith(f".{TRAINABLE}")}
    return {field: choice if values[field] == AUTO else values[field] for field, choice in choices.items()}


def with_model_defaults(config: ConfigDict) -> ConfigDict:
    """The config with a value in the place of every "auto" of these fields; one that has none comes back as it is.

    Raises:
      UserError: `config.model.path` has no `config.json` that can be read.
    """
    values = field_values(config)
    if all(values[field] == chosen for field, chosen in chosen_values(values, LARGE).items()):
        return config
    found = config.copy_and_resolve_references()
    found.update_from_flattened_dict(chosen_values(values, parameter_count(_sizes(config))))
    return found


def describe_choices(config: ConfigDict, policy: PolicyConfig, stages: tuple[str, ...]) -> str:
    """One line for the start of a run: how large the model is, and what was chosen for it or set.

    Args:
      stages: those that train.
    """
    values = field_values(config)
    fields = [f"model.{name}" for name in ("dtype", "param_dtype", "remat")]
    fields += dict.fromkeys(optimizer_field(values, stage, "trainable") for stage in stages)
    chosen = ", ".join(f"{field}={values[field]}" for field in fields)
    return f"policy of {parameter_count(policy):,} parameters: {chosen}"


def _sizes(config: ConfigDict) -> PolicyConfig:
    """Of the model, near enough: the tokenizer of a policy from scratch may come out smaller than it was asked for."""
    model = config.model
    if model.path:
        return read_config(described_in(Path(model.path)))
    return tiny(model.vocab_size, hidden_size=model.hidden_size, num_layers=model.num_layers, images=model.images)
