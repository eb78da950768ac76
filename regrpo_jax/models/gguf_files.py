"""GGUF files of llama.cpp: their metadata as a `config.json`, their tensors under published names, dense again.

Read with the package `gguf` (extra `[gguf]`), which needs numpy alone.
"""

import functools
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from regrpo_jax.errors import UserError

ARCHITECTURES = ("llama", "qwen2", "qwen3")  # llama.cpp's names are those of transformers here
# Keys after "llama." that are read, and keys that change nothing of what is computed; others may, and are refused.
READ = {
    "embedding_length", "feed_forward_length", "block_count", "attention.head_count", "attention.head_count_kv",
    "attention.key_length", "attention.value_length", "attention.layer_norm_rms_epsilon", "rope.freq_base",
    "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "context_length",
}  # fmt: skip
NOTES = {"vocab_size", "tensor_data_layout", "rope.scaling.original_context_length", "rope.scaling.finetuned"}
TOKEN_IDS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}
ROTARY_FACTORS = "rope_freqs.weight"  # llama.cpp keeps the scaling of Llama 3.1 as a tensor

_OUTSIDE = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_INSIDE = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAME = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<module>\w+)\.(?P<kind>weight|bias)")
_ROTATED = re.compile(r"blk\.\d+\.attn_(?P<which>[qk])\.(weight|bias)")


def is_gguf(path: Path) -> bool:
    """Whether a model is one file of llama.cpp, and no directory."""
    return path.suffix.lower() == ".gguf"


def describe_gguf(path: Path) -> dict[str, Any]:
    """What a `config.json` beside these weights would say of the architecture.

    Raises:
      UserError: no GGUF file, of another architecture, or one with parts that are not known here.
    """
    family, own = _own_metadata(path)
    shapes = gguf_shapes(path)
    try:
        heads, hidden = own["attention.head_count"], own["embedding_length"]
        width = own.get("attention.key_length", hidden // heads)
        sizes = {
            "model_type": family,
            "vocab_size": shapes["model.embed_tokens.weight"][0],
            "hidden_size": hidden,
            "intermediate_size": own["feed_forward_length"],
            "num_hidden_layers": own["block_count"],
            "num_attention_heads": heads,
            "num_key_value_heads": own.get("attention.head_count_kv", heads),
            "head_dim": width,
            "rms_norm_eps": _shortest(own["attention.layer_norm_rms_epsilon"]),
        }
    except KeyError as error:
        raise UserError(f"{path}: {error} is missing; is this the whole file of a {family} model?") from error
    values = own.get("attention.value_length", width)
    if values != width:
        raise UserError(f"{path}: heads of {width} numbers for keys and {values} for values are not supported")
    if ROTARY_FACTORS in shapes:
        raise UserError(
            f"{path}: {ROTARY_FACTORS}, which scales the rotary embedding of Llama 3.1 and later, is not supported in "
            "GGUF files; give the model's Hugging Face directory"
        )
    rope = {"rope_type": _scaling(own), "rope_theta": _shortest(own.get("rope.freq_base", 10_000.0))}
    if own.get("rope.dimension_count", width) != width:
        rope["partial_rotary_factor"] = own["rope.dimension_count"] / width
    return sizes | {"rope_parameters": rope, "tie_word_embeddings": "lm_head.weight" not in shapes}


def gguf_notes(path: Path) -> dict[str, int]:
    """What an exported `config.json` says besides: the ids of special tokens, and how many positions there are.

    Raises:
      UserError: as `describe_gguf`.
    """
    held, (_, own) = metadata(path), _own_metadata(path)
    notes = {name: held.get(f"tokenizer.ggml.{key}") for name, key in TOKEN_IDS.items()}
    notes["max_position_embeddings"] = own.get("context_length")
    return {name: value for name, value in notes.items() if value is not None}


def _own_metadata(path: Path) -> tuple[str, dict[str, Any]]:
    """The architecture, and its keys without its name before them."""
    held = metadata(path)
    family = held.get("general.architecture")
    if family not in ARCHITECTURES:
        raise UserError(
            f"{path}: general.architecture is {family!r}; supported are {', '.join(map(repr, ARCHITECTURES))}"
        )
    own = {key.removeprefix(f"{family}."): value for key, value in held.items() if key.startswith(f"{family}.")}
    if unknown := sorted(key for key, value in own.items() if key not in READ | NOTES and value):
        raise UserError(f"{path}: {unknown[0]} {own[unknown[0]]!r} is not known here, and may change what it computes")
    return family, own


def gguf_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Published name -> shape of every tensor; what has no such name keeps its own.

    Raises:
      UserError: as `describe_gguf`; or tensors are quantised in a way that the package cannot undo.
    """
    return {
        published_name(tensor.name): tuple(int(size) for size in reversed(tensor.shape))
        for tensor in _opened(path).tensors
    }


def read_gguf(path: Path, names: Iterable[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of these published names, dense; of float32 whatever they are stored as.

    The queries and keys of a `llama` stand in the order of llama.cpp, each pair that turns together side by side; they
    are put back into two halves.

    Raises:
      UserError: a tensor is quantised in a way that the package cannot undo.
    """
    from gguf.quants import dequantize

    tensors = {published_name(tensor.name): tensor for tensor in _opened(path).tensors}
    description = describe_gguf(path)
    for name in names:
        tensor = tensors[name]
        try:
            dense = dequantize(tensor.data, tensor.tensor_type)  # [out_features, in_features]
        except NotImplementedError as error:
            kind = tensor.tensor_type.name
            raise UserError(f"{path}: tensor {tensor.name} is quantised as {kind}, which cannot be read") from error
        rotated = _ROTATED.fullmatch(tensor.name)
        if rotated and description["model_type"] == "llama":
            heads = description["num_attention_heads" if rotated["which"] == "q" else "num_key_value_heads"]
            dense = in_halves(dense, heads)
        yield name, dense


def in_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from pairs (0, 1), (2, 3), .. to pairs (0, d/2), (1, d/2 + 1), ..

    Args:
      rows: # [head * head_dim, ..]
    """
    paired = rows.reshape(heads, -1, 2, *rows.shape[1:])  # [head, head_dim / 2, 2, ..]
    return paired.swapaxes(1, 2).reshape(rows.shape)


def published_name(name: str) -> str:
    """The name in a Hugging Face checkpoint of a tensor of llama.cpp; a name that is not known stays."""
    found = _NAME.fullmatch(name)
    if found is None:
        return name
    layer, module, kind = found["layer"], found["module"], found["kind"]
    known = (_OUTSIDE if layer is None else _INSIDE).get(module)
    if known is None:
        return name
    return f"{known}.{kind}" if layer is None else f"model.layers.{layer}.{known}.{kind}"


def metadata(path: Path) -> dict[str, Any]:
    """Every key of the file with its value, as plain Python.

    Raises:
      UserError: missing or no GGUF file, or the package `gguf` is not there.
    """
    if not path.exists():
        raise UserError(f"{path}: no such file")
    return _metadata(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _metadata(path: Path, changed: int) -> dict[str, Any]:
    return {name: field.contents() for name, field in _opened(path).fields.items()}


def _opened(path: Path) -> Any:
    if not path.exists():
        raise UserError(f"{path}: no such file")
    return _reader(path, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _reader(path: Path, changed: int) -> Any:
    """A `GGUFReader`, memory-mapped; kept because it walks the whole vocabulary."""
    try:
        from gguf import GGUFReader
    except ImportError as error:
        raise UserError(f"{path}: GGUF files need the package gguf; pip install 'regrpo_jax[gguf]'") from error
    try:
        return GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        raise UserError(f"{path}: broken, truncated or no GGUF file ({error})") from error


def _scaling(own: dict[str, Any]) -> str:
    """transformers' name of the kind of rotary embedding."""
    kind, factor = own.get("rope.scaling.type", "linear"), own.get("rope.scaling.factor", 1)
    return "default" if kind == "none" or (kind == "linear" and factor in (0, 1)) else kind


def _shortest(value: float) -> float:
    """A float32 as the shortest number that rounds to it: 1e-05 in the place of 9.999999747378752e-06."""
    return float(str(np.float32(value)))
