"""The adapter as PEFT reads it: `adapter_config.json` and `adapter_model.safetensors`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from flax import traverse_util
from safetensors.numpy import save_file

# Our projection -> where Hugging Face's decoder layer keeps it.
MODULE_PATHS = {
    "q_proj": "self_attn.q_proj",
    "k_proj": "self_attn.k_proj",
    "v_proj": "self_attn.v_proj",
    "o_proj": "self_attn.o_proj",
    "gate_proj": "mlp.gate_proj",
    "up_proj": "mlp.up_proj",
    "down_proj": "mlp.down_proj",
}


def export_adapter(folder: Path, adapter: dict[str, Any], *, alpha: float, base_model: str) -> None:
    """Writes an adapter for `peft.PeftModel.from_pretrained(base, folder)`.

    Args:
      adapter: the `lora` collection, arrays stacked over layers.
      alpha: numerator of the scale alpha / rank.
      base_model: path or name of the weights it belongs to, as a note for the reader.
    """
    tensors: dict[str, np.ndarray] = {}
    names, rank = set(), 0
    for path, stacked in traverse_util.flatten_dict(adapter, sep="/").items():
        _, name, kind = path.split("/")
        names.add(name)
        for layer, matrix in enumerate(np.asarray(stacked, np.float32)):
            rank = matrix.shape[1] if kind == "down" else rank
            letter = "A" if kind == "down" else "B"
            key = f"base_model.model.model.layers.{layer}.{MODULE_PATHS[name]}.lora_{letter}.weight"
            tensors[key] = np.ascontiguousarray(matrix.T)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    description = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "target_modules": sorted(names),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
    }
    (folder / "adapter_config.json").write_text(json.dumps(description, indent=2) + "\n")
