"""A Hugging Face directory: every good layout of it loads, every bad one is a sentence and not a traceback."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import qwix
from flax import traverse_util
from safetensors.numpy import load_file, save_file

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.huggingface import load_policy, load_weights, save_policy
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.quantization import Quantization, stored
from regrpo_jax.models.qwen2_vl.weights import canonical_name

GOLDENS = Path(__file__).parents[1] / "goldens"

CONFIG = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500_000.0,
    "tie_word_embeddings": True,
}
Tensors = dict[str, np.ndarray]


def random_tensors(config: dict[str, Any]) -> Tensors:
    """Every weight of the architecture under its Hugging Face name, [out_features, in_features] for linear ones."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (config["vocab_size"], hidden),
        "model.norm.weight": (hidden,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    for layer in range(config["num_hidden_layers"]):
        start = f"model.layers.{layer}"
        for name, width in (("q", hidden), ("k", keys), ("v", keys)):
            shapes[f"{start}.self_attn.{name}_proj.weight"] = (width, hidden)
            shapes[f"{start}.self_attn.{name}_proj.bias"] = (width,)
        shapes[f"{start}.self_attn.o_proj.weight"] = (hidden, hidden)
        shapes[f"{start}.mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{start}.mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{start}.mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{start}.input_layernorm.weight"] = (hidden,)
        shapes[f"{start}.post_attention_layernorm.weight"] = (hidden,)
    random = np.random.default_rng(0)
    return {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_model(folder: Path, config: dict[str, Any], tensors: Tensors, *, shards: int = 1) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
        return
    weight_map = {name: f"model-{index % shards + 1:05}.safetensors" for index, name in enumerate(tensors)}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name in tensors if weight_map[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def load(folder: Path, *, param_dtype: str = "float32") -> tuple[PolicyConfig, dict[str, Any]]:
    return load_policy(folder, dtype="float32", param_dtype=param_dtype, remat="none", lora_alpha=16.0)


def complaint(folder: Path) -> str:
    with pytest.raises(UserError) as error:
        load(folder)
    return str(error.value)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shards", [1, 3])
def test_every_tensor_arrives_in_its_place(tmp_path: Path, tied: bool, shards: int) -> None:
    config = CONFIG | {"tie_word_embeddings": tied}
    tensors = random_tensors(config)
    write_model(tmp_path, config, tensors, shards=shards)
    policy, params = load(tmp_path)
    assert policy == PolicyConfig(
        vocab_size=11,
        hidden_size=8,
        intermediate_size=12,
        num_layers=3,
        num_heads=4,
        num_key_value_heads=2,
        head_dim=2,
        rope_theta=500_000.0,
        rms_norm_eps=1e-5,
        tie_word_embeddings=tied,
        remat="none",
    )
    expected = jax.eval_shape(policy_functions(policy).init, jax.random.key(0))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda array: array.shape, expected)
    layers = params["layers"]
    np.testing.assert_array_equal(params["embedding"], tensors["model.embed_tokens.weight"])
    np.testing.assert_array_equal(params["norm"]["scale"], tensors["model.norm.weight"])
    if not tied:
        np.testing.assert_array_equal(params["lm_head"], tensors["lm_head.weight"])
    for layer in range(3):
        start = f"model.layers.{layer}"
        for name, module in (("q", "self_attn"), ("k", "self_attn"), ("v", "self_attn"), ("o", "self_attn")):
            theirs = tensors[f"{start}.{module}.{name}_proj.weight"]
            np.testing.assert_array_equal(layers[f"{name}_proj"]["kernel"][layer], theirs.T)
        for name in ("q", "k", "v"):
            theirs = tensors[f"{start}.self_attn.{name}_proj.bias"]
            np.testing.assert_array_equal(layers[f"{name}_proj"]["bias"][layer], theirs)
        for name in ("gate", "up", "down"):
            theirs = tensors[f"{start}.mlp.{name}_proj.weight"]
            np.testing.assert_array_equal(layers[f"{name}_proj"]["kernel"][layer], theirs.T)
        for ours, name in (
            ("input_norm", "input_layernorm"),
            ("post_attention_norm", "post_attention_layernorm"),
        ):
            np.testing.assert_array_equal(layers[ours]["scale"][layer], tensors[f"{start}.{name}.weight"])


@pytest.mark.parametrize("param_dtype", ["float32", "bfloat16"])
def test_bfloat16_weights(tmp_path: Path, param_dtype: str) -> None:
    tensors = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in random_tensors(CONFIG).items()}
    write_model(tmp_path, CONFIG, tensors)
    _, params = load(tmp_path, param_dtype=param_dtype)
    assert {array.dtype for array in jax.tree.leaves(params)} == {jnp.dtype(param_dtype)}
    expected = tensors["model.layers.1.mlp.up_proj.weight"].T.astype(np.float32)
    np.testing.assert_array_equal(params["layers"]["up_proj"]["kernel"][1].astype(np.float32), expected)


def test_sizes_that_config_json_leaves_out(tmp_path: Path) -> None:
    """transformers' defaults of the family."""
    config = {key: value for key, value in CONFIG.items() if key not in ("rms_norm_eps", "rope_theta")}
    config |= {"hidden_size": 64, "num_attention_heads": 32}
    del config["num_key_value_heads"]
    write_model(tmp_path, config, random_tensors(config | {"num_key_value_heads": 32}))
    policy, _ = load(tmp_path)
    assert (policy.num_key_value_heads, policy.rms_norm_eps, policy.rope_theta) == (32, 1e-6, 10_000.0)


def test_rotary_base_under_its_new_name(tmp_path: Path) -> None:
    config = {key: value for key, value in CONFIG.items() if key != "rope_theta"}
    config["rope_parameters"] = {"rope_theta": 7_000.0, "rope_type": "default"}
    write_model(tmp_path, config, random_tensors(CONFIG))
    assert load(tmp_path)[0].rope_theta == 7_000.0


def test_known_extra_tensors_are_ignored(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    extra = {
        "lm_head.weight": tensors["model.embed_tokens.weight"].copy(),
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(1, np.float32),
    }
    write_model(tmp_path, CONFIG, tensors | extra)
    np.testing.assert_array_equal(load(tmp_path)[1]["embedding"], tensors["model.embed_tokens.weight"])


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize(
    ("text", "vision", "head"),
    [
        ("model.language_model.", "model.visual.", "lm_head."),  # transformers 4.52 and later, in memory
        ("language_model.model.", "visual.", "language_model.lm_head."),
    ],
)
def test_other_layouts_of_the_names(tmp_path: Path, family: str, text: str, vision: str, head: str) -> None:
    layout = {"model.": text, "visual.": vision, "lm_head.": head}
    stored = load_file(GOLDENS / family / "model.safetensors")
    tensors = {canonical_name(name): tensor for name, tensor in stored.items()}
    renamed = {
        re.sub(r"^(model\.|visual\.|lm_head\.)", lambda m: layout[m[1]], name): tensors[name] for name in tensors
    }
    assert not set(renamed) & {name for name in tensors if not name.startswith(("visual", "lm_head"))}
    write_model(tmp_path, json.loads((GOLDENS / family / "config.json").read_text()), renamed, shards=2)
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path), load(GOLDENS / family))


@pytest.mark.parametrize("family", ["qwen2", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_written_weights_are_the_ones_that_were_read(tmp_path: Path, family: str) -> None:
    config, params = load(GOLDENS / family)
    save_policy(tmp_path / "one", config, params, source=GOLDENS / family)
    original = load_file(GOLDENS / family / "model.safetensors")
    written = load_file(tmp_path / "one" / "model.safetensors")
    assert written.keys() == original.keys()
    jax.tree.map(np.testing.assert_array_equal, written, original)
    assert (tmp_path / "one" / "config.json").read_text() == (GOLDENS / family / "config.json").read_text()
    assert not (tmp_path / "one" / "case.npz").exists()
    save_policy(tmp_path / "many", config, params, shard_bytes=20_000)
    files = sorted(file.name for file in (tmp_path / "many").glob("*.safetensors*"))
    assert files[0].startswith("model-00001-of-000") and files[-1] == "model.safetensors.index.json"
    jax.tree.map(np.testing.assert_array_equal, load(tmp_path / "many")[1], params)


def test_writing_leaves_nothing_of_an_earlier_export(tmp_path: Path) -> None:
    """One file, then many, then fewer, then one: what is read is what was written last, and nothing else is there."""
    source, target = GOLDENS / "qwen2", tmp_path / "model"
    config, params = load(source)
    for change, shard_bytes in enumerate((1 << 30, 5_000, 20_000, 1 << 30), start=1):
        written = jax.tree.map(lambda array, by=change: array + by, params)
        save_policy(target, config, written, source=source, shard_bytes=shard_bytes)
        jax.tree.map(np.testing.assert_array_equal, load(target)[1], written)
        files = {file.name for file in target.glob("*.safetensors*")}
        assert files == ({"model.safetensors"} if shard_bytes == 1 << 30 else set(shards_of(target)))
    assert not (target / "processor_config.json").exists()
    (target / "processor_config.json").write_text("{}")  # of another model; readers prefer it to preprocessor_config
    save_policy(target, config, params, source=source)
    assert not (target / "processor_config.json").exists()


def shards_of(folder: Path) -> list[str]:
    index = folder / "model.safetensors.index.json"
    return [index.name, *json.loads(index.read_text())["weight_map"].values()]


def test_weights_are_never_written_over_their_source(tmp_path: Path) -> None:
    write_model(tmp_path, CONFIG, random_tensors(CONFIG))
    config, params = load(tmp_path)
    with pytest.raises(UserError, match="export to another folder"):
        save_policy(tmp_path, config, params, source=tmp_path / ".." / tmp_path.name)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_quantised_tensor_by_tensor_is_quantised_as_a_whole(kind: Quantization) -> None:
    config, dense = load(GOLDENS / "qwen2_vl")
    params = load_weights(GOLDENS / "qwen2_vl", config, quantization=kind)
    flat = traverse_util.flatten_dict(params, sep="/")
    for path, array in traverse_util.flatten_dict(dense, sep="/").items():
        jax.tree.map(np.testing.assert_array_equal, flat[path], stored(path, array, kind=kind))
    assert isinstance(flat["layers/q_proj/kernel"], qwix.QArray)
    assert isinstance(flat["vision/blocks/qkv/kernel"], qwix.QArray)
    assert not isinstance(flat["lm_head"], qwix.QArray)


def test_all_unfitting_tensors_are_named_at_once(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    del tensors["model.layers.1.self_attn.k_proj.bias"], tensors["model.norm.weight"]
    tensors["model.layers.0.mlp.up_proj.weight"] = np.zeros((3, 8), np.float32)
    tensors["model.layers.3.mlp.up_proj.weight"] = np.zeros((12, 8), np.float32)  # a layer too many
    tensors["visual.patch_embed.proj.weight"] = np.zeros(1, np.float32)
    write_model(tmp_path, CONFIG, tensors)
    message = complaint(tmp_path)
    for part in (
        str(tmp_path),
        "missing model.layers.1.self_attn.k_proj.bias",
        "missing model.norm.weight",
        "model.layers.0.mlp.up_proj.weight has shape (3, 8), expected (12, 8)",
        "unexpected model.layers.3.mlp.up_proj.weight",
        "unexpected visual.patch_embed.proj.weight",
    ):
        assert part in message
    assert "missing model.layers.0.mlp.up_proj.weight" not in message
    assert len(message.split("; ")) == 5


def test_a_long_list_of_problems_ends_with_their_number(tmp_path: Path) -> None:
    tensors = random_tensors(CONFIG)
    write_model(tmp_path, CONFIG, {"model.norm.weight": tensors["model.norm.weight"]})
    assert complaint(tmp_path).endswith(f"; and {len(tensors) - 1 - 20} more")


def only_an_index(content: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text(content)

    return change


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def replace_config(**changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        kept = {key: value for key, value in (CONFIG | changes).items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


@pytest.mark.parametrize(
    ("break_it", "file", "reason"),
    [
        (lambda folder: truncate(folder / "model.safetensors"), "model.safetensors", "truncated"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "model.safetensors", "broken"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors", "no such file"),
        (lambda folder: (folder / "config.json").unlink(), "config.json", "no such file"),
        (lambda folder: (folder / "config.json").write_text('{"a": 1,\n 2}'), "config.json", "line 2, column 2"),
        (lambda folder: (folder / "config.json").write_text(""), "config.json", "invalid JSON at line 1"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "config.json", "expected a JSON object"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe{}"), "config.json", "not a readable JSON file"),
        (replace_config(model_type="gemma"), "config.json", "model_type is 'gemma'"),
        (replace_config(model_type=None), "config.json", "model_type is None"),
        (replace_config(hidden_size=None), "config.json", "'hidden_size' is missing"),
        (replace_config(num_key_value_heads=3), "config.json", "multiple of num_key_value_heads"),
        (replace_config(num_attention_heads="4"), "config.json", "expected int, got str"),
        (replace_config(hidden_act="gelu"), "config.json", "hidden_act 'gelu'"),
        (replace_config(use_sliding_window=True), "config.json", "use_sliding_window True"),
        (replace_config(rope_scaling={"type": "yarn", "factor": 4.0}), "config.json", "rope_type 'yarn'"),
        (only_an_index("{}"), "model.safetensors.index.json", "'weight_map' is missing"),
        (only_an_index('{"weight_map": {"a": 1}}'), "model.safetensors.index.json", "no list of files"),
        (only_an_index('{"weight_map": {"a": "b.safetensors"}}'), "b.safetensors", "no such file"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "model.safetensors",
            "pytorch_model.bin has to be saved as safetensors first",
        ),
    ],
)
def test_a_broken_directory_is_one_sentence_naming_the_file(
    tmp_path: Path, break_it: Callable[[Path], object], file: str, reason: str
) -> None:
    write_model(tmp_path, CONFIG, random_tensors(CONFIG))
    load(tmp_path)
    break_it(tmp_path)
    message = complaint(tmp_path)
    assert message.startswith(f"{tmp_path}/{file}: ")
    assert reason in message
    assert "\n" not in message


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    assert complaint(tmp_path / "nowhere").startswith(f"{tmp_path}/nowhere/config.json: no such file")
