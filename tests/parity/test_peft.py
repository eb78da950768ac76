"""Adapters against peft: ours in its models, its in ours, on all families and back again."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from regrpo_jax.models.inputs import ImagePatches, TokenBlock
from regrpo_jax.models.lora import ATTENTION_TARGETS, AdapterSettings, init_adapter
from regrpo_jax.models.peft import export_adapter
from regrpo_jax.models.peft_import import full_weights, load_adapter
from regrpo_jax.models.policy import policy_functions
from tests.parity.conftest import Batch, Twins, Variables

TOLERANCE = 2e-4
MLP = ("gate_proj", "up_proj", "down_proj")

# Family, settings of our adapter, and how many modules have one: of 2 layers and of 3 blocks.
EXPORTED: dict[str, tuple[str, AdapterSettings, int]] = {
    "text_attention": ("qwen2", AdapterSettings(3), 2 * 4),
    "text_all": ("qwen2", AdapterSettings(3, (*ATTENTION_TARGETS, *MLP)), 2 * 7),
    "text_last_layer": ("qwen2", AdapterSettings(3, ("q_proj", "down_proj"), last_layers=1), 1 * 2),
    "llama_all": ("llama", AdapterSettings(3, (*ATTENTION_TARGETS, *MLP)), 2 * 7),
    "qwen3_all": ("qwen3", AdapterSettings(3, (*ATTENTION_TARGETS, *MLP)), 2 * 7),
    "frozen_tower": ("qwen2_vl", AdapterSettings(3), 2 * 4),
    "qwen2_tower": (
        "qwen2_vl",
        AdapterSettings(3, last_layers=1, vision_rank=5, vision_targets=("qkv", "proj", "fc1", "fc2")),
        1 * 4 + 3 * 4,
    ),
    "gated_tower": (
        "qwen2_5_vl",
        AdapterSettings(3, ("v_proj", "up_proj"), vision_rank=5, vision_targets=("qkv", "proj", *MLP)),
        2 * 2 + 3 * 5,
    ),
    "third_tower": (
        "qwen3_vl",
        AdapterSettings(3, last_layers=2, vision_rank=5, vision_targets=("qkv", "proj", "fc1", "fc2")),
        2 * 4 + 3 * 4,
    ),
}

# Family, and what peft's adapter is.
TRAINED: dict[str, tuple[str, dict[str, Any]]] = {
    "mixed_ranks": (
        "qwen2",
        {
            "target_modules": ["q_proj", "v_proj", "down_proj"],
            "rank_pattern": {r"layers.1.self_attn.q_proj": 5, "down_proj": 2},
            "alpha_pattern": {"v_proj": 7, r".*\.0\.self_attn\.q_proj": 2},
            "use_rslora": True,
            "modules_to_save": ["lm_head"],
        },
    ),
    "llama": ("llama", {"target_modules": "all-linear"}),
    "head_norms": ("qwen3", {"target_modules": ["q_proj", "o_proj"], "modules_to_save": ["q_norm", "k_norm"]}),
    "regular_expression": (
        "qwen2_vl",
        {
            "target_modules": r".*language_model.*\.(q|o)_proj|.*visual\.blocks.*(qkv|fc2|attn\.proj)|.*merger\.mlp\.2",
            "rank_pattern": {r".*visual.*": 6},
            "modules_to_save": ["lm_head", "language_model.norm", "merger.ln_q", "patch_embed.proj", "embed_tokens"],
        },
    ),
    "every_linear_layer": ("qwen2_5_vl", {"target_modules": "all-linear", "exclude_modules": ["lm_head"]}),
    "mergers": (
        "qwen3_vl",
        {
            "target_modules": "all-linear",
            "exclude_modules": ["lm_head"],
            "modules_to_save": ["pos_embed", "patch_embed.proj", "deepstack_merger_list.1.norm", "q_norm"],
        },
    ),
    "one_layer": ("qwen2_5_vl", {"target_modules": ["q_proj", "gate_proj", "qkv"], "layers_to_transform": [1]}),
}


def batch_of(pair: Twins) -> Batch:
    return pair.batch((6, (2, 3), 5)) if pair.config.vision is not None else pair.batch((12,))


def theirs_again(pair: Twins) -> Any:
    """Their model as it was saved; peft changes the one that it is given."""
    return type(pair.theirs).from_pretrained(pair.folder).eval()


def their_logits(model: Any, batch: Batch) -> np.ndarray:
    with torch.no_grad():
        return model(**batch.theirs()).logits.numpy()


def our_logits(config: Any, variables: Variables, batch: Batch) -> np.ndarray:
    functions = policy_functions(config)

    def logits(variables: Variables, block: TokenBlock, images: ImagePatches | None) -> jax.Array:
        return functions.run_prefix(variables, block, images)[0] @ functions.head(variables).T

    return np.asarray(jax.jit(logits)(variables, batch.block, batch.images))


def with_alphas(pair: Twins, decoder: float, vision: float) -> Any:
    tower = pair.config.vision and dataclasses.replace(pair.config.vision, lora_alpha=vision)
    return dataclasses.replace(pair.config, lora_alpha=decoder, vision=tower)


def adapted_modules(model: PeftModel) -> int:
    return sum(".lora_A" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("case", EXPORTED)
def test_peft_loads_the_exported_adapter(twins: Callable[..., Twins], tmp_path: Path, case: str) -> None:
    family, settings, modules = EXPORTED[case]
    pair, random = twins(family), np.random.default_rng(3)
    config = with_alphas(pair, 6.0, 10.0)
    fresh = init_adapter(jax.random.key(0), pair.variables["params"], settings)

    def noise(path: Any, array: jax.Array) -> np.ndarray:
        changed = np.asarray(array) + random.normal(scale=0.1, size=array.shape).astype(np.float32)
        if settings.last_layers and path[0].key == "layers":
            changed[: -settings.last_layers] = 0
        return changed

    variables = {**pair.variables, "lora": jax.tree_util.tree_map_with_path(noise, fresh)}
    export_adapter(tmp_path, variables, config, base_model=str(pair.folder))
    adapted = PeftModel.from_pretrained(theirs_again(pair), str(tmp_path)).eval()
    assert adapted_modules(adapted) == modules
    batch = batch_of(pair)
    expected = their_logits(adapted, batch)
    np.testing.assert_allclose(our_logits(config, variables, batch), expected, atol=TOLERANCE)
    assert np.max(np.abs(their_logits(pair.theirs, batch) - expected)) > 0.05


@pytest.mark.parametrize("case", TRAINED)
def test_an_adapter_of_peft_loads_and_comes_back(twins: Callable[..., Twins], tmp_path: Path, case: str) -> None:
    family, options = TRAINED[case]
    pair, batch = twins(family), batch_of(twins(family))
    torch.manual_seed(5)
    adapted = get_peft_model(theirs_again(pair), LoraConfig(**{"r": 4, "lora_alpha": 6, "bias": "none"} | options))
    for name, parameter in adapted.named_parameters():
        if "lora_" in name or "modules_to_save" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    adapted.eval().save_pretrained(str(tmp_path / "theirs"))
    config = with_alphas(pair, 5.0, 9.0)
    variables = load_adapter(tmp_path / "theirs", pair.variables["params"], config)
    expected = their_logits(adapted, batch)
    np.testing.assert_allclose(our_logits(config, variables, batch), expected, atol=TOLERANCE)
    assert np.max(np.abs(their_logits(pair.theirs, batch) - expected)) > 0.05

    saved = full_weights(tmp_path / "theirs", pair.variables["params"], config)
    assert bool(saved) == ("modules_to_save" in options)
    export_adapter(tmp_path / "ours", variables, config, base_model=str(pair.folder), full_weights=saved)
    again = PeftModel.from_pretrained(theirs_again(pair), str(tmp_path / "ours")).eval()
    assert adapted_modules(again) == adapted_modules(adapted)
    np.testing.assert_allclose(their_logits(again, batch), expected, atol=TOLERANCE)
