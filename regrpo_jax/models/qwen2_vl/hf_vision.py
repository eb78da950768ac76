"""`vision_config` of a `config.json` to a `VisionConfig` and back, for each kind of tower."""

import math
from typing import Any

from regrpo_jax.models.config import PolicyConfig, VisionConfig
from regrpo_jax.models.qwen2_vl.families import Tower
from regrpo_jax.models.qwen2_vl.hf_refusals import Theirs, require

ROPE_THETA = 10_000.0
# Sizes that a model of its own has: a default of transformers would be those of some published one.
STATED: dict[Tower, tuple[str, ...]] = {
    "qwen2": ("hidden_size", "embed_dim", "depth"),
    "qwen2_5": ("hidden_size", "depth"),
    "qwen3": ("hidden_size", "out_hidden_size", "intermediate_size", "num_heads", "depth", "deepstack_visual_indexes"),
}
ACTIVATIONS: dict[Tower, str] = {"qwen2": "quick_gelu", "qwen2_5": "silu", "qwen3": "gelu_pytorch_tanh"}


def parse_vision(theirs: Theirs, text: PolicyConfig, tower: Tower) -> VisionConfig:
    """A tower as transformers has read it; Qwen2-VL calls its width `embed_dim`, the others call it `hidden_size`.

    Args:
      text: the decoder that it sees for.
    Raises:
      ValueError: it does not fit the decoder or itself, or would compute something else.
    """
    merged = "hidden_size" if tower == "qwen2" else "out_hidden_size"
    embed_dim = theirs.embed_dim if tower == "qwen2" else theirs.hidden_size
    if getattr(theirs, merged) != text.hidden_size:
        raise ValueError(f"vision_config.{merged} is {getattr(theirs, merged)}, hidden_size is {text.hidden_size}")
    for name, value, supported in (
        ("hidden_act", theirs.hidden_act, (ACTIVATIONS[tower],)),
        ("spatial_merge_size", theirs.spatial_merge_size, (1, 2, 4)),  # padding is in 16ths
        ("rope_theta", theirs.rope_parameters["rope_theta"], (ROPE_THETA,)),
        ("rope_type", theirs.rope_parameters["rope_type"], ("axial",)),
        ("head_dim", getattr(theirs, "head_dim", None), (None, embed_dim // theirs.num_heads)),
        ("in_chans", getattr(theirs, "in_chans", theirs.in_channels), (theirs.in_channels,)),
        *(((key, type(getattr(theirs, key)).__name__, ("int",))) for key in ("patch_size", "temporal_patch_size")),
    ):
        require(f"vision_config.{name}", value, supported)
    return VisionConfig(
        depth=theirs.depth,
        embed_dim=embed_dim,
        num_heads=theirs.num_heads,
        intermediate_size=embed_dim * theirs.mlp_ratio if tower == "qwen2" else theirs.intermediate_size,
        patch_size=theirs.patch_size,
        temporal_patch_size=theirs.temporal_patch_size,
        spatial_merge_size=theirs.spatial_merge_size,
        in_channels=theirs.in_channels,
        **_of_tower(theirs, tower),
    )


def _of_tower(theirs: Theirs, tower: Tower) -> dict[str, Any]:
    """The fields that one kind of tower sets and the others leave."""
    if tower == "qwen2_5":
        blocks = tuple(theirs.fullatt_block_indexes)
        return {"gated": True, "window_size": theirs.window_size, "full_attention_blocks": blocks}
    if tower == "qwen2":
        return {}
    points, blocks = theirs.num_position_embeddings, tuple(theirs.deepstack_visual_indexes)
    if points < 1 or math.isqrt(points) ** 2 != points:
        raise ValueError(f"vision_config.num_position_embeddings is {points}, which is no square grid of points")
    if list(blocks) != sorted(set(blocks)) or any(not 0 <= block < theirs.depth for block in blocks):
        # transformers lists features by block and mergers by their place in the file: in rising order both agree.
        raise ValueError(
            f"vision_config.deepstack_visual_indexes is {list(blocks)}, expected rising numbers of its {theirs.depth} "
            "blocks from 0"
        )
    return {
        "activation": "gelu_tanh",
        "patch_bias": True,
        "interpolated_grid": math.isqrt(points),
        "deepstack_blocks": blocks,
    }


def tower_of(vision: VisionConfig) -> Tower:
    """Whose tower it is, if it is anyone's (`foreign_parts`)."""
    if vision.gated:
        return "qwen2_5"
    return "qwen3" if vision.interpolated_grid else "qwen2"


def foreign_parts(vision: VisionConfig) -> list[str]:
    """Fields whose values no tower of Hugging Face has, or not together with the others."""
    tower = tower_of(vision)
    is_third = tower == "qwen3"
    foreign = {
        "learned_grid": vision.learned_grid != 0,
        "intermediate_size": tower == "qwen2" and vision.intermediate_size % vision.embed_dim != 0,  # no fraction
        "window_size": not vision.gated and bool(vision.window_size or vision.full_attention_blocks),
        "activation": vision.activation != ("gelu_tanh" if is_third else "quick_gelu"),
        "patch_bias": vision.patch_bias != is_third,
        "interpolated_grid": vision.gated and vision.interpolated_grid != 0,
        "deepstack_blocks": not is_third and vision.deepstack_blocks != (),
    }
    return [f"vision.{name}" for name, differs in foreign.items() if differs]


def describe_vision(vision: VisionConfig, hidden_size: int) -> dict[str, Any]:
    """`vision_config` of a tower for a decoder of this width."""
    tower = tower_of(vision)
    shared: dict[str, Any] = {
        "depth": vision.depth,
        "num_heads": vision.num_heads,
        "in_channels": vision.in_channels,
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "spatial_merge_size": vision.spatial_merge_size,
    }
    if tower == "qwen2":
        ratio = vision.intermediate_size // vision.embed_dim
        return shared | {"embed_dim": vision.embed_dim, "hidden_size": hidden_size, "mlp_ratio": ratio}
    shared |= {
        "hidden_size": vision.embed_dim,
        "out_hidden_size": hidden_size,
        "intermediate_size": vision.intermediate_size,
        "hidden_act": ACTIVATIONS[tower],
    }
    if tower == "qwen2_5":
        return shared | {
            "window_size": vision.window_size,
            "fullatt_block_indexes": list(vision.full_attention_blocks),
        }
    return shared | {
        "num_position_embeddings": vision.interpolated_grid**2,
        "deepstack_visual_indexes": list(vision.deepstack_blocks),
    }
