"""GGUF files, written here with the package `gguf` in llama.cpp's layout, against directories of the same weights."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import dequantize, quantize
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from regrpo_jax.errors import UserError
from regrpo_jax.models.gguf_files import published_name
from regrpo_jax.models.huggingface import load_policy, load_weights
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.quantization import stored
from regrpo_jax.run.exports import write_weights
from regrpo_jax.run.model_defaults import with_model_defaults
from tests.models.gguf_writing import HEADS, KEY_VALUE_HEADS, SIZES, WIDTHS, tensors_of, write_gguf

Kind = GGMLQuantizationType


def turned_by_llama_cpp(weights: np.ndarray, heads: int) -> np.ndarray:
    """`permute` of llama.cpp's conversion."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def turned_back(weights: np.ndarray, heads: int) -> np.ndarray:
    """Row by row: of a head of d numbers, row 2 i + j of llama.cpp's is our row i + j d / 2."""
    found, width = np.empty_like(weights), weights.shape[0] // heads
    for head in range(heads):
        for row in range(width):
            pair, half = divmod(row, 2)
            found[head * width + pair + half * width // 2] = weights[head * width + row]
    return found


def as_stored(name: str, array: np.ndarray, kind: Kind, family: str) -> np.ndarray:
    """What is left of a tensor when it was turned, quantised and turned back."""
    if array.ndim == 1:
        return array
    heads = {"attn_q": HEADS, "attn_k": KEY_VALUE_HEADS}.get(name.split(".")[-2]) if family == "llama" else None
    kept = turned_by_llama_cpp(array, heads) if heads else array
    dense = dequantize(quantize(kept, kind), kind).reshape(array.shape)
    return turned_back(dense, heads) if heads else dense


def write_directory(folder: Path, family: str, kind: Kind, *, tied: bool) -> Path:
    """The same weights as a Hugging Face directory, after what quantisation does to them."""
    folder.mkdir()
    tensors = tensors_of(family, tied=tied)
    held = {published_name(name): as_stored(name, array, kind, family) for name, array in tensors.items()}
    save_file({name: np.ascontiguousarray(array) for name, array in held.items()}, folder / "model.safetensors")
    described = SIZES | {"model_type": family, "head_dim": WIDTHS[family], "tie_word_embeddings": tied}
    (folder / "config.json").write_text(json.dumps(described))
    return folder


def logits_of(path: Path) -> np.ndarray:
    config, params = load_policy(path, remat="none")
    functions = policy_functions(config)
    tokens = np.arange(1, 10, dtype=np.int32)[None]
    positions = np.broadcast_to(np.arange(9, dtype=np.int32)[None, :, None], (1, 9, 3))
    block = TokenBlock(tokens, np.ones_like(tokens), positions, -np.ones_like(tokens))
    run = jax.jit(lambda v, b: functions.run_prefix(v, b, None)[0] @ functions.head(v).T)
    return np.asarray(run({"params": params}, block))


@pytest.mark.parametrize(
    ("family", "kind", "tied"),
    [
        ("llama", Kind.F32, False),
        ("llama", Kind.F16, True),
        ("llama", Kind.Q8_0, True),
        ("llama", Kind.Q4_1, False),
        ("llama", Kind.BF16, True),
        ("qwen2", Kind.Q8_0, True),
        ("qwen3", Kind.Q4_1, False),
    ],
)
def test_a_file_is_the_directory_of_its_dequantised_weights(
    tmp_path: Path, family: str, kind: Kind, tied: bool
) -> None:
    directory = write_directory(tmp_path / "directory", family, kind, tied=tied)
    file = write_gguf(tmp_path / "model.gguf", family, kind, tied=tied)
    wanted_config, wanted = load_policy(directory, remat="none")
    config, params = load_policy(file, remat="none")
    assert config == wanted_config
    assert config.tie_word_embeddings == tied
    jax.tree.map(np.testing.assert_array_equal, params, wanted)
    if kind in (Kind.F16, Kind.Q4_1):
        logits = logits_of(file)
        np.testing.assert_array_equal(logits, logits_of(directory))
        assert np.std(logits) > 0.3


def test_the_kernels_of_a_file_can_be_kept_in_few_bits(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", "llama", Kind.F32, tied=True)
    config, dense = load_policy(file, remat="none")
    kept = load_weights(file, config, quantization="int8")
    wanted = stored("layers/q_proj/kernel", dense["layers"]["q_proj"]["kernel"], kind="int8")
    jax.tree.map(np.testing.assert_array_equal, kept["layers"]["q_proj"]["kernel"], wanted)


def test_a_run_takes_its_defaults_from_a_file_and_exports_a_directory(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "model.gguf", "llama", Kind.Q8_0, tied=True)
    path = {"path": str(file), "dtype": "auto", "param_dtype": "auto", "remat": "auto", "quantize": "none"}
    asked = ConfigDict({"model": path, "optimizer": {"trainable": "auto"}, "player": {"server": ""}})
    assert with_model_defaults(asked).model.dtype == "float32"
    config, params = load_policy(file)
    context: Any = SimpleNamespace(config=asked, functions=policy_functions(config), image_token_id=-1)
    learner: Any = SimpleNamespace(context=context, variables={"params": params}, workdir=tmp_path)
    write_weights(learner)
    again_config, again = load_policy(tmp_path / "model")
    assert again_config == config
    jax.tree.map(np.testing.assert_array_equal, again, params)
    described = json.loads((tmp_path / "model" / "config.json").read_text())
    assert (described["model_type"], described["max_position_embeddings"]) == ("llama", 64)
    assert (tmp_path / "model" / "tokenizer.json").exists()


def scaled(kind: str) -> Callable[[GGUFWriter], None]:
    def add(writer: GGUFWriter) -> None:
        writer.add_string("llama.rope.scaling.type", kind)
        writer.add_float32("llama.rope.scaling.factor", 4.0)

    return add


def tensor(name: str, *shape: int) -> Callable[[GGUFWriter], None]:
    return lambda writer: writer.add_tensor(name, np.ones(shape, np.float32))


REFUSED: dict[str, tuple[Callable[[GGUFWriter], None], str]] = {
    "linear": (scaled("linear"), "rope_type 'linear' is not supported"),
    "yarn": (scaled("yarn"), "rope_type 'yarn' is not supported"),
    "rotary factors": (tensor("rope_freqs.weight", 8), "rope_freqs.weight, which scales the rotary embedding"),
    "experts": (lambda writer: writer.add_expert_count(8), "expert_count 8 is not known here"),
    "a window": (lambda writer: writer.add_sliding_window(16), "attention.sliding_window 16 is not known here"),
    "a part of the head": (lambda writer: writer.add_rope_dimension_count(4), "partial_rotary_factor 0.25"),
    "narrow values": (lambda writer: writer.add_value_length(8), "heads of 16 numbers for keys and 8 for values"),
    "heads of each layer": (
        lambda writer: writer.add_array("llama.attention.key_length", [16, 8]),
        "expected int, got list",
    ),
    "a bias": (tensor("blk.0.attn_q.bias", 64), "unexpected model.layers.0.self_attn.q_proj.bias"),
    "another tensor": (tensor("blk.0.ffn_gate_exps.weight", 4, 4), "unexpected blk.0.ffn_gate_exps.weight"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_compute_something_else_is_refused_in_a_sentence(tmp_path: Path, case: str) -> None:
    more, reason = REFUSED[case]
    file = write_gguf(tmp_path / "model.gguf", "llama", Kind.F32, tied=True, more=more)
    with pytest.raises(UserError) as error:
        load_policy(file)
    assert str(error.value).startswith(f"{file}: ") and "\n" not in str(error.value)
    assert reason in str(error.value)


def test_a_scaling_by_one_is_none(tmp_path: Path) -> None:
    def more(writer: GGUFWriter) -> None:
        writer.add_string("llama.rope.scaling.type", "linear")
        writer.add_float32("llama.rope.scaling.factor", 1.0)

    load_policy(write_gguf(tmp_path / "model.gguf", "llama", Kind.F32, tied=True, more=more))


@pytest.mark.parametrize(
    ("leave_out", "reason"),
    [
        ("llama.block_count", "'block_count' is missing"),
        ("token_embd.weight", "'model.embed_tokens.weight' is missing"),
        ("blk.1.ffn_up.weight", "missing model.layers.1.mlp.up_proj.weight"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, leave_out: str, reason: str) -> None:
    file = write_gguf(tmp_path / "model.gguf", "llama", Kind.F32, tied=True, leave_out=leave_out)
    with pytest.raises(UserError, match=reason):
        load_policy(file)


def test_files_that_are_none(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    with pytest.raises(UserError, match="no such file"):
        load_policy(file)
    for content in (b"", b"GGUF", b"{}" * 100):
        file.write_bytes(content)
        with pytest.raises(UserError, match="broken, truncated or no GGUF file"):
            load_policy(file)
    whole = write_gguf(tmp_path / "whole.gguf", "llama", Kind.F32, tied=True).read_bytes()
    for length in (len(whole) - 5000, len(whole) // 4, 3000, 300):
        file.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"broken, truncated or no GGUF file|is missing"):
            load_policy(file)
    file = write_gguf(tmp_path / "other.gguf", "gemma", Kind.F32, tied=True)
    with pytest.raises(UserError, match="general.architecture is 'gemma'; supported are 'llama', 'qwen2', 'qwen3'"):
        load_policy(file)
