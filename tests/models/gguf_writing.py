"""Small random models and tokenizers as GGUF files, in the layout that llama.cpp's conversion gives them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from tokenizers import pre_tokenizers

from regrpo_jax.data.tokenizer import CHAT_TEMPLATE

BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())
HEADS, KEY_VALUE_HEADS, LAYERS, VOCABULARY, HIDDEN, INNER = 4, 2, 2, 320, 64, 96
WIDTHS = {"llama": 16, "qwen2": 16, "qwen3": 32, "gemma": 16}  # of a head
SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": HIDDEN, "intermediate_size": INNER, "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS, "num_key_value_heads": KEY_VALUE_HEADS, "rms_norm_eps": 1e-5, "rope_theta": 5000.0,
}  # fmt: skip


def tensors_of(family: str, *, tied: bool) -> dict[str, np.ndarray]:
    """Random weights under llama.cpp's names, in the order of a Hugging Face checkpoint."""
    queries, keys = HEADS * WIDTHS[family], KEY_VALUE_HEADS * WIDTHS[family]
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (VOCABULARY, HIDDEN), "output_norm.weight": (HIDDEN,)}
    if not tied:
        shapes["output.weight"] = (VOCABULARY, HIDDEN)
    for start in (f"blk.{layer}." for layer in range(LAYERS)):
        shapes |= {f"{start}attn_norm.weight": (HIDDEN,), f"{start}ffn_norm.weight": (HIDDEN,)}
        for name, width in (("q", queries), ("k", keys), ("v", keys)):
            shapes[f"{start}attn_{name}.weight"] = (width, HIDDEN)
            if family == "qwen2":
                shapes[f"{start}attn_{name}.bias"] = (width,)
            if family == "qwen3" and name != "v":
                shapes[f"{start}attn_{name}_norm.weight"] = (WIDTHS[family],)
        shapes[f"{start}attn_output.weight"] = (HIDDEN, queries)
        shapes |= {f"{start}ffn_gate.weight": (INNER, HIDDEN), f"{start}ffn_up.weight": (INNER, HIDDEN)}
        shapes[f"{start}ffn_down.weight"] = (HIDDEN, INNER)
    random = np.random.default_rng(4)
    return {name: random.normal(scale=0.3, size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_gguf(
    path: Path,
    family: str,
    kind: GGMLQuantizationType,
    *,
    tied: bool,
    more: Callable[[GGUFWriter], None] = lambda writer: None,
    leave_out: str = "",
) -> Path:
    """Matrices in `kind`, all else in float32, with a tokenizer of bytes.

    Args:
      more: writes further keys and tensors.
      leave_out: the name of a key or tensor.
    """
    writer = GGUFWriter(None, family)
    numbers = {
        "embedding_length": HIDDEN, "feed_forward_length": INNER, "block_count": LAYERS, "context_length": 64,
        "attention.head_count": HEADS, "attention.head_count_kv": KEY_VALUE_HEADS,
    }  # fmt: skip
    if family == "qwen3":
        numbers |= {"attention.key_length": WIDTHS[family], "attention.value_length": WIDTHS[family]}
    for name, value in numbers.items():
        if f"{family}.{name}" != leave_out:
            writer.add_uint32(f"{family}.{name}", value)
    writer.add_float32(f"{family}.attention.layer_norm_rms_epsilon", SIZES["rms_norm_eps"])
    writer.add_float32(f"{family}.rope.freq_base", SIZES["rope_theta"])
    add_tokenizer(writer, [*BYTES, "he", "<|endoftext|>"], [("h", "e")], "gpt-2", control={257})
    more(writer)
    for name, array in tensors_of(family, tied=tied).items():
        heads = {"attn_q": HEADS, "attn_k": KEY_VALUE_HEADS}.get(name.split(".")[-2]) if family == "llama" else None
        if heads and array.ndim == 2:
            array = array.reshape(heads, 2, -1, HIDDEN).swapaxes(1, 2).reshape(array.shape)
        if name == leave_out:
            continue
        if array.ndim == 1:
            writer.add_tensor(name, array)
        else:
            writer.add_tensor(name, quantize(np.ascontiguousarray(array), kind), raw_dtype=kind)
    return finished(writer, path)


def add_tokenizer(
    writer: GGUFWriter, tokens: list[str], merges: list[Any], split: str, *, control: set[int], model: str = "gpt2"
) -> None:
    """A tokenizer's metadata; the last token ends a text."""
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(split)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if id_ in control else 1 for id_ in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_chat_template(CHAT_TEMPLATE)


def finished(writer: GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file(path)
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
