"""PEFT's files: what is written is read back, in every layout; what does not fit is refused by name."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.lora import ATTENTION_TARGETS, AdapterSettings, init_adapter, merge_adapter
from regrpo_jax.models.peft import DESCRIPTION, TENSORS, export_adapter
from regrpo_jax.models.peft_import import full_weights, load_adapter
from regrpo_jax.models.quantization import quantize_params

Tree = dict[str, Any]
TARGETS = (*ATTENTION_TARGETS, "gate_proj", "up_proj", "down_proj")
VISION_TARGETS = ("qkv", "proj", "fc1", "fc2")
Q_PROJ = "base_model.model.model.language_model.layers.{}.self_attn.q_proj.lora_{}.weight"
quick = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def params(small_config: PolicyConfig, random_variables: Callable[..., Tree]) -> Tree:
    return random_variables(small_config, 1)["params"]


def random_adapter(params: Tree, chosen: AdapterSettings, seed: int = 0) -> Tree:
    """As after training: no zero where it learns."""
    random = np.random.default_rng(seed)

    def trained(path: Any, array: jax.Array) -> jax.Array:
        values = random.normal(size=array.shape).astype(np.float32)
        if chosen.last_layers and path[0].key == "layers":
            values[: -chosen.last_layers] = 0
        return jnp.asarray(values)

    return jax.tree_util.tree_map_with_path(trained, init_adapter(jax.random.key(0), params, chosen))


def some_of(names: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(names), min_size=1, unique=True).map(tuple)


ADAPTERS = st.builds(
    AdapterSettings,
    rank=st.integers(1, 5),
    targets=some_of(TARGETS),
    last_layers=st.integers(0, 2),
    vision_rank=st.integers(0, 5),
    vision_targets=some_of(VISION_TARGETS),
)


@quick
@given(chosen=ADAPTERS, seed=st.integers(0, 99))
def test_what_is_written_is_read_back(
    small_config: PolicyConfig, params: Tree, tmp_path: Path, chosen: AdapterSettings, seed: int
) -> None:
    adapter = random_adapter(params, chosen, seed)
    export_adapter(tmp_path, {"params": params, "lora": adapter}, small_config, base_model="base")
    loaded = load_adapter(tmp_path, params, small_config)
    jax.tree.map(np.testing.assert_array_equal, loaded["params"], params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), loaded["lora"], adapter)
    described = json.loads((tmp_path / DESCRIPTION).read_text())
    for pattern, rank in described["rank_pattern"].items():  # vLLM scales all by alpha / r, whatever the patterns say
        np.testing.assert_allclose(described["alpha_pattern"][pattern] / rank, described["lora_alpha"] / described["r"])


@quick
@given(chosen=ADAPTERS, alphas=st.tuples(*[st.floats(0.5, 64)] * 4))
def test_a_policy_with_other_alphas_reads_the_same_update(
    small_config: PolicyConfig, params: Tree, tmp_path: Path, chosen: AdapterSettings, alphas: tuple[float, ...]
) -> None:
    first, second = with_alphas(small_config, *alphas[:2]), with_alphas(small_config, *alphas[2:])
    adapter = random_adapter(params, chosen)
    export_adapter(tmp_path, {"params": params, "lora": adapter}, first, base_model="base")
    loaded = load_adapter(tmp_path, params, second)
    merged = merge_adapter(loaded["params"], loaded["lora"], second)
    expected = merge_adapter(params, adapter, first)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3), merged, expected)


def with_alphas(config: PolicyConfig, decoder: float, vision: float) -> PolicyConfig:
    assert config.vision is not None
    return dataclasses.replace(config, lora_alpha=decoder, vision=dataclasses.replace(config.vision, lora_alpha=vision))


@pytest.fixture
def folder(small_config: PolicyConfig, params: Tree, tmp_path: Path) -> Path:
    """An adapter on decoder and tower, with a norm in full."""
    adapter = random_adapter(params, AdapterSettings(3, ("q_proj",), vision_rank=2, vision_targets=("qkv",)))
    variables = {"params": params, "lora": adapter}
    export_adapter(tmp_path, variables, small_config, base_model="base", full_weights=["norm/scale"])
    return tmp_path


def edit_tensors(folder: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    tensors = load_file(folder / TENSORS)
    change(tensors)
    save_file(tensors, folder / TENSORS)


def edit_description(folder: Path, **fields: Any) -> None:
    description = json.loads((folder / DESCRIPTION).read_text()) | fields
    (folder / DESCRIPTION).write_text(json.dumps({k: v for k, v in description.items() if v != "removed"}))


@pytest.mark.parametrize(
    ("decoder", "tower"), [("model.layers", "visual"), ("language_model.model.layers", "model.visual")]
)
@pytest.mark.parametrize("adapter_name", ["", ".default"])
def test_older_layouts_are_the_same_adapter(
    small_config: PolicyConfig, params: Tree, folder: Path, decoder: str, tower: str, adapter_name: str
) -> None:
    expected = load_adapter(folder, params, small_config)

    def older(text: str) -> str:
        return text.replace("model.language_model.layers", decoder).replace("model.visual", tower)

    def rename(tensors: dict[str, np.ndarray]) -> None:
        for name in list(tensors):
            new = "base_model.model." + older(name.removeprefix("base_model.model."))
            new = new.replace(".lora_A", f".lora_A{adapter_name}").replace(".lora_B", f".lora_B{adapter_name}")
            tensors[new] = tensors.pop(name)

    edit_tensors(folder, rename)
    description = json.loads((folder / DESCRIPTION).read_text())
    patterns = {key: {older(p.replace("\\.", ".")): v for p, v in description[key].items()}
                for key in ("rank_pattern", "alpha_pattern")}  # fmt: skip
    edit_description(folder, target_modules=[older(name) for name in description["target_modules"]], **patterns)
    jax.tree.map(np.testing.assert_array_equal, load_adapter(folder, params, small_config), expected)


def test_full_weights_replace_those_of_the_base_and_are_told(
    small_config: PolicyConfig, params: Tree, folder: Path
) -> None:
    edit_tensors(folder, lambda tensors: tensors["base_model.model.model.language_model.norm.weight"].fill(7.0))
    loaded = load_adapter(folder, params, small_config)["params"]
    before, after = (traverse_util.flatten_dict(tree, sep="/") for tree in (params, loaded))
    assert {path for path in before if np.any(before[path] != after[path])} == {"norm/scale"}
    np.testing.assert_array_equal(after["norm/scale"], 7.0)
    assert full_weights(folder, params, small_config) == ["norm/scale"]


def test_ranks_that_differ_by_layer_are_padded_with_zeros(
    small_config: PolicyConfig, params: Tree, folder: Path
) -> None:
    expected = load_adapter(folder, params, small_config)

    def cut(tensors: dict[str, np.ndarray]) -> None:
        tensors[Q_PROJ.format(0, "A")] = tensors[Q_PROJ.format(0, "A")][:1].copy()
        tensors[Q_PROJ.format(0, "B")] = tensors[Q_PROJ.format(0, "B")][:, :1].copy()

    edit_tensors(folder, cut)
    edit_description(folder, rank_pattern={"layers.0.self_attn.q_proj": 1, ".*visual.*": 2})
    loaded, whole = (
        tree["lora"]["layers"]["q_proj"] for tree in (load_adapter(folder, params, small_config), expected)
    )
    np.testing.assert_array_equal(loaded["down"][0, :, 1:], 0)
    np.testing.assert_array_equal(loaded["up"][0, 1:], 0)
    np.testing.assert_allclose(loaded["up"][0, 0], 3 * whole["up"][0, 0], rtol=1e-6)  # alpha / 1 was alpha / 3
    np.testing.assert_array_equal(loaded["up"][1], whole["up"][1])


def removed(name: str) -> Callable[[Path], None]:
    def remove(folder: Path) -> None:
        edit_tensors(folder, lambda tensors: [tensors.pop(key) for key in list(tensors) if name in key] and None)

    return remove


def described(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: edit_description(folder, **fields)


def added(name: str, *shape: int) -> Callable[[Path], None]:
    def add(folder: Path) -> None:
        edit_tensors(folder, lambda tensors: tensors.update({f"base_model.model.{name}": np.zeros(shape, np.float32)}))

    return add


def promised(module: str, name: str) -> Callable[[Path], None]:
    """A table for one end of a tied model, in `modules_to_save`."""

    def promise(folder: Path) -> None:
        added(name, 23, 16)(folder)
        edit_description(folder, modules_to_save=["language_model.norm", module])

    return promise


def truncated(folder: Path) -> None:
    content = (folder / TENSORS).read_bytes()
    (folder / TENSORS).write_bytes(content[: len(content) // 2])


KERNEL = "model.language_model.layers.0.self_attn.k_proj.weight"
# What happened to the folder, the file that is named, and words of the message.
BAD: dict[str, tuple[Callable[[Path], None], str, str]] = {
    "no description": (lambda folder: (folder / DESCRIPTION).unlink(), DESCRIPTION, "no such file; config.lora.path"),
    "no JSON": (lambda folder: (folder / DESCRIPTION).write_text('{"r": '), DESCRIPTION, "invalid JSON at line 1"),  # type: ignore[func-returns-value]
    "no rank": (described(r="removed"), DESCRIPTION, "the key 'r' is missing"),
    "no targets": (described(target_modules=None), DESCRIPTION, "the key 'target_modules' is missing"),
    "rank of zero": (described(r=0), DESCRIPTION, "a rank or alpha is not above 0"),
    "a word as alpha": (described(lora_alpha="x"), DESCRIPTION, "not a description that PEFT writes"),
    "broken pattern": (described(alpha_pattern={"(": 2}), DESCRIPTION, "not a description that PEFT writes"),
    "another kind": (described(peft_type="LOHA"), DESCRIPTION, "peft_type 'LOHA' is not supported, only 'LORA' is"),
    "DoRA": (described(use_dora=True), DESCRIPTION, "use_dora True is not supported, only False is"),
    "biases": (described(bias="lora_only"), DESCRIPTION, "bias 'lora_only' is not supported, only 'none' is"),
    "PiSSA": (described(init_lora_weights="pissa"), DESCRIPTION, "init_lora_weights 'pissa' is not supported"),
    "trained tokens": (described(trainable_token_indices=[3]), DESCRIPTION, "trainable_token_indices [3] is not"),
    "no tensors": (lambda folder: (folder / TENSORS).unlink(), TENSORS, "no such file"),
    "half a file": (truncated, TENSORS, "truncated"),
    "one factor": (removed("layers.1.self_attn.q_proj.lora_B"), TENSORS, f"missing {Q_PROJ.format(1, 'B')}"),
    "one layer": (removed("layers.1.self_attn.q_proj"), TENSORS, f"missing {Q_PROJ.format(1, 'A')}"),
    "no adapter": (removed("lora"), TENSORS, "there is no adapter in the file"),
    "unknown module": (added("model.visual.patch_embed.proj.lora_A.weight", 2, 12), TENSORS,
                       "unexpected base_model.model.model.visual.patch_embed.proj.lora_A.weight"),
    "unknown layer": (added("model.language_model.layers.9.self_attn.q_proj.lora_A.weight", 3, 16), TENSORS,
                      "unexpected base_model.model.model.language_model.layers.9"),
    "embedding adapter": (added("model.language_model.embed_tokens.lora_embedding_A", 3, 23), TENSORS,
                          "unexpected base_model.model.model.language_model.embed_tokens.lora_embedding_A"),
    "wrong width": (added("model.language_model.layers.0.self_attn.q_proj.lora_A.weight", 3, 8), TENSORS,
                    f"{Q_PROJ.format(0, 'A')} has shape (3, 8), expected (3, 16)"),
    "wrong rank": (described(r=4), TENSORS, f"{Q_PROJ.format(0, 'A')} has shape (3, 16), expected (4, 16)"),
    "wrong norm": (added("model.language_model.norm.weight", 8), TENSORS, "norm.weight has shape (8,), expected (16,)"),
    "tied embedding": (promised("embed_tokens", "model.language_model.embed_tokens.weight"), TENSORS,
                       "embed_tokens.weight replaces only one of the two embeddings that this model ties"),
    "tied head": (promised("lm_head", "lm_head.weight"), TENSORS,
                  "lm_head.weight replaces only one of the two embeddings that this model ties"),
    "absent head": (described(modules_to_save=["norm", "lm_head"]), TENSORS, "missing base_model.model.lm_head.weight"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_be_used_is_told_in_one_sentence_with_the_file(
    small_config: PolicyConfig, params: Tree, folder: Path, case: str
) -> None:
    spoil, file, words = BAD[case]
    spoil(folder)
    with pytest.raises(UserError) as error:
        load_adapter(folder, params, small_config)
    message = str(error.value)
    assert message.startswith(f"{folder / file}: ") and words in message and "\n" not in message, message


def test_a_quantised_kernel_cannot_be_replaced(small_config: PolicyConfig, params: Tree, folder: Path) -> None:
    added(KERNEL, 24, 16)(folder)
    load_adapter(folder, params, small_config)
    with pytest.raises(UserError, match="k_proj.weight replaces a quantised kernel"):
        load_adapter(folder, quantize_params(params, "int8"), small_config)
