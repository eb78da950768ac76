"""Odd directories and adapters against transformers and peft: each gives their logits, or is refused by name."""

import functools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from regrpo_jax.errors import UserError
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.huggingface import load_policy, save_policy
from regrpo_jax.models.lora import merge_adapter
from regrpo_jax.models.peft import DESCRIPTION, OLD_TENSORS, PREFIX, TENSORS, export_adapter
from regrpo_jax.models.peft_import import full_weights, load_adapter
from regrpo_jax.models.policy import policy_functions
from regrpo_jax.models.safetensors_files import INDEX, SINGLE_FILE
from tests.parity.conftest import LLAMA3_ROPE, SECTIONS, Batch, Twins, Variables, make_batch

TOLERANCE = 1e-4
EMBEDDING, HEAD, NORM = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
Q_PROJ, K_PROJ = "model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.k_proj"
MROPE = {"type": "mrope", "mrope_section": SECTIONS}
Tensors = dict[str, torch.Tensor]
Edit = Callable[[dict[str, Any], Tensors], None]


class Odd(NamedTuple):
    """What is odd about a directory.

    Attributes:
      base: family of the model that it is made from, and whether that ties its head.
      edit: of its `config.json` and its tensors; for adapters of `adapter_config.json` and the tensors.
      refused: words of the refusal, None where it loads.
      after: of the folder, when it is written.
    """

    base: str
    edit: Edit
    refused: str | None = None
    after: Callable[[Path], None] | None = None


def keys(**values: Any) -> Edit:
    """Top-level keys of the JSON; None takes one away."""

    def edit(described: dict[str, Any], tensors: Tensors) -> None:
        described |= values
        for key in [key for key, value in values.items() if value is None]:
            del described[key]

    return edit


def inside(part: str, **values: Any) -> Edit:
    return lambda described, tensors: keys(**values)(described[part], tensors)


def stored(name: str, make: Callable[[Tensors], torch.Tensor] | None) -> Edit:
    """A tensor that is made from the others; None takes it away."""

    def edit(described: dict[str, Any], tensors: Tensors) -> None:
        value = make(tensors).clone() if make else None
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value

    return edit


def both(*edits: Edit) -> Edit:
    def edit(described: dict[str, Any], tensors: Tensors) -> None:
        for one in edits:
            one(described, tensors)

    return edit


def flat(described: dict[str, Any], tensors: Tensors) -> None:
    """As transformers 4 wrote it, without what the family's defaults say."""
    text = described.pop("text_config")
    described |= {key: text[key] for key in text if key not in ("model_type", "rope_parameters", "rms_norm_eps")}
    described["rope_scaling"] = MROPE


def no_deepstack(described: dict[str, Any], tensors: Tensors) -> None:
    described["vision_config"]["deepstack_visual_indexes"] = []
    for name in [name for name in tensors if "deepstack" in name]:
        del tensors[name]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(9))


def old_shards(folder: Path) -> None:
    """Beside the single file, an index of older weights."""
    old = {name: tensor + 1 for name, tensor in load_file(folder / SINGLE_FILE).items()}
    save_file(old, folder / "model-00001-of-00001.safetensors", metadata={"format": "pt"})
    written = dict.fromkeys(old, "model-00001-of-00001.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": written}))


def shards(*, twice: bool = False, lost: bool = False) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tensors = load_file(folder / SINGLE_FILE)
        (folder / SINGLE_FILE).unlink()
        halves = [dict(list(tensors.items())[start::2]) for start in (0, 1)]
        if twice:
            halves[1] |= {name: tensors[name] + 1 for name in list(halves[0])[:1]}
        for number, half in enumerate(halves):
            save_file(half, folder / f"part-{number}.safetensors", metadata={"format": "pt"})
        written = {name: f"part-{number}.safetensors" for number, half in enumerate(halves) for name in half}
        (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": written}))
        if lost:
            (folder / "part-1.safetensors").unlink()

    return write


COPY = stored(HEAD, lambda held: held[EMBEDDING])
OTHER = stored(HEAD, lambda held: noise(40, 32))
ROPE = {"rope_type": "default", "rope_theta": 5e3}

CHECKPOINTS: dict[str, Odd] = {
    "tied, an equal head": Odd("qwen2 tied", COPY),
    "tied, another head": Odd("qwen2 tied", OTHER),
    "tied, the head is the embedding rounded": Odd("qwen2 tied", stored(HEAD, lambda held: held[EMBEDDING].bfloat16())),
    "tied, only the head": Odd("qwen2 tied", both(COPY, stored(EMBEDDING, None))),
    "untied, an equal head": Odd("qwen2", COPY),
    "untied, no head": Odd("qwen2", stored(HEAD, None), "missing lm_head.weight"),
    "tied inside, an equal head": Odd(
        "qwen2_vl", both(inside("text_config", tie_word_embeddings=True), keys(tie_word_embeddings=None), COPY)
    ),
    "tied inside and not at the top, another head": Odd("qwen2_vl", inside("text_config", tie_word_embeddings=True)),
    "tied at the top and not inside, another head": Odd(
        "qwen2_5_vl", both(keys(tie_word_embeddings=True), inside("text_config", tie_word_embeddings=False))
    ),
    "a single file beside old shards": Odd("qwen2", keys(), after=old_shards),
    "shards": Odd("qwen2", keys(), after=shards()),
    "a tensor in two shards": Odd("qwen2", keys(), "is there already, as", after=shards(twice=True)),
    "a lost shard": Odd("qwen2", keys(), "part-1.safetensors: no such file", after=shards(lost=True)),
    "one tensor under two names": Odd(
        "qwen2", stored("language_model.model.norm.weight", lambda held: noise(32)), "is there already, as"
    ),
    "three dtypes": Odd(
        "qwen2", both(stored(HEAD, lambda held: held[HEAD].half()), stored(NORM, lambda held: held[NORM].bfloat16()))
    ),
    "fp8": Odd("qwen2", stored(HEAD, lambda held: held[HEAD].to(torch.float8_e4m3fn)), "stored as F8_E4M3"),
    "int8": Odd("qwen2", stored(HEAD, lambda held: held[HEAD].to(torch.int8)), "stored as I8"),
    "rotary base twice, rope_parameters": Odd("qwen2", keys(rope_theta=1e6, rope_parameters=ROPE)),
    "rotary base twice, rope_scaling": Odd("qwen2", keys(rope_theta=1e6, rope_parameters=None, rope_scaling=ROPE)),
    "rotary base twice, equal": Odd("qwen2", keys(rope_parameters=ROPE, rope_scaling=ROPE)),
    "two scalings that differ": Odd(
        "qwen2", keys(rope_parameters=ROPE, rope_scaling=ROPE | {"rope_theta": 1e4}), "rope_theta is 10000.0 and 5000.0"
    ),
    "no rotary base, old": Odd("qwen2", keys(rope_parameters=None)),
    "a part of the head turns": Odd("qwen2", keys(partial_rotary_factor=0.5), "partial_rotary_factor 0.5"),
    "another rotary embedding": Odd(
        "qwen2", keys(rope_scaling={"rope_type": "linear", "factor": 2.0}), "rope_type 'linear' is not supported"
    ),
    "a window": Odd(
        "qwen2", keys(layer_types=["full_attention", "sliding_attention"]), "layer_types 'sliding_attention'"
    ),
    "no key heads": Odd("qwen2", keys(num_key_value_heads=None), r"multiple of num_key_value_heads \(32\)"),
    "no epsilon": Odd("qwen2", keys(rms_norm_eps=None)),
    "no epsilon inside": Odd("qwen2_vl", inside("text_config", rms_norm_eps=None)),
    "no rotary base inside": Odd("qwen2_5_vl", inside("text_config", rope_parameters=MROPE)),
    "a leftover beside text_config": Odd("qwen2_vl", keys(rope_theta=10.0, rms_norm_eps=0.5, hidden_size=8)),
    "a rotary base beside text_config alone": Odd(
        "qwen2_vl", both(inside("text_config", rope_parameters=MROPE), keys(rope_theta=10.0)), "move it inside"
    ),
    "a scaling beside text_config alone": Odd(
        "qwen2_vl", both(inside("text_config", rope_parameters=None), keys(rope_scaling=MROPE)), "move it inside"
    ),
    "sections twice": Odd(
        "qwen2_vl", inside("text_config", rope_scaling=MROPE | {"mrope_section": [2, 1, 1]}), "mrope_section is"
    ),
    "flat": Odd("qwen2_vl", flat),
    "flat, gated, with a rotary base": Odd("qwen2_5_vl", both(flat, keys(rope_theta=5e3))),
    "the gated tower's activation": Odd("qwen2_vl", inside("vision_config", hidden_act="silu"), "hidden_act 'silu'"),
    "the other tower's activation": Odd(
        "qwen2_5_vl", inside("vision_config", hidden_act="quick_gelu"), "hidden_act 'quick_gelu'"
    ),
    "no activation": Odd("qwen2_vl", inside("vision_config", hidden_act=None)),
    "no windows": Odd("qwen2_5_vl", inside("vision_config", window_size=None, fullatt_block_indexes=None)),
    "no ratio": Odd("qwen2_vl", inside("vision_config", mlp_ratio=None), "has shape"),
    "heads of the tower by their long name": Odd(
        "qwen2_vl", inside("vision_config", num_heads=None, num_attention_heads=2)
    ),
    "a patch of two sides": Odd("qwen2_vl", inside("vision_config", patch_size=[4, 4]), "patch_size 'list'"),
    "heads of another width": Odd("qwen2_vl", inside("text_config", head_dim=4), "head_dim is 4"),
    "llama with biases": Odd("llama", stored(f"{Q_PROJ}.bias", lambda held: noise(32)), "unexpected .*q_proj.bias"),
    "llama with another width of heads": Odd("llama tied", keys(head_dim=4), "q_proj.weight has shape"),
    "llama with old rotary tables": Odd(
        "llama", stored("model.layers.0.self_attn.rotary_emb.inv_freq", lambda held: noise(4))
    ),
    "qwen3 without norms": Odd(
        "qwen3", stored(f"{Q_PROJ.replace('q_proj', 'q_norm')}.weight", None), "missing .*q_norm.weight"
    ),
    "qwen3 that states no width of heads": Odd("qwen3", keys(head_dim=None), "q_proj.weight has shape"),
    "a scaling of Llama 3.1, in the older place": Odd(
        "llama", keys(rope_parameters=None, rope_theta=5e3, rope_scaling=LLAMA3_ROPE)
    ),
    "a scaling of Llama 3.1 without its length": Odd(
        "llama3", inside("rope_parameters", original_max_position_embeddings=None), "original_max_position_embeddings"
    ),
    "qwen3_vl without DeepStack": Odd("qwen3_vl", no_deepstack),
    "qwen3_vl that says nothing of turns": Odd(
        "qwen3_vl", inside("text_config", rope_parameters=ROPE | {"mrope_section": [3, 2, 1]})
    ),
    "qwen3_vl, no square of points": Odd(
        "qwen3_vl", inside("vision_config", num_position_embeddings=24), "which is no square grid"
    ),
    "qwen3_vl, another grid": Odd(
        "qwen3_vl", inside("vision_config", num_position_embeddings=36), "pos_embed.weight has shape"
    ),
    "qwen3_vl, a lost merger": Odd(
        "qwen3_vl", stored("model.visual.deepstack_merger_list.1.norm.bias", None), "missing model.visual.deepstack"
    ),
    "quantised": Odd("qwen2", keys(quantization_config={"quant_method": "fp8"}), "quantization_config"),
}

SEEING = (
    "qwen3_vl without DeepStack",
    "qwen3_vl that says nothing of turns",
    "flat",
    "no activation",
    "no windows",
    "heads of the tower by their long name",
)


def lora(name: str, *, rank: int = 2, outputs: int = 32) -> Tensors:
    """Both factors of one module, named as in the model."""
    random = torch.Generator().manual_seed(len(name))
    shapes = {"A": (rank, 32), "B": (outputs, rank)}
    return {f"{PREFIX}{name}.lora_{x}.weight": torch.randn(*shapes[x], generator=random) / 4 for x in "AB"}


def beside(name: str, make: Callable[[], torch.Tensor]) -> Edit:
    return stored(PREFIX + name, lambda held: make())


def also(tensors: Tensors) -> Edit:
    return lambda described, held: held.update(tensors)


def retyped(dtype: torch.dtype) -> Edit:
    return lambda described, held: held.update({name: tensor.to(dtype) for name, tensor in held.items()})


def prefixless(described: dict[str, Any], held: Tensors) -> None:
    for name in list(held):
        held[name.removeprefix(PREFIX)] = held.pop(name)


def old_format(folder: Path) -> None:
    torch.save({name: tensor + 1 for name, tensor in load_file(folder / TENSORS).items()}, folder / OLD_TENSORS)


TABLE = functools.partial(noise, 40, 32)
ENDS = both(beside(EMBEDDING, TABLE), beside(HEAD, TABLE))
LARGE = lora(K_PROJ, rank=5, outputs=16)
# Of an adapter of rank 2 on the query of layer 0.
ADAPTERS: dict[str, Odd] = {
    "plain": Odd("qwen2", keys()),
    "half precision": Odd("qwen2", retyped(torch.float16)),
    "rank-stabilised": Odd("qwen2", keys(use_rslora=True)),
    "patterns of full names": Odd(
        "qwen2",
        both(also(LARGE), keys(target_modules=[Q_PROJ, K_PROJ], rank_pattern={K_PROJ: 5}, alpha_pattern={Q_PROJ: 7})),
    ),
    "patterns of ends": Odd(
        "qwen2",
        both(
            also(LARGE),
            keys(
                target_modules=["q_proj", "k_proj"],
                rank_pattern={"1.self_attn.k_proj": 5},
                alpha_pattern={r".*\.k_proj": 3},
                layers_pattern="layers",
            ),
        ),
        "missing base_model.model.model.layers.0.self_attn.k_proj.lora_A.weight",
    ),
    "a regular expression": Odd("qwen2", keys(target_modules=r".*\.0\..*q_proj")),
    "another module's names": Odd("qwen2", keys(target_modules=["v_proj"]), "which target_modules leaves out"),
    "excluded": Odd("qwen2", keys(target_modules=["q_proj"], exclude_modules=["0.self_attn.q_proj"]), "leaves out"),
    "one layer": Odd("qwen2", keys(target_modules=["q_proj"], layers_to_transform=0)),
    "another layer": Odd("qwen2", keys(target_modules=["q_proj"], layers_to_transform=[1]), "leaves out"),
    "one layer promised, another adapted": Odd(
        "qwen2",
        both(
            also(lora(K_PROJ.replace("1", "0"), outputs=16)),
            keys(target_modules=["layers.0.self_attn.k_proj", "q_proj"], layers_to_transform=[0]),
            keys(modules_to_save=[K_PROJ]),
            beside(f"{K_PROJ}.weight", lambda: noise(16, 32)),
            beside(f"{K_PROJ}.bias", lambda: noise(16)),
        ),
    ),
    "all linear": Odd("qwen2", keys(target_modules="all-linear"), "missing base_model.model.model.layers.0.mlp"),
    "promised head": Odd("qwen2", keys(modules_to_save=["lm_head"]), r"missing base_model.model.lm_head.weight \(mod"),
    "promised head, tied": Odd("qwen2 tied", keys(modules_to_save=["lm_head"]), "missing base_model.model.lm_head"),
    "promised head, there": Odd("qwen2", both(keys(modules_to_save=["lm_head"]), beside(HEAD, TABLE))),
    "part of a promised module": Odd(
        "qwen2",
        both(keys(modules_to_save=[K_PROJ]), beside(f"{K_PROJ}.weight", lambda: noise(16, 32))),
        "missing base_model.model.model.layers.1.self_attn.k_proj.bias",
    ),
    "promised norms of every layer": Odd(
        "qwen2", both(keys(modules_to_save=["norm"]), beside(NORM, lambda: noise(32))), "missing .*input_layernorm"
    ),
    "promised module of another model": Odd("qwen2", keys(modules_to_save=["classifier"]), "missing classifier"),
    "tied copies": Odd("qwen2 tied", both(keys(modules_to_save=["embed_tokens", "lm_head"]), ENDS)),
    "tied copies, one promised": Odd(
        "qwen2 tied", both(keys(modules_to_save=["embed_tokens"], ensure_weight_tying=True), ENDS)
    ),
    "tied copies, none promised": Odd("qwen2 tied", ENDS),
    "tied copies that differ": Odd(
        "qwen2 tied",
        both(keys(modules_to_save=["embed_tokens", "lm_head"]), ENDS, beside(HEAD, lambda: TABLE() + 1e-3)),
        "differ, but this model ties them",
    ),
    "one end of two": Odd(
        "qwen2 tied", both(keys(modules_to_save=["lm_head"]), beside(HEAD, TABLE)), "only one of the two embeddings"
    ),
    "the tied tensor itself": Odd("qwen2 tied", beside(EMBEDDING, TABLE)),
    "the tied tensor by its other name": Odd("qwen2 tied", beside(HEAD, TABLE)),
    "a bias that comes along": Odd("qwen2", beside(f"{K_PROJ}.bias", lambda: noise(16))),
    "a bias of an adapted module": Odd("qwen2", beside(f"{Q_PROJ}.bias", lambda: noise(32)), "whose module has an"),
    "without the prefix": Odd("qwen2", prefixless, "unexpected model.layers.0.self_attn.q_proj.lora_A.weight"),
    "a factor twice": Odd(
        "qwen2", beside(f"{Q_PROJ}.lora_A.default.weight", lambda: noise(2, 32)), "is there already, as"
    ),
    "int8": Odd("qwen2", retyped(torch.int8), "stored as I8"),
    "beside the old format": Odd("qwen2", keys(), after=old_format),
    "DoRA": Odd("qwen2", keys(use_dora=True), "use_dora True"),
    "all biases": Odd("qwen2", keys(bias="all"), "bias 'all'"),
    "PiSSA": Odd("qwen2", keys(init_lora_weights="pissa_niter_4"), "init_lora_weights 'pissa_niter_4'"),
    "layers twice": Odd("qwen2", keys(layer_replication=[[0, 2], [0, 2]]), "layer_replication"),
    "a field of tomorrow": Odd("qwen2", keys(use_magic=True), "use_magic True is not known here"),
}


def edited(odd: Odd, folder: Path, description: str, tensors: str) -> None:
    described, held = json.loads((folder / description).read_text()), load_file(folder / tensors)
    odd.edit(described, held)
    (folder / description).write_text(json.dumps(described))
    save_file(held, folder / tensors, metadata={"format": "pt"})
    if odd.after:
        odd.after(folder)


@functools.cache
def program(config: PolicyConfig) -> Callable[..., jax.Array]:
    """Compiled once for all that is computed alike."""
    functions = policy_functions(config)
    return jax.jit(lambda v, block, images: functions.run_prefix(v, block, images)[0] @ functions.head(v).T)


def ours(config: PolicyConfig, params: Variables, batch: Batch) -> np.ndarray:
    return np.asarray(program(config)({"params": params}, batch.block, batch.images))


def theirs(model: Any, batch: Batch) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(**batch.theirs()).logits.numpy()


def made_from(twins: Callable[..., Twins], odd: Odd) -> Twins:
    family, _, tied = odd.base.partition(" ")
    return twins(family, tied=bool(tied))


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_an_odd_directory(twins: Callable[..., Twins], tmp_path: Path, case: str) -> None:
    odd, folder = CHECKPOINTS[case], tmp_path / "odd"
    pair = made_from(twins, odd)
    shutil.copytree(pair.folder, folder)
    edited(odd, folder, "config.json", SINGLE_FILE)
    if odd.refused:
        with pytest.raises(UserError, match=odd.refused) as error:
            load_policy(folder, remat="none")
        assert str(folder) in str(error.value) and "\n" not in str(error.value)
        return
    config, params = load_policy(folder, remat="none")
    batch = make_batch(policy_functions(config), [(3, (2, 3), 4) if case in SEEING else (9,)])
    expected = theirs(type(pair.theirs).from_pretrained(folder, dtype=torch.float32), batch)
    np.testing.assert_allclose(ours(config, params, batch), expected, atol=TOLERANCE)
    save_policy(tmp_path / "again", config, params, source=folder)
    exported = type(pair.theirs).from_pretrained(tmp_path / "again")
    np.testing.assert_allclose(theirs(exported, batch), expected, atol=TOLERANCE)
    assert exported.config.tie_word_embeddings == config.tie_word_embeddings


@pytest.mark.parametrize("case", ADAPTERS)
def test_an_odd_adapter(twins: Callable[..., Twins], tmp_path: Path, case: str) -> None:
    odd, folder = ADAPTERS[case], tmp_path / "odd"
    pair = made_from(twins, odd)
    batch = pair.batch((9,))
    folder.mkdir()
    described = {
        "peft_type": "LORA",
        "r": 2,
        "lora_alpha": 5,
        "target_modules": [Q_PROJ],
        "base_model_name_or_path": "",
    }
    (folder / DESCRIPTION).write_text(json.dumps(described))
    save_file(lora(Q_PROJ), folder / TENSORS, metadata={"format": "pt"})
    edited(odd, folder, DESCRIPTION, TENSORS)
    base = pair.variables["params"]
    if odd.refused:
        with pytest.raises(UserError, match=odd.refused) as error:
            load_adapter(folder, base, pair.config)
        assert str(folder) in str(error.value) and "\n" not in str(error.value)
        return

    def peft(adapter: Path) -> np.ndarray:
        return theirs(PeftModel.from_pretrained(type(pair.theirs).from_pretrained(pair.folder), str(adapter)), batch)

    expected = peft(folder)
    loaded = load_adapter(folder, base, pair.config)
    merged = merge_adapter(loaded["params"], loaded["lora"], pair.config)
    np.testing.assert_allclose(ours(pair.config, merged, batch), expected, atol=TOLERANCE)
    assert np.max(np.abs(theirs(pair.theirs, batch) - expected)) > 0.01
    saved = full_weights(folder, base, pair.config)
    export_adapter(tmp_path / "again", loaded, pair.config, base_model="", full_weights=saved)
    np.testing.assert_allclose(peft(tmp_path / "again"), expected, atol=TOLERANCE)
