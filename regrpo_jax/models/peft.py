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

from regrpo_jax.hosts.role import role
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.huggingface import tensor_shape
from regrpo_jax.models.lora import adapter_alpha
from regrpo_jax.models.process_arrays import fetched
from regrpo_jax.models.quantization import dequantized
from regrpo_jax.models.qwen2_vl.weights import HEAD, hugging_face_names, nested_name

Tree = dict[str, Any]

DESCRIPTION = "adapter_config.json"
TENSORS, OLD_TENSORS = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."  # PEFT's wrappers around the model


def export_adapter(
    folder: Path, variables: Tree, config: PolicyConfig, *, base_model: str, full_weights: Iterable[str] = ()
) -> None:
    """Writes an adapter for `peft.PeftModel.from_pretrained(base, folder)` on a model of transformers 5.

    Modules are listed by their full names, so that none is hit that has no adapter. Layers whose `down` and `up` are
    zero, which do not learn (`lora.init_adapter`), are left out. One scale, `lora_alpha` / `r`, is true of all modules,
    because vLLM reads no other: what differs from it is folded into B. The patterns say the same, for PEFT.
    Nothing is left of an earlier export. Of several processes all have to call this, and the first one writes.

    Args:
      variables: with the `lora` collection, arrays stacked over layers.
      base_model: path or name of the weights it belongs to, as a note for the reader.
      full_weights: paths of parameters to write in full beside the adapter (PEFT's `modules_to_save`), because they
        are not those of the base model.
    """
    names = hugging_face_names(config)
    if config.vision is not None:
        names = {path: nested_name(name) for path, name in names.items()}
    adapter = traverse_util.flatten_dict(variables["lora"], sep="/")
    projections = sorted({path.rsplit("/", 1)[0] for path in adapter})
    ranks = {projection: adapter[f"{projection}/down"].shape[-1] for projection in projections}
    widest = max(projections, key=ranks.__getitem__)
    rank, alpha = ranks[widest], adapter_alpha(config, widest)
    tensors: dict[str, np.ndarray] = {}
    modules: list[str] = []
    narrow: dict[str, int] = {}  # pattern of module names -> rank
    for projection in projections:
        name = names[f"{projection}/kernel"].removesuffix(".weight")
        down, up = (fetched(adapter[f"{projection}/{part}"]).astype(np.float32) for part in ("down", "up"))
        up = up * np.float32(adapter_alpha(config, projection) / ranks[projection] / (alpha / rank))
        if ranks[projection] != rank:
            narrow[re.escape(name).replace(r"\{\}", r"\d+")] = ranks[projection]
        for layer, (a, b) in _layers(name, down, up):
            if np.any(a) or np.any(b):
                modules.append(name.format(layer))
                tensors[f"{PREFIX}{modules[-1]}.lora_A.weight"] = np.ascontiguousarray(a.T)
                tensors[f"{PREFIX}{modules[-1]}.lora_B.weight"] = np.ascontiguousarray(b.T)
    whole = _whole_tensors(variables["params"], full_weights, names, modules, config)
    if not role().writes:
        return
    folder.mkdir(parents=True, exist_ok=True)
    for old in (DESCRIPTION, TENSORS, OLD_TENSORS):
        (folder / old).unlink(missing_ok=True)
    save_file(tensors | {PREFIX + name: tensor for name, tensor in whole.items()}, folder / TENSORS, {"format": "pt"})
    description = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": narrow,
        "alpha_pattern": {pattern: alpha * size / rank for pattern, size in narrow.items()},
        "lora_dropout": config.lora_dropout,
        "target_modules": modules,
        "modules_to_save": sorted({name.rpartition(".")[0] for name in whole}) or None,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
    }
    (folder / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n")


def _whole_tensors(
    params: Tree, paths: Iterable[str], names: dict[str, str], adapted: Iterable[str], config: PolicyConfig
) -> dict[str, np.ndarray]:
    """Name and value of every parameter of the modules that `paths` are in, for PEFT takes no part of one.

    A module with an adapter is left out, it has the base's weights. Of an embedding that is tied there are both ends,
    which PEFT takes apart.
    """
    flat, without = traverse_util.flatten_dict(params, sep="/"), set(adapted)
    modules = {path.rpartition("/")[0] or path for path in paths}
    found: dict[str, np.ndarray] = {}
    for path in (path for path in flat if path in modules or path.rpartition("/")[0] in modules):
        for layer, (array,) in _layers(names[path], fetched(dequantized(flat[path]))):
            name = names[path].format(layer)
            if name.rpartition(".")[0] not in without:
                turned = np.ascontiguousarray(array.T if path.endswith("/kernel") else array)
                found[name] = turned.reshape(tensor_shape(path, array.shape, config))
        if path == "embedding" and config.tie_word_embeddings:
            found[HEAD] = found[names[path]].copy()
    return found


def _layers(name: str, *arrays: np.ndarray) -> Iterator[tuple[int | None, tuple[np.ndarray, ...]]]:
    """The arrays of each layer, or the arrays themselves where the name has no place for a layer."""
    if "{}" not in name:
        yield None, arrays
        return
    yield from enumerate(zip(*arrays, strict=True))
