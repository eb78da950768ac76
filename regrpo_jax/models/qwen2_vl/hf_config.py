"""`config.json` of a Hugging Face directory to a `PolicyConfig` and back.

What a file leaves out, and which of two places counts, is transformers' own answer: its configuration classes read the
file, in the flat form of transformers 4 or the nested one of 5. What two readers could take differently is refused.
"""

import copy
import dataclasses
import json
from pathlib import Path
from typing import Any

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig, VisionConfig, sectioned_axes
from regrpo_jax.models.gguf_files import describe_gguf, is_gguf
from regrpo_jax.models.own_config import MODEL_TYPE, parse_own
from regrpo_jax.models.qwen2_vl.hf_refusals import Theirs, reject_rope, reject_unread, reject_unsupported, require

ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen2_vl": "Qwen2VLForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
}
CONFIGURATIONS = {
    "llama": "LlamaConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "qwen2_vl": "Qwen2VLConfig",
    "qwen2_5_vl": "Qwen2_5_VLConfig",
}
# Families without a vision tower -> what sets their decoders apart, (attention_bias, query_key_norm).
TEXT_FAMILIES = {"llama": (False, False), "qwen2": (True, False), "qwen3": (False, True)}
VISION_ROPE_THETA = 10_000.0
# Sizes that a model of its own has: a default of transformers would be those of some published one.
STATED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
STATED_OF_TOWER = {"qwen2_vl": ("hidden_size", "embed_dim", "depth"), "qwen2_5_vl": ("hidden_size", "depth")}


def read_config(path: Path, **settings: Any) -> PolicyConfig:
    """The architecture that a `config.json`, or the metadata of a GGUF file, describes.

    Args:
      path: the file (`model_files.described_in`).
      settings: fields of `PolicyConfig` that are ours to choose, such as dtype or remat.
    Raises:
      UserError: not readable, of another architecture, of a variant that would compute something else, with sizes that
        are missing or do not fit together, or with two values for one thing.
    """
    description = describe_gguf(path) if is_gguf(path) else read_json(path)
    own = description.get("model_type") == MODEL_TYPE
    if description.get("model_type") not in ARCHITECTURES and not own:
        raise UserError(
            f"{path}: model_type is {description.get('model_type')!r}; supported are "
            f"{', '.join(map(repr, ARCHITECTURES))} (Llama, Qwen2, Qwen2.5 and Qwen3 text, Qwen2-VL, Qwen2.5-VL)"
        )
    try:
        return dataclasses.replace(parse_own(description) if own else parse_config(description), **settings)
    except KeyError as error:
        raise UserError(f"{path}: the key {error} is missing; is this the model's whole config.json?") from error
    except ValueError as error:
        raise UserError(f"{path}: {_one_line(error)}") from error
    except (TypeError, AttributeError) as error:
        raise UserError(f"{path}: not values that transformers reads ({_one_line(error)})") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def parse_config(description: dict[str, Any]) -> PolicyConfig:
    """The architecture of a supported family.

    Raises:
      KeyError: a size is missing.
      ValueError: the values do not fit together, contradict each other, or would compute something else.
      TypeError, AttributeError: there are values of another kind.
    """
    family = description["model_type"]
    nested = description.get("text_config") if family not in TEXT_FAMILIES else None
    text = description if nested is None else nested
    _require_stated(text, STATED)
    reject_rope(text, ("default",) if family in TEXT_FAMILIES else ("default", "mrope"))
    theirs = _read_by_transformers(description)
    theirs_text = theirs.get_text_config()
    reject_unsupported(description, text, theirs_text)
    if nested is not None:
        reject_unread(description, nested, theirs_text, STATED)
    config = _text_config(theirs_text, tied=theirs.tie_word_embeddings)
    if family in TEXT_FAMILIES:
        attention_bias, query_key_norm = TEXT_FAMILIES[family]
        return dataclasses.replace(config, attention_bias=attention_bias, query_key_norm=query_key_norm)
    _require_stated(description, ("vision_config",))
    _require_stated(description["vision_config"], STATED_OF_TOWER[family])
    sections = theirs_text.rope_parameters["mrope_section"]
    if len(sections) != 3:
        raise ValueError(f"mrope_section has {len(sections)} numbers, expected one for time, row and column")
    vision = _vision_config(theirs.vision_config, config, gated=family == "qwen2_5_vl")
    return dataclasses.replace(config, rotary_axes=sectioned_axes(tuple(sections)), vision=vision)


def _read_by_transformers(description: dict[str, Any]) -> Theirs:
    """Imported here: it takes seconds, and brings torch where that is, which only who reads a model waits for.

    Raises:
      ValueError: what transformers says against a value.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    try:
        return getattr(transformers, CONFIGURATIONS[description["model_type"]]).from_dict(copy.deepcopy(description))
    except StrictDataclassError as error:
        raise ValueError(error) from error


def describe(config: PolicyConfig) -> dict[str, Any]:
    """What `config.json` says of a policy, in the flat form, which every version of transformers reads.

    Raises:
      UserError: the policy has parts that no Hugging Face architecture has (the tiny preset's).
    """
    vision = config.vision
    if named := foreign_parts(config):
        parts = ", ".join(named)
        raise UserError(f"this policy is no Hugging Face architecture ({parts}); start from one to export full weights")
    family = _family(config)
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
    if family in ("llama", "qwen3"):
        description["attention_bias"] = False
    if vision is None:
        return description
    mrope = {"type": "mrope", "mrope_section": _sections(config)}
    return description | {"rope_scaling": mrope | rope, "vision_config": _describe_vision(vision, config.hidden_size)}


def _family(config: PolicyConfig) -> str:
    """The `model_type` of a policy without foreign parts."""
    if config.vision is not None:
        return "qwen2_5_vl" if config.vision.gated else "qwen2_vl"
    kinds = {settings: family for family, settings in TEXT_FAMILIES.items()}
    return kinds[config.attention_bias, config.query_key_norm]


def foreign_parts(config: PolicyConfig) -> list[str]:
    """What a policy has that no Hugging Face architecture has; [] for most."""
    vision, sections = config.vision, _sections(config)
    kinds = TEXT_FAMILIES.values() if vision is None else [TEXT_FAMILIES["qwen2"]]
    foreign = {
        "attention_bias, query_key_norm": (config.attention_bias, config.query_key_norm) not in kinds,
        "token_mixing_width": config.token_mixing_width != 0,
        "embedding_scale": config.embedding_scale != 1,
        "vision.learned_grid": vision is not None and vision.learned_grid != 0,
        "head_dim": vision is not None and config.head_dim * config.num_heads != config.hidden_size,
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


def _require_stated(values: dict[str, Any], keys: tuple[str, ...]) -> None:
    """Raises KeyError for the first that is missing."""
    for key in keys:
        if values.get(key) is None:
            raise KeyError(key)


def _text_config(theirs: Theirs, *, tied: bool) -> PolicyConfig:
    heads, hidden = theirs.num_attention_heads, theirs.hidden_size
    return PolicyConfig(
        vocab_size=theirs.vocab_size,
        hidden_size=hidden,
        intermediate_size=theirs.intermediate_size,
        num_layers=theirs.num_hidden_layers,
        num_heads=heads,
        num_key_value_heads=theirs.num_key_value_heads,
        head_dim=getattr(theirs, "head_dim", None) or hidden // heads,
        rope_theta=float(theirs.rope_parameters["rope_theta"]),
        rms_norm_eps=theirs.rms_norm_eps,
        tie_word_embeddings=tied,
    )


def _vision_config(theirs: Theirs, text: PolicyConfig, *, gated: bool) -> VisionConfig:
    """Qwen2-VL calls the width of the tower `embed_dim`, Qwen2.5-VL calls it `hidden_size`."""
    merged = "out_hidden_size" if gated else "hidden_size"
    embed_dim = theirs.hidden_size if gated else theirs.embed_dim
    if getattr(theirs, merged) != text.hidden_size:
        raise ValueError(f"vision_config.{merged} is {getattr(theirs, merged)}, hidden_size is {text.hidden_size}")
    if text.head_dim * text.num_heads != text.hidden_size:
        raise ValueError(f"head_dim is {text.head_dim}, this family has hidden_size / num_attention_heads")
    for name, value, supported in (
        ("hidden_act", theirs.hidden_act, ("silu" if gated else "quick_gelu",)),
        ("spatial_merge_size", theirs.spatial_merge_size, (1, 2, 4)),  # padding is in 16ths
        ("rope_theta", theirs.rope_parameters["rope_theta"], (VISION_ROPE_THETA,)),
        ("rope_type", theirs.rope_parameters["rope_type"], ("axial",)),
        ("head_dim", getattr(theirs, "head_dim", None), (None, embed_dim // theirs.num_heads)),
        ("in_chans", getattr(theirs, "in_chans", theirs.in_channels), (theirs.in_channels,)),
        *(((key, type(getattr(theirs, key)).__name__, ("int",))) for key in ("patch_size", "temporal_patch_size")),
    ):
        require(f"vision_config.{name}", value, supported)
    config = VisionConfig(
        depth=theirs.depth,
        embed_dim=embed_dim,
        num_heads=theirs.num_heads,
        intermediate_size=theirs.intermediate_size if gated else embed_dim * theirs.mlp_ratio,
        patch_size=theirs.patch_size,
        temporal_patch_size=theirs.temporal_patch_size,
        spatial_merge_size=theirs.spatial_merge_size,
        in_channels=theirs.in_channels,
    )
    if not gated:
        return config
    return dataclasses.replace(
        config,
        gated=True,
        window_size=theirs.window_size,
        full_attention_blocks=tuple(theirs.fullatt_block_indexes),
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
