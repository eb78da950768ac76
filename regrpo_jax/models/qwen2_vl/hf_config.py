"""`config.json` of a Hugging Face directory to a `PolicyConfig` and back, in the flat form of transformers 4 and the
nested one of transformers 5."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig, VisionConfig, sectioned_axes
from regrpo_jax.models.own_config import MODEL_TYPE, parse_own

ARCHITECTURES = {
    "qwen2": "Qwen2ForCausalLM",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}
VISION_ROPE_THETA = 10_000.0


def read_config(path: Path, **settings: Any) -> PolicyConfig:
    """The architecture that a `config.json` describes.

    Args:
      path: the file.
      settings: fields of `PolicyConfig` that are ours to choose, such as dtype or remat.
    Raises:
      UserError: not readable, of another architecture, of a variant that would compute something else, or with sizes
        that are missing or do not fit together.
    """
    description = read_json(path)
    own = description.get("model_type") == MODEL_TYPE
    if description.get("model_type") not in ARCHITECTURES and not own:
        raise UserError(
            f"{path}: model_type is {description.get('model_type')!r}; supported are "
            f"{', '.join(map(repr, ARCHITECTURES))} (Qwen2 and Qwen2.5 text, Qwen2-VL, Qwen2.5-VL)"
        )
    if not own:
        text = description | description.get("text_config", {})
        _reject_unsupported(path, text, description.get("vision_config") or {})
    try:
        return dataclasses.replace(parse_own(description) if own else parse_config(description), **settings)
    except KeyError as error:
        raise UserError(f"{path}: the key {error} is missing; is this the model's whole config.json?") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: the sizes do not fit together: {error}") from error


def parse_config(description: dict[str, Any]) -> PolicyConfig:
    """The architecture of a supported family.

    Raises:
      KeyError: a size is missing.
      ValueError, TypeError: the sizes do not fit together.
    """
    text = description | description.get("text_config", {})
    config = _text_config(text, tied=description.get("tie_word_embeddings", text.get("tie_word_embeddings", False)))
    if description["model_type"] == "qwen2":
        return config
    gated = description["model_type"] == "qwen2_5_vl"
    time, row, column = _rope_parameters(text)["mrope_section"]
    vision = _vision_config(description["vision_config"], text["hidden_size"], gated=gated)
    return dataclasses.replace(config, rotary_axes=sectioned_axes((time, row, column)), vision=vision)


def describe(config: PolicyConfig) -> dict[str, Any]:
    """What `config.json` says of a policy, in the flat form, which every version of transformers reads.

    Raises:
      UserError: the policy has parts that no Hugging Face architecture has (the tiny preset's).
    """
    vision = config.vision
    if named := foreign_parts(config):
        parts = ", ".join(named)
        raise UserError(f"this policy is no Hugging Face architecture ({parts}); start from one to export full weights")
    family = "qwen2" if vision is None else "qwen2_5_vl" if vision.gated else "qwen2_vl"
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    description: dict[str, Any] = {
        "architectures": [ARCHITECTURES[family]],
        "model_type": family,
        "vocab_size": config.vocab_size,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": config.param_dtype,
    }
    if vision is None:
        return description
    mrope = {"type": "mrope", "mrope_section": _sections(config)}
    return description | {"rope_scaling": mrope | rope, "vision_config": _describe_vision(vision, config.hidden_size)}


def foreign_parts(config: PolicyConfig) -> list[str]:
    """What a policy has that no Hugging Face architecture has; [] for most."""
    vision, sections = config.vision, _sections(config)
    foreign = {
        "token_mixing_width": config.token_mixing_width != 0,
        "embedding_scale": config.embedding_scale != 1,
        "vision.learned_grid": vision is not None and vision.learned_grid != 0,
        "vision.intermediate_size": vision is not None
        and not vision.gated
        and vision.intermediate_size % vision.embed_dim != 0,
        "rotary_axes": config.rotary_axes != sectioned_axes((sections[0], sections[1], sections[2])),
    }
    return [name for name, differs in foreign.items() if differs]


def _sections(config: PolicyConfig) -> list[int]:
    """How many rotary frequencies turn with each axis of a position."""
    return [config.rotary_axes.count(axis) for axis in range(3)]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: missing, not readable, or something else than an object.
    """
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


def _reject_unsupported(path: Path, text: dict[str, Any], vision: dict[str, Any]) -> None:
    """Variants of the architecture that would load without a complaint and compute something else."""
    rope, vision_rope = _rope_parameters(text), _rope_parameters(vision)
    for name, value, supported in (
        ("rope_type", rope.get("rope_type", rope.get("type", "default")), ("default", "mrope")),
        ("hidden_act", text.get("hidden_act", "silu"), ("silu",)),
        ("use_sliding_window", text.get("use_sliding_window", False), (False,)),
        ("vision_config.hidden_act", vision.get("hidden_act", "silu"), ("silu", "quick_gelu")),
        ("vision_config.spatial_merge_size", vision.get("spatial_merge_size", 2), (1, 2, 4)),  # padding is in 16ths
        ("vision_config.rope_theta", vision_rope.get("rope_theta", VISION_ROPE_THETA), (VISION_ROPE_THETA,)),
        ("quantization_config", text.get("quantization_config"), (None,)),
    ):
        if value not in supported:
            wanted = " or ".join(map(repr, supported))
            raise UserError(f"{path}: {name} {value!r} is not supported, only {wanted} is")


def _rope_parameters(description: dict[str, Any]) -> dict[str, Any]:
    """Under the name of transformers 5, or of 4 before it."""
    return description.get("rope_parameters") or description.get("rope_scaling") or {}


def _text_config(text: dict[str, Any], *, tied: bool) -> PolicyConfig:
    heads = text["num_attention_heads"]
    return PolicyConfig(
        vocab_size=text["vocab_size"],
        hidden_size=text["hidden_size"],
        intermediate_size=text["intermediate_size"],
        num_layers=text["num_hidden_layers"],
        num_heads=heads,
        num_key_value_heads=text.get("num_key_value_heads", heads),
        head_dim=text.get("head_dim") or text["hidden_size"] // heads,
        rope_theta=text.get("rope_theta") or _rope_parameters(text).get("rope_theta", 10_000.0),
        rms_norm_eps=text.get("rms_norm_eps", 1e-6),
        tie_word_embeddings=tied,
    )


def _vision_config(vision: dict[str, Any], hidden_size: int, *, gated: bool) -> VisionConfig:
    """Qwen2-VL calls the width of the tower `embed_dim`, Qwen2.5-VL calls it `hidden_size`."""
    width, merged = ("hidden_size", "out_hidden_size") if gated else ("embed_dim", "hidden_size")
    if vision[merged] != hidden_size:
        raise ValueError(f"vision_config.{merged} is {vision[merged]}, hidden_size is {hidden_size}")
    embed_dim = vision[width]
    config = VisionConfig(
        depth=vision["depth"],
        embed_dim=embed_dim,
        num_heads=vision["num_heads"],
        intermediate_size=vision["intermediate_size"] if gated else int(embed_dim * vision["mlp_ratio"]),
        patch_size=vision.get("patch_size", 14),
        temporal_patch_size=vision.get("temporal_patch_size", 2),
        spatial_merge_size=vision.get("spatial_merge_size", 2),
        in_channels=vision.get("in_channels", vision.get("in_chans", 3)),
    )
    if not gated:
        return config
    return dataclasses.replace(
        config,
        gated=True,
        window_size=vision["window_size"],
        full_attention_blocks=tuple(vision["fullatt_block_indexes"]),
    )


def _describe_vision(vision: VisionConfig, hidden_size: int) -> dict[str, Any]:
    shared = {
        "depth": vision.depth,
        "num_heads": vision.num_heads,
        "in_channels": vision.in_channels,
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "spatial_merge_size": vision.spatial_merge_size,
    }
    if not vision.gated:
        ratio = vision.intermediate_size // vision.embed_dim  # transformers takes no fraction
        return shared | {"embed_dim": vision.embed_dim, "hidden_size": hidden_size, "mlp_ratio": ratio}
    return shared | {
        "hidden_size": vision.embed_dim,
        "out_hidden_size": hidden_size,
        "intermediate_size": vision.intermediate_size,
        "window_size": vision.window_size,
        "fullatt_block_indexes": list(vision.full_attention_blocks),
    }
