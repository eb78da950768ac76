"""The policy that a run starts from: a Hugging Face directory, a GGUF file, or the tiny preset with fresh weights."""

import dataclasses
import functools
import shutil
from pathlib import Path
from typing import Any

import jax
import ml_collections
from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from regrpo_jax.config.base_config import TRAINING_STAGES, stage_section
from regrpo_jax.data.chat import ChatRenderer
from regrpo_jax.data.corpus import Corpus
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.image_settings import image_settings
from regrpo_jax.data.tokenizer import IMAGE_TOKEN, checkpoint_image_token, load_tokenizer, train_tokenizer
from regrpo_jax.errors import UserError
from regrpo_jax.hosts.agreement import meet, told_by_first
from regrpo_jax.hosts.role import role
from regrpo_jax.models.attention import best_backend
from regrpo_jax.models.config import AttentionBackend, PolicyConfig, VisionConfig, tiny
from regrpo_jax.models.huggingface import load_weights, with_stored_head
from regrpo_jax.models.lora import check_settings
from regrpo_jax.models.model_files import described_in
from regrpo_jax.models.peft_import import load_adapter
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.models.quantization import quantize_params
from regrpo_jax.models.qwen2_vl.hf_config import read_config
from regrpo_jax.models.sharding import param_shardings, place
from regrpo_jax.run.model_defaults import with_model_defaults
from regrpo_jax.training.state import adapter_settings

Variables = dict[str, Any]


def starting_policy(
    config: ml_collections.ConfigDict, corpus: Corpus, workdir: Path, mesh: Mesh, *, resuming: bool
) -> tuple[PolicyFunctions, Variables, ConversationReader]:
    """The policy, its variables on the devices of `mesh`, and what turns conversations into its tokens.

    Args:
      resuming: the tokenizer in `workdir` belongs to this run; without it a leftover one is written anew.
    Raises:
      UserError: the directory cannot be used; found before its weights are read, as far as it can be.
    """
    config = with_model_defaults(config)
    folder = Path(config.model.path) if config.model.path else None
    if folder is None:
        tokenizer = _own_tokenizer(config, corpus, workdir / "tokenizer", resuming=resuming)
        policy_config = _tiny_config(config, len(tokenizer))
    else:
        tokenizer = load_tokenizer(folder)
        policy_config = read_config(described_in(folder), **_settings(config))
        if len(tokenizer) > policy_config.vocab_size:
            raise UserError(
                f"{folder}: the tokenizer has {len(tokenizer)} tokens, but {described_in(folder).name} says that the "
                f"model knows {policy_config.vocab_size}; the two belong to different models"
            )
        policy_config = with_stored_head(policy_config, folder)
    policy_config = _with_choices(policy_config, config, jax.default_backend())
    vision = policy_config.vision
    if "sft" in config.stages:
        check_row_patches(config.sft.row_patches, vision)
    functions = policy_functions(policy_config)
    reader = _reader(config, folder, tokenizer, vision)
    adapted = [s for s in config.stages if s in TRAINING_STAGES and stage_section(config, s).trainable == "lora"]
    if adapted and not config.lora.path:
        shapes = jax.eval_shape(functions.init, jax.random.key(0))["params"]
        check_settings(shapes, adapter_settings(config.lora))
    if folder is None:
        params = _fresh_params(config, functions, mesh)
    else:
        shardings = functools.partial(param_shardings, mesh=mesh)
        params = load_weights(folder, policy_config, shardings=shardings, quantization=config.model.quantize)
    variables = load_adapter(Path(config.lora.path), params, policy_config) if config.lora.path else {"params": params}
    return functions, place(variables, mesh), reader


def planned_policy(config: ml_collections.ConfigDict, platform: str) -> PolicyConfig:
    """The policy of a config as far as its sizes go, for devices of a platform; no weights and no tokenizer are read.

    Raises:
      UserError: `config.json` cannot be used, or the policy cannot be computed on such devices.
    """
    config = with_model_defaults(config)
    if config.model.path:
        policy = read_config(described_in(Path(config.model.path)), **_settings(config))
    else:
        policy = _tiny_config(config, config.model.vocab_size)
    return _with_choices(policy, config, platform)


def _with_choices(policy: PolicyConfig, config: ml_collections.ConfigDict, platform: str) -> PolicyConfig:
    """With the tower's scale of an adapter, and the kernels that the devices run."""
    vision = policy.vision and dataclasses.replace(policy.vision, lora_alpha=config.lora.alpha)
    return dataclasses.replace(policy, vision=vision, attention=_attention(config, policy, platform))


def check_row_patches(row_patches: int, vision: VisionConfig | None) -> None:
    """Raises UserError where a packed row would hold a part of an image token's patches."""
    of_token = vision.spatial_merge_size**2 if vision is not None else 1
    if row_patches % of_token:
        raise UserError(
            f"config.sft.row_patches is {row_patches}; it must be a multiple of {of_token}, the patches of one image "
            f"token of this model, such as {row_patches - row_patches % of_token + of_token}"
        )


def _settings(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """What is ours to choose about any architecture."""
    model = config.model
    return {
        "dtype": model.dtype,
        "param_dtype": model.param_dtype,
        "remat": model.remat,
        "lora_alpha": config.lora.alpha,
        "lora_dropout": config.lora.dropout,
    }


def _attention(config: ml_collections.ConfigDict, policy: PolicyConfig, platform: str) -> AttentionBackend:
    """The kernel that is asked for, or the device's best; a fused one runs on whole heads.

    Raises:
      UserError: the kernel that is asked for does not run here; the compiler would say so in the middle of a trace.
    """
    asked, dtype = config.model.attention, config.model.dtype
    runs = {"cudnn": platform == "gpu" and dtype == "bfloat16", "splash": platform == "tpu"}
    if not runs.get(asked, True):
        needs = {"cudnn": "a GPU and config.model.dtype='bfloat16'", "splash": "a TPU"}[asked]
        raise UserError(
            f"config.model.attention is {asked!r}, which needs {needs}; choose 'auto', because this run computes on "
            f"{platform} in {dtype}"
        )
    heads = [policy.num_heads, policy.num_key_value_heads, *([policy.vision.num_heads] if policy.vision else [])]
    cut = [count for count in heads if count % config.mesh.model]
    if cut and asked not in ("auto", "xla"):
        raise UserError(
            f"config.model.attention is {asked!r}, which runs on whole heads; config.mesh.model={config.mesh.model} "
            f"cuts the {cut[0]} heads of this model: choose a divisor of them, or attention 'xla'"
        )
    best: AttentionBackend = "xla" if cut else best_backend(dtype, platform)
    return best if asked == "auto" else asked


def _tiny_config(config: ml_collections.ConfigDict, vocab_size: int) -> PolicyConfig:
    model = config.model
    preset = tiny(vocab_size, hidden_size=model.hidden_size, num_layers=model.num_layers, images=model.images)
    return dataclasses.replace(preset, **_settings(config))


def _own_tokenizer(
    config: ml_collections.ConfigDict, corpus: Corpus, folder: Path, *, resuming: bool
) -> PreTrainedTokenizerBase:
    # A run that begins with the data stage is resumed before it has one.
    if told_by_first("the tokenizer", "there" if resuming and folder.exists() else "new") == "there":
        return load_tokenizer(folder)
    if role().writes:
        tokenizer = _written_tokenizer(config, corpus, folder)
    meet("the tokenizer")
    return tokenizer if role().writes else load_tokenizer(folder)


def _written_tokenizer(config: ml_collections.ConfigDict, corpus: Corpus, folder: Path) -> PreTrainedTokenizerBase:
    tokenizer = train_tokenizer(corpus.texts(), vocab_size=config.model.vocab_size)
    partial = folder.with_name(f"{folder.name}.partial")
    tokenizer.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)
    return tokenizer


def _fresh_params(config: ml_collections.ConfigDict, functions: PolicyFunctions, mesh: Mesh) -> dict[str, Any]:
    def make(key: jax.Array) -> dict[str, Any]:
        return quantize_params(functions.init(key)["params"], config.model.quantize)

    key = jax.random.fold_in(jax.random.key(config.seed), 0)
    # Compiled as a whole: op by op it takes more than twice as long.
    return jax.jit(make, out_shardings=param_shardings(jax.eval_shape(make, key), mesh))(key)


def _reader(
    config: ml_collections.ConfigDict,
    folder: Path | None,
    tokenizer: PreTrainedTokenizerBase,
    vision: VisionConfig | None,
) -> ConversationReader:
    data = config.data
    if vision is None:
        return ConversationReader(ChatRenderer(tokenizer, data.train_end_of_turn), None, None)
    image_token = checkpoint_image_token(folder, tokenizer) if folder else IMAGE_TOKEN
    settings = image_settings(folder, vision).within(*data.pixels)
    return ConversationReader(ChatRenderer(tokenizer, data.train_end_of_turn, image_token), vision, settings)
