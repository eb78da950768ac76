"""`config.json` of a policy that no Hugging Face architecture describes, such as the tiny preset.

The directory looks like any other (config.json, model.safetensors, tokenizer), so that everything that reads one reads
this one too; only `transformers` cannot.
"""

import dataclasses
from typing import Any

from regrpo_jax.models.config import Llama3Rope, PolicyConfig, VisionConfig

MODEL_TYPE = "regrpo_tiny"
# How a run computes and adapts is the run's own choice and no part of a checkpoint.
_NOT_SIZES = ("dtype", "param_dtype", "remat", "attention", "lora_alpha", "lora_dropout")


def describe_own(config: PolicyConfig) -> dict[str, Any]:
    """Every size by its name here; `vocab_size` also where other readers look for it."""
    sizes = {name: value for name, value in dataclasses.asdict(config).items() if name not in _NOT_SIZES}
    if sizes["vision"] is not None:
        del sizes["vision"]["lora_alpha"]
    return {"model_type": MODEL_TYPE, "vocab_size": config.vocab_size, "policy": sizes}


def parse_own(description: dict[str, Any]) -> PolicyConfig:
    """What `describe_own` wrote, read from JSON.

    Raises:
      KeyError: it has no sizes.
      ValueError, TypeError: the sizes do not fit together, or there are unknown ones.
    """
    sizes = dict(description["policy"])
    vision = sizes.pop("vision", None)
    if vision is not None:
        lists = ("full_attention_blocks", "deepstack_blocks")
        vision = VisionConfig(**vision | {name: tuple(vision.get(name, ())) for name in lists})
    scaling = sizes.pop("rope_scaling", None)
    sizes["rope_scaling"] = None if scaling is None else Llama3Rope(**scaling)
    return PolicyConfig(**sizes | {"vision": vision, "rotary_axes": tuple(sizes.get("rotary_axes", ()))})
