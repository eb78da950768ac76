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
from regrpo_jax.models.config import Llama3Rope, PolicyConfig, interleaved_sections, sectioned_axes
from regrpo_jax.models.gguf_files import describe_gguf, is_gguf
from regrpo_jax.models.own_config import MODEL_TYPE, parse_own
from regrpo_jax.models.qwen2_vl import hf_vision
from regrpo_jax.models.qwen2_vl.families import FAMILIES, Family
from regrpo_jax.models.qwen2_vl.hf_refusals import Theirs, reject_rope, reject_unread, reject_unsupported, require

# Sizes that a model of its own has: a default of transformers would be those of some published one.
STATED = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


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
    if description.get("model_type") not in FAMILIES and not own:
        raise UserError(
            f"{path}: model_type is {description.get('model_type')!r}; supported are "
            f"{', '.join(map(repr, FAMILIES))} (Llama, Qwen2, Qwen2.5 and Qwen3 text, Qwen2-VL, Qwen2.5-VL, Qwen3-VL)"
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
    family = FAMILIES[description["model_type"]]
    sees = family.tower != "none"
    if family.nested:
        _require_stated(description, ("text_config",))
    nested = description.get("text_config") if sees else None
    text = description if nested is None else nested
    _require_stated(text, STATED)
    reject_rope(text, family.rope_types)
    theirs = _read_by_transformers(description, family)
    theirs_text = theirs.get_text_config()
    reject_unsupported(description, text, theirs_text)
    if nested is not None:
        reject_unread(description, nested, theirs_text, STATED)
    config = _text_config(theirs_text, family, tied=theirs.tie_word_embeddings)
    if not sees:
        return config
    _require_stated(description, ("vision_config",))
    _require_stated(description["vision_config"], hf_vision.STATED[family.tower])
    if not family.nested and config.head_dim * config.num_heads != config.hidden_size:
        raise ValueError(f"head_dim is {config.head_dim}, this family has hidden_size / num_attention_heads")
    vision = hf_vision.parse_vision(theirs.vision_config, config, family.tower)
    return dataclasses.replace(config, rotary_axes=_rotary_axes(theirs_text, family), vision=vision)


def _rotary_axes(theirs: Theirs, family: Family) -> tuple[int, ...]:
    """Raises KeyError or ValueError where sections are missing, or cannot be dealt out as the family does it."""
    sections = theirs.rope_parameters["mrope_section"]
    if len(sections) != 3:
        raise ValueError(f"mrope_section has {len(sections)} numbers, expected one for time, row and column")
    in_turn = family.rotary == "interleaved"
    require("mrope_interleaved", theirs.rope_parameters.get("mrope_interleaved", in_turn), (in_turn,))
    return interleaved_sections(tuple(sections)) if in_turn else sectioned_axes(tuple(sections))


def _read_by_transformers(description: dict[str, Any], family: Family) -> Theirs:
    """Imported here: it takes seconds, and brings torch where that is, which only who reads a model waits for.

    Raises:
      ValueError: what transformers says against a value.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    try:
        return getattr(transformers, family.configuration).from_dict(copy.deepcopy(description))
    except StrictDataclassError as error:
        raise ValueError(error) from error


def describe(config: PolicyConfig) -> dict[str, Any]:
    """What `config.json` says of a policy, in the flat form where the family has one: all transformers read that.

    Raises:
      UserError: the policy has parts that no Hugging Face architecture has (the tiny preset's).
    """
    if named := foreign_parts(config):
        parts = ", ".join(named)
        raise UserError(f"this policy is no Hugging Face architecture ({parts}); start from one to export full weights")
    model_type = _model_type(config) or ""  # one that has no foreign parts has a family
    family = FAMILIES[model_type]
    top = {
        "architectures": [family.architecture],
        "model_type": model_type,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": config.param_dtype,
    }
    text = _describe_text(config, family)
    if config.vision is None:
        return top | text
    vision = hf_vision.describe_vision(config.vision, config.hidden_size)
    return top | ({"text_config": text} if family.nested else text) | {"vision_config": vision}


def _describe_text(config: PolicyConfig, family: Family) -> dict[str, Any]:
    text: dict[str, Any] = {
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
    }
    if not family.attention_bias:
        text["attention_bias"] = False
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if family.rotary == "sections":
        text["rope_scaling"] = rope | {"type": "mrope", "mrope_section": _sections(config)}
    if family.rotary == "interleaved":
        text["rope_scaling"] = rope | {"mrope_interleaved": True, "mrope_section": _sections(config)}
    if (scaling := config.rope_scaling) is not None:
        text["rope_scaling"] = rope | {
            "rope_type": "llama3",
            "factor": scaling.factor,
            "low_freq_factor": scaling.low_freq_factor,
            "high_freq_factor": scaling.high_freq_factor,
            "original_max_position_embeddings": scaling.original_length,
        }
    return text


def _model_type(config: PolicyConfig) -> str | None:
    """Of a policy without foreign parts; None where there is no family with such a decoder and tower."""
    tower = "none" if config.vision is None else hf_vision.tower_of(config.vision)
    kinds = {(family.tower, family.attention_bias, family.query_key_norm): name for name, family in FAMILIES.items()}
    return kinds.get((tower, config.attention_bias, config.query_key_norm))


def foreign_parts(config: PolicyConfig) -> list[str]:
    """What a policy has that no Hugging Face architecture has; [] for most."""
    vision, model_type = config.vision, _model_type(config)
    family = None if model_type is None else FAMILIES[model_type]
    foreign = {
        "attention_bias, query_key_norm": family is None,
        "token_mixing_width": config.token_mixing_width != 0,
        "embedding_scale": config.embedding_scale != 1,
        **dict.fromkeys(hf_vision.foreign_parts(vision) if vision is not None else (), True),
        "head_dim": vision is not None
        and not (family is not None and family.nested)
        and config.head_dim * config.num_heads != config.hidden_size,
        "rope_scaling": config.rope_scaling is not None and model_type != "llama",
        "rotary_axes": config.rotary_axes != _expected_axes(config, family),
    }
    return [name for name, differs in foreign.items() if differs]


def _expected_axes(config: PolicyConfig, family: Family | None) -> tuple[int, ...] | None:
    """Those that the family would give to as many frequencies of each axis."""
    time, row, column = _sections(config)
    if family is None or family.rotary != "interleaved":
        return sectioned_axes((time, row, column))
    try:
        return interleaved_sections((time, row, column))
    except ValueError:
        return None


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


def _text_config(theirs: Theirs, family: Family, *, tied: bool) -> PolicyConfig:
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
        attention_bias=family.attention_bias,
        query_key_norm=family.query_key_norm,
        rope_scaling=_rope_scaling(theirs.rope_parameters),
    )


def _rope_scaling(rope: dict[str, Any]) -> Llama3Rope | None:
    """Raises KeyError for a factor that is missing, ValueError for factors that do not go together."""
    if rope["rope_type"] != "llama3":
        return None
    low, high = float(rope["low_freq_factor"]), float(rope["high_freq_factor"])
    if not 0 < low < high:
        raise ValueError(f"low_freq_factor is {low}, high_freq_factor is {high}; expected 0 < low < high")
    return Llama3Rope(float(rope["factor"]), low, high, int(rope["original_max_position_embeddings"]))
