"""Where each of our parameters stands in a Hugging Face checkpoint: one table per part, and the layouts it comes in.

Our arrays are stacked over layers; "{}" in a name stands for the layer. The names are those of the published
checkpoints; `canonical_name` leads the other layouts of transformers back to them.
"""

import re

from regrpo_jax.models.config import PolicyConfig

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

_VISION = {
    "vision/patch_embed/kernel": "visual.patch_embed.proj.weight",
    "vision/blocks/norm1/scale": "visual.blocks.{}.norm1.weight",
    "vision/blocks/norm2/scale": "visual.blocks.{}.norm2.weight",
    "vision/blocks/qkv/kernel": "visual.blocks.{}.attn.qkv.weight",
    "vision/blocks/qkv/bias": "visual.blocks.{}.attn.qkv.bias",
    "vision/blocks/proj/kernel": "visual.blocks.{}.attn.proj.weight",
    "vision/blocks/proj/bias": "visual.blocks.{}.attn.proj.bias",
    "vision/merger_norm/scale": "visual.merger.ln_q.weight",
    "vision/merger_fc1/kernel": "visual.merger.mlp.0.weight",
    "vision/merger_fc1/bias": "visual.merger.mlp.0.bias",
    "vision/merger_fc2/kernel": "visual.merger.mlp.2.weight",
    "vision/merger_fc2/bias": "visual.merger.mlp.2.bias",
}


def _mlp(*projections: str) -> dict[str, str]:
    kinds = {"kernel": "weight", "bias": "bias"}
    return {
        f"vision/blocks/{name}/{ours}": f"visual.blocks.{{}}.mlp.{name}.{theirs}"
        for name in projections
        for ours, theirs in kinds.items()
    }


# What the blocks of Qwen2-VL and of Qwen2.5-VL have, each without the other.
_LAYER_NORM_BLOCKS = _mlp("fc1", "fc2") | {
    "vision/blocks/norm1/bias": "visual.blocks.{}.norm1.bias",
    "vision/blocks/norm2/bias": "visual.blocks.{}.norm2.bias",
    "vision/merger_norm/bias": "visual.merger.ln_q.bias",
}
_GATED_BLOCKS = _mlp("gate_proj", "up_proj", "down_proj")

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
    if config.vision is not None and config.vision.learned_grid:
        names["vision/position_embedding"] = "visual.position_embedding.weight"  # ours as well
    if config.vision is not None:
        names |= _VISION | (_GATED_BLOCKS if config.vision.gated else _LAYER_NORM_BLOCKS)
    return names


def canonical_name(name: str) -> str:
    """The published name of a tensor, in whichever layout it was written."""
    for layout, published in _LAYOUTS:
        name = layout.sub(published, name)
    return name


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
