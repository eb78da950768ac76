"""Qwen2 and Qwen2.5 text weights from a local Hugging Face directory, tensor by tensor."""

import json
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig, RematPolicy

# Hugging Face name -> (our path, transposed). "{}" stands for the layer, which becomes the leading axis.
TEXT_WEIGHTS = (
    (r"model\.embed_tokens\.weight", "embedding", False),
    (r"lm_head\.weight", "lm_head", False),
    (r"model\.norm\.weight", "norm/scale", False),
    (r"model\.layers\.(\d+)\.input_layernorm\.weight", "layers/input_norm/scale", False),
    (r"model\.layers\.(\d+)\.post_attention_layernorm\.weight", "layers/post_attention_norm/scale", False),
    (r"model\.layers\.(\d+)\.self_attn\.(q|k|v)_proj\.weight", r"layers/\2_proj/kernel", True),
    (r"model\.layers\.(\d+)\.self_attn\.(q|k|v)_proj\.bias", r"layers/\2_proj/bias", False),
    (r"model\.layers\.(\d+)\.self_attn\.o_proj\.weight", "layers/o_proj/kernel", True),
    (r"model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj\.weight", r"layers/\2_proj/kernel", True),
)


def load_text_policy(
    folder: Path, *, dtype: str, param_dtype: str, remat: RematPolicy, lora_alpha: float
) -> tuple[PolicyConfig, dict[str, Any]]:
    """Configuration and parameters of a Qwen2-style text model.

    Raises:
      UserError: files are missing or broken, the architecture is another one, or tensors are missing, unexpected
        or of the wrong shape (all are listed).
    """
    description = _read_json(folder / "config.json")
    if description.get("model_type") != "qwen2":
        raise UserError(
            f"{folder}/config.json: model_type is {description.get('model_type')!r}; this loads 'qwen2' "
            "(Qwen2 and Qwen2.5 text)"
        )
    config = _policy_config(description, dtype=dtype, param_dtype=param_dtype, remat=remat, lora_alpha=lora_alpha)
    shapes = _expected_shapes(config)
    params = {path: np.zeros(shape, jnp.dtype(param_dtype)) for path, shape in shapes.items()}
    missing = {(path, layer) for path, shape in shapes.items() for layer in _layers_of(path, shape)}
    problems = []
    for name, tensor in _tensors(folder):
        target = _target(name)
        if target is None or target[0] not in params:
            if not _is_known_extra(name, config):
                problems.append(f"unexpected {name}")
            continue
        path, layer, transposed = target
        array = tensor.T if transposed else tensor
        place = params[path] if layer is None else params[path][layer]
        if array.shape != place.shape:
            problems.append(f"{name} has shape {tensor.shape}, expected {(place.T if transposed else place).shape}")
            continue
        place[...] = array.astype(np.float32)
        missing.discard((path, layer))
    problems += [
        f"missing {path}" + ("" if layer is None else f" of layer {layer}") for path, layer in sorted(missing, key=str)
    ]
    if problems:
        raise UserError(f"{folder}: the weights do not fit config.json: " + "; ".join(problems[:20]))
    arrays = {path: jnp.asarray(array) for path, array in params.items()}
    return config, traverse_util.unflatten_dict(arrays, sep="/")


def _policy_config(
    description: dict[str, Any], *, dtype: str, param_dtype: str, remat: RematPolicy, lora_alpha: float
) -> PolicyConfig:
    heads = description["num_attention_heads"]
    theta = description.get("rope_theta") or description.get("rope_parameters", {}).get("rope_theta", 10_000.0)
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


def _layers_of(path: str, shape: tuple[int, ...]) -> list[int | None]:
    return list(range(shape[0])) if path.startswith("layers/") else [None]


def _target(name: str) -> tuple[str, int | None, bool] | None:
    for pattern, path, transposed in TEXT_WEIGHTS:
        match = re.fullmatch(pattern, name)
        if match:
            layer = int(match[1]) if r"(\d+)" in pattern else None
            return match.expand(path), layer, transposed
    return None


def _is_known_extra(name: str, config: PolicyConfig) -> bool:
    """A tied head that was written all the same, or rotary tables of old checkpoints."""
    return (name == "lm_head.weight" and config.tie_word_embeddings) or name.endswith("rotary_emb.inv_freq")


def _tensors(folder: Path) -> Any:
    """(name, array) of every tensor, read from its file one at a time."""
    index = folder / "model.safetensors.index.json"
    names = sorted(set(_read_json(index)["weight_map"].values())) if index.exists() else ["model.safetensors"]
    for name in names:
        path = folder / name
        try:
            with safe_open(path, framework="flax") as tensors:
                for key in tensors.keys():  # noqa: SIM118 (safe_open is no mapping)
                    yield key, np.asarray(tensors.get_tensor(key))
        except FileNotFoundError as error:
            raise UserError(f"{path}: no such file") from error
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path}: broken or truncated safetensors file ({error})") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; config.model.path must be a Hugging Face model directory") from error
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: invalid JSON at line {error.lineno}, column {error.colno}") from error
