"""Adapters written in PEFT's format: `adapter_config.json` and `adapter_model.safetensors`.

PEFT keeps A as [rank, in_features] and B as [out_features, rank] per module, which is one layer of one of our
projections; `qwen2_vl.weights` says which. `peft_import` reads the format.
"""

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.huggingface import tensor_shape
from regrpo_jax.models.lora import adapter_alpha
from regrpo_jax.models.qwen2_vl.weights import hugging_face_names

Tree = dict[str, Any]

DESCRIPTION = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's wrappers around the model


def export_adapter(
    folder: Path, variables: Tree, config: PolicyConfig, *, base_model: str, full_weights: Iterable[str] = ()
) -> None:
    """Writes an adapter for `peft.PeftModel.from_pretrained(base, folder)` on a model of transformers 5.

    Modules are listed by their full names, so that none is hit that has no adapter. Layers whose `down` and `up` are
    zero, which do not learn (`lora.init_adapter`), are left out.

    Args:
      variables: with the `lora` collection, arrays stacked over layers.
      base_model: path or name of the weights it belongs to, as a note for the reader.
      full_weights: paths of parameters to write in full beside the adapter (PEFT's `modules_to_save`), because they
        are not those of the base model.
    """
    names = {path: _in_transformers(name, config) for path, name in hugging_face_names(config).items()}
    adapter = traverse_util.flatten_dict(variables["lora"], sep="/")
    tensors: dict[str, np.ndarray] = {}
    modules: list[str] = []
    sizes: dict[str, tuple[int, float]] = {}  # pattern of module names -> rank, alpha
    for projection in sorted({path.rsplit("/", 1)[0] for path in adapter}):
        name = names[f"{projection}/kernel"].removesuffix(".weight")
        down, up = (np.asarray(adapter[f"{projection}/{part}"], np.float32) for part in ("down", "up"))
        sizes[re.escape(name).replace(r"\{\}", r"\d+")] = (down.shape[-1], adapter_alpha(config, projection))
        for layer, (a, b) in _layers(name, down, up):
            if np.any(a) or np.any(b):
                modules.append(name.format(layer))
                tensors[f"{PREFIX}{modules[-1]}.lora_A.weight"] = np.ascontiguousarray(a.T)
                tensors[f"{PREFIX}{modules[-1]}.lora_B.weight"] = np.ascontiguousarray(b.T)
    params, saved = traverse_util.flatten_dict(variables["params"], sep="/"), set()
    for path in full_weights:
        for layer, (array,) in _layers(names[path], np.asarray(params[path])):
            turned = array.T if path.endswith("/kernel") else array
            name = names[path].format(layer)
            tensors[PREFIX + name] = np.ascontiguousarray(turned).reshape(tensor_shape(path, array.shape, config))
            saved.add(name.rsplit(".", 1)[0])
    rank, alpha = next(iter(sizes.values()))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / TENSORS, metadata={"format": "pt"})
    description = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {pattern: size[0] for pattern, size in sizes.items() if size[0] != rank},
        "alpha_pattern": {pattern: size[1] for pattern, size in sizes.items() if size[1] != alpha},
        "lora_dropout": config.lora_dropout,
        "target_modules": modules,
        "modules_to_save": sorted(saved) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def _layers(name: str, *arrays: np.ndarray) -> Iterator[tuple[int | None, tuple[np.ndarray, ...]]]:
    """The arrays of each layer, or the arrays themselves where the name has no place for a layer."""
    if "{}" not in name:
        yield None, arrays
        return
    yield from enumerate(zip(*arrays, strict=True))


def _in_transformers(name: str, config: PolicyConfig) -> str:
    """The name in transformers 5 of what is published as `name`."""
    if config.vision is None or name == "lm_head.weight":
        return name
    return f"model.{name}" if name.startswith("visual.") else name.replace("model.", "model.language_model.", 1)
