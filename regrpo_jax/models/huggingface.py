"""Qwen2 and Qwen2.5 text weights from a local Hugging Face directory, tensor by tensor."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig, RematPolicy

# Our path -> Hugging Face name; "{}" stands for the layer, our leading axis. Kernels are transposed.
TEXT_WEIGHTS = {
    "embedding": "model.embed_tokens.weight",
    "lm_head": "lm_head.weight",
    "norm/scale": "model.norm.weight",
    "layers/input_norm/scale": "model.layers.{}.input_layernorm.weight",
    "layers/post_attention_norm/scale": "model.layers.{}.post_attention_layernorm.weight",
    "layers/q_proj/kernel": "model.layers.{}.self_attn.q_proj.weight",
    "layers/q_proj/bias": "model.layers.{}.self_attn.q_proj.bias",
    "layers/k_proj/kernel": "model.layers.{}.self_attn.k_proj.weight",
    "layers/k_proj/bias": "model.layers.{}.self_attn.k_proj.bias",
    "layers/v_proj/kernel": "model.layers.{}.self_attn.v_proj.weight",
    "layers/v_proj/bias": "model.layers.{}.self_attn.v_proj.bias",
    "layers/o_proj/kernel": "model.layers.{}.self_attn.o_proj.weight",
    "layers/gate_proj/kernel": "model.layers.{}.mlp.gate_proj.weight",
    "layers/up_proj/kernel": "model.layers.{}.mlp.up_proj.weight",
    "layers/down_proj/kernel": "model.layers.{}.mlp.down_proj.weight",
}
LISTED_PROBLEMS = 20


def load_text_policy(
    folder: Path, *, dtype: str, param_dtype: str, remat: RematPolicy, lora_alpha: float
) -> tuple[PolicyConfig, dict[str, Any]]:
    """Configuration and parameters of a Qwen2-style text model.

    Raises:
      UserError: files are missing or broken, the architecture is another one, or tensors are missing, unexpected
        or of the wrong shape (they are named).
    """
    config = _read_config(
        folder / "config.json", dtype=dtype, param_dtype=param_dtype, remat=remat, lora_alpha=lora_alpha
    )
    shapes = _expected_shapes(config)
    params = {path: np.zeros(shape, jnp.dtype(param_dtype)) for path, shape in shapes.items()}
    places = {name: place for path, array in params.items() for name, place in _places(path, array)}
    missing, problems = set(places), []
    for name, tensor in _tensors(folder):
        if name not in places:
            if not _is_known_extra(name, config):
                problems.append(f"unexpected {name}")
            continue
        missing.discard(name)
        if tensor.shape != places[name].shape:
            problems.append(f"{name} has shape {tensor.shape}, expected {places[name].shape}")
            continue
        places[name][...] = tensor.astype(np.float32)
    problems += [f"missing {name}" for name in sorted(missing)]
    if problems:
        listed = "; ".join(problems[:LISTED_PROBLEMS])
        more = f"; and {len(problems) - LISTED_PROBLEMS} more" if len(problems) > LISTED_PROBLEMS else ""
        raise UserError(f"{folder}: the weights do not fit config.json: {listed}{more}")
    arrays = {path: jnp.asarray(array) for path, array in params.items()}
    return config, traverse_util.unflatten_dict(arrays, sep="/")


def _read_config(path: Path, *, dtype: str, param_dtype: str, remat: RematPolicy, lora_alpha: float) -> PolicyConfig:
    description = _read_json(path)
    if description.get("model_type") != "qwen2":
        raise UserError(
            f"{path}: model_type is {description.get('model_type')!r}; this loads 'qwen2' (Qwen2 and Qwen2.5 text)"
        )
    _reject_unsupported(path, description)
    try:
        return _policy_config(description, dtype=dtype, param_dtype=param_dtype, remat=remat, lora_alpha=lora_alpha)
    except KeyError as error:
        raise UserError(f"{path}: the key {error} is missing; is this the model's whole config.json?") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: the sizes do not fit together: {error}") from error


def _reject_unsupported(path: Path, description: dict[str, Any]) -> None:
    """Variants of the architecture that would load without a complaint and compute something else."""
    rope = _rope_parameters(description)
    rope_type = rope.get("rope_type", rope.get("type", "default"))
    for name, value, supported in (
        ("rope_type", rope_type, "default"),
        ("hidden_act", description.get("hidden_act", "silu"), "silu"),
        ("use_sliding_window", description.get("use_sliding_window") or False, False),
    ):
        if value != supported:
            raise UserError(f"{path}: {name} {value!r} is not supported, only {supported!r} is")


def _rope_parameters(description: dict[str, Any]) -> dict[str, Any]:
    """Under the name of transformers 5, or of 4 before it."""
    return description.get("rope_parameters") or description.get("rope_scaling") or {}


def _policy_config(
    description: dict[str, Any], *, dtype: str, param_dtype: str, remat: RematPolicy, lora_alpha: float
) -> PolicyConfig:
    heads = description["num_attention_heads"]
    theta = description.get("rope_theta") or _rope_parameters(description).get("rope_theta", 10_000.0)
    return PolicyConfig(
        vocab_size=description["vocab_size"],
        hidden_size=description["hidden_size"],
        intermediate_size=description["intermediate_size"],
        num_layers=description["num_hidden_layers"],
        num_heads=heads,
        num_key_value_heads=description.get("num_key_value_heads", heads),
        head_dim=description.get("head_dim") or description["hidden_size"] // heads,
        rope_theta=theta,
        rms_norm_eps=description.get("rms_norm_eps", 1e-6),
        tie_word_embeddings=description.get("tie_word_embeddings", False),
        dtype=dtype,
        param_dtype=param_dtype,
        remat=remat,
        lora_alpha=lora_alpha,
    )


def _expected_shapes(config: PolicyConfig) -> dict[str, tuple[int, ...]]:
    layers, hidden, inner = config.num_layers, config.hidden_size, config.intermediate_size
    queries, keys = config.num_heads * config.head_dim, config.num_key_value_heads * config.head_dim
    shapes: dict[str, tuple[int, ...]] = {"embedding": (config.vocab_size, hidden), "norm/scale": (hidden,)}
    if not config.tie_word_embeddings:
        shapes["lm_head"] = (config.vocab_size, hidden)
    for name, width in (("q_proj", queries), ("k_proj", keys), ("v_proj", keys)):
        shapes[f"layers/{name}/kernel"] = (layers, hidden, width)
        shapes[f"layers/{name}/bias"] = (layers, width)
    shapes |= {
        "layers/o_proj/kernel": (layers, queries, hidden),
        "layers/gate_proj/kernel": (layers, hidden, inner),
        "layers/up_proj/kernel": (layers, hidden, inner),
        "layers/down_proj/kernel": (layers, inner, hidden),
        "layers/input_norm/scale": (layers, hidden),
        "layers/post_attention_norm/scale": (layers, hidden),
    }
    return shapes


def _places(path: str, array: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """(Hugging Face name, view into `array` of the Hugging Face shape) of every tensor that makes up our array."""
    name = TEXT_WEIGHTS[path]
    parts = [(name.format(layer), part) for layer, part in enumerate(array)] if "{}" in name else [(name, array)]
    return [(part_name, part.T if path.endswith("/kernel") else part) for part_name, part in parts]


def _is_known_extra(name: str, config: PolicyConfig) -> bool:
    """A tied head that was written all the same, or rotary tables of old checkpoints."""
    return (name == "lm_head.weight" and config.tie_word_embeddings) or name.endswith("rotary_emb.inv_freq")


def _tensors(folder: Path) -> Any:
    """(name, array) of every tensor, read from its file one at a time."""
    for name in _tensor_files(folder):
        path = folder / name
        try:
            with safe_open(path, framework="flax") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
                    yield key, np.asarray(tensors.get_tensor(key))
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file") from error
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: broken or truncated safetensors file ({error})") from error


def _tensor_files(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return ["model.safetensors"]
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise UserError(f"{index}: the key 'weight_map' is missing; download the file again")
    return sorted(set(weight_map.values()))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; config.model.path must be a Hugging Face model directory") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: invalid JSON at line {error.lineno}, column {error.colno}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable JSON file ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content
