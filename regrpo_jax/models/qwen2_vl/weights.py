"""Where each of our parameters stands in a Hugging Face checkpoint: one table per part, and the layouts it comes in.

Our arrays are stacked over layers; "{}" in a name stands for the layer. The names are those of the first published
checkpoints; `canonical_name` leads the other layouts back to them, `written_name` to what a family is written with.
"""

import re

from regrpo_jax.models.config import PolicyConfig, VisionConfig
from regrpo_jax.models.qwen2_vl.hf_vision import tower_of

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"  # one tensor where they are tied
_DECODER = {
    "embedding": EMBEDDING,
    "norm/scale": "model.norm.weight",
    "layers/input_norm/scale": "model.layers.{}.input_layernorm.weight",
    "layers/post_attention_norm/scale": "model.layers.{}.post_attention_layernorm.weight",
    "layers/q_proj/kernel": "model.layers.{}.self_attn.q_proj.weight",
    "layers/k_proj/kernel": "model.layers.{}.self_attn.k_proj.weight",
    "layers/v_proj/kernel": "model.layers.{}.self_attn.v_proj.weight",
    "layers/o_proj/kernel": "model.layers.{}.self_attn.o_proj.weight",
    "layers/gate_proj/kernel": "model.layers.{}.mlp.gate_proj.weight",
    "layers/up_proj/kernel": "model.layers.{}.mlp.up_proj.weight",
    "layers/down_proj/kernel": "model.layers.{}.mlp.down_proj.weight",
}

_ATTENTION_BIAS = {f"layers/{x}_proj/bias": f"model.layers.{{}}.self_attn.{x}_proj.bias" for x in "qkv"}
_QUERY_KEY_NORM = {f"layers/{x}_norm/scale": f"model.layers.{{}}.self_attn.{x}_norm.weight" for x in "qk"}


def _layers_of(ours: str, theirs: str, *, bias: bool = True) -> dict[str, str]:
    """A projection's two parameters."""
    kernel = {f"{ours}/kernel": f"{theirs}.weight"}
    return kernel | {f"{ours}/bias": f"{theirs}.bias"} if bias else kernel


def _norm(ours: str, theirs: str, *, bias: bool) -> dict[str, str]:
    scale = {f"{ours}/scale": f"{theirs}.weight"}
    return scale | {f"{ours}/bias": f"{theirs}.bias"} if bias else scale


# Names of the parts that each tower calls otherwise: the blocks' MLP, the last norm, the merger's two projections.
_MLP = {
    "qwen2": {"fc1": "fc1", "fc2": "fc2"},
    "qwen2_5": {"gate_proj": "gate_proj", "up_proj": "up_proj", "down_proj": "down_proj"},
    "qwen3": {"fc1": "linear_fc1", "fc2": "linear_fc2"},
}
_MERGER = {
    "qwen2": ("ln_q", "mlp.0", "mlp.2"),
    "qwen2_5": ("ln_q", "mlp.0", "mlp.2"),
    "qwen3": ("norm", "linear_fc1", "linear_fc2"),
}


def _tower_names(vision: VisionConfig) -> dict[str, str]:
    tower = tower_of(vision)
    norm_bias = not vision.gated
    names = _layers_of("vision/patch_embed", "visual.patch_embed.proj", bias=vision.patch_bias)
    for part in ("qkv", "proj"):
        names |= _layers_of(f"vision/blocks/{part}", f"visual.blocks.{{}}.attn.{part}")
    for ours, theirs in _MLP[tower].items():
        names |= _layers_of(f"vision/blocks/{ours}", f"visual.blocks.{{}}.mlp.{theirs}")
    for part in ("norm1", "norm2"):
        names |= _norm(f"vision/blocks/{part}", f"visual.blocks.{{}}.{part}", bias=norm_bias)
    norm, first, second = _MERGER[tower]
    mergers = {"merger_": "visual.merger"} | ({"deepstack/": _DEEPSTACK} if vision.deepstack_blocks else {})
    for ours, theirs in mergers.items():
        names |= _norm(f"vision/{ours}norm", f"{theirs}.{norm}", bias=norm_bias)
        names |= _layers_of(f"vision/{ours}fc1", f"{theirs}.{first}")
        names |= _layers_of(f"vision/{ours}fc2", f"{theirs}.{second}")
    if vision.interpolated_grid:
        names["vision/position_grid"] = "visual.pos_embed.weight"
    if vision.learned_grid:
        names["vision/position_embedding"] = "visual.position_embedding.weight"  # ours: no published tower has it
    return names


_DEEPSTACK = "visual.deepstack_merger_list.{}"

# Layouts of transformers 4.52 to 5, and of wrappers that put the decoder into a model of its own.
_LAYOUTS = (
    (re.compile(r"^(?:model\.)?language_model\.lm_head\."), "lm_head."),
    (re.compile(r"^(?:model\.)?language_model\.(?:model\.)?"), "model."),
    (re.compile(r"^model\.visual\."), "visual."),
)


def hugging_face_names(config: PolicyConfig) -> dict[str, str]:
    """Path of each parameter of `config`, joined with "/", to its published name."""
    names = dict(_DECODER)
    names |= _ATTENTION_BIAS if config.attention_bias else {}
    names |= _QUERY_KEY_NORM if config.query_key_norm else {}
    if not config.tie_word_embeddings:
        names["lm_head"] = HEAD
    if config.token_mixing_width:
        names["token_mixing"] = "model.token_mixing.weight"  # ours: no published architecture has it
    return names | (_tower_names(config.vision) if config.vision is not None else {})


def canonical_name(name: str) -> str:
    """The published name of a tensor, in whichever layout it was written."""
    for layout, published in _LAYOUTS:
        name = layout.sub(published, name)
    return name


def nested_name(name: str) -> str:
    """What is published as `name`, where the decoder is a part of the model as its tower is (transformers 5)."""
    if name == HEAD:
        return name
    return f"model.{name}" if name.startswith("visual.") else name.replace("model.", "model.language_model.", 1)


def written_name(name: str, config: PolicyConfig) -> str:
    """The name that the published checkpoints of the policy's family give to what is `name` in the table."""
    is_nested = config.vision is not None and tower_of(config.vision) == "qwen3"
    return nested_name(name) if is_nested else name


def layouts(name: str) -> tuple[str, ...]:
    """Names that versions of transformers have given to what is published as `name`, the published one first."""
    if name.startswith("visual."):
        return name, f"model.{name}"
    if name.startswith("model."):
        rest = name.removeprefix("model.")
        return name, f"model.language_model.{rest}", f"language_model.model.{rest}"
    return (name,)


def is_redundant(name: str, config: PolicyConfig) -> bool:
    """Whether a tensor says nothing new: the copy of a tied head, or rotary tables of old checkpoints."""
    return (name == HEAD and config.tie_word_embeddings) or name.endswith("rotary_emb.inv_freq")
