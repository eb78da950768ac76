"""The vision tower over packed patches: rows, columns and windows come from the host, images never see each other."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from regrpo_jax.models.attention import self_attention
from regrpo_jax.models.config import PolicyConfig, VisionConfig
from regrpo_jax.models.inputs import ImagePatches
from regrpo_jax.models.layers import LayerNorm, Projection, RMSNorm, rematerialised, rotate

Array = jax.Array
EPSILON = 1e-6  # of every norm in the tower


def vision_angles(positions: Array, head_dim: int) -> Array:
    """Two-dimensional rotary angles: the first half of the pairs turns with the row, the second with the column.

    Args:
      positions: int32 row and column.  # [group, patch, 2]
    Returns:
      # [group, patch, head_dim / 2]
    """
    half = head_dim // 2
    frequencies = 10_000.0 ** (-jnp.arange(0, half, 2, dtype=jnp.float32) / half)  # [head_dim / 4]
    angles = positions.astype(jnp.float32)[..., None] * frequencies  # [group, patch, 2, head_dim / 4]
    return angles.reshape(*positions.shape[:-1], half)


class VisionBlock(nn.Module):
    """Pre-norm attention within one image, or one window of it, then an MLP."""

    policy: PolicyConfig

    @nn.compact
    def __call__(self, hidden: Array, sees_image: Array, context: dict[str, Array]) -> tuple[Array, None]:
        """hidden: [row, patch, embed]; sees_image: bool scalar, attend within the image and not only the window."""
        config = _vision(self.policy)
        heads = (config.num_heads, config.head_dim)
        segment_ids = context["segment_ids"]
        if config.window_size:
            segment_ids = jnp.where(sees_image, segment_ids, context["window_ids"])
        normed = _norm(self.policy, "norm1")(hidden)
        qkv = self._linear("qkv", 3 * config.embed_dim)(normed)
        queries, keys, values = jnp.split(qkv.reshape(*qkv.shape[:2], 3 * heads[0], heads[1]), 3, axis=2)
        queries, keys = rotate(queries, context["angles"]), rotate(keys, context["angles"])
        mixed = self_attention(queries, keys, values, segment_ids, causal=False, backend=self.policy.attention)
        hidden = hidden + self._linear("proj", config.embed_dim)(mixed)
        return hidden + self._mlp(config, _norm(self.policy, "norm2")(hidden)), None

    def _mlp(self, config: VisionConfig, normed: Array) -> Array:
        """SwiGLU in Qwen2.5-VL; in Qwen2-VL quick GELU, x sigmoid(1.702 x)."""
        if config.gated:
            gate = jax.nn.silu(self._linear("gate_proj", config.intermediate_size)(normed))
            inner = gate * self._linear("up_proj", config.intermediate_size)(normed)
            return self._linear("down_proj", config.embed_dim)(inner)
        inner = self._linear("fc1", config.intermediate_size)(normed)
        return self._linear("fc2", config.embed_dim)(inner * jax.nn.sigmoid(1.702 * inner))

    def _linear(self, name: str, features: int) -> Projection:
        return _linear(self.policy, name, features, use_bias=True)


class VisionTower(nn.Module):
    """Patches to features of the decoder's width, one per `spatial_merge_size`^2 patches."""

    policy: PolicyConfig

    @nn.compact
    def __call__(self, images: ImagePatches) -> Array:
        """Returns merged features.  # [row, patch / merge^2, hidden]"""
        policy, config = self.policy, _vision(self.policy)
        rows = images.patches.shape[0]
        images = _by_block(images)
        patches = images.patches.astype(policy.dtype)
        hidden = _linear(policy, "patch_embed", config.embed_dim, use_bias=False)(patches)
        if config.learned_grid:
            hidden = hidden + self._learned_positions(config, images.positions).astype(hidden.dtype)
        context: dict[str, Any] = {
            "angles": vision_angles(images.positions, config.head_dim),
            "segment_ids": images.segment_ids,
            "window_ids": images.window_ids,
        }
        blocks = nn.scan(
            rematerialised(VisionBlock, policy.remat),
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),
            length=config.depth,
        )
        sees_image = np.isin(np.arange(config.depth), config.full_attention_blocks)  # [block]
        hidden, _ = blocks(policy, name="blocks")(hidden, sees_image, context)
        merged_width = config.embed_dim * config.spatial_merge_size**2
        merged = _norm(policy, "merger_norm")(hidden).reshape(rows, -1, merged_width)
        inner = jax.nn.gelu(_linear(policy, "merger_fc1", merged_width, use_bias=True)(merged), approximate=False)
        return _linear(policy, "merger_fc2", policy.hidden_size, use_bias=True)(inner)

    def _learned_positions(self, config: VisionConfig, positions: Array) -> Array:
        table = self.param(
            "position_embedding",
            nn.initializers.normal(0.5),
            (config.learned_grid, config.learned_grid, config.embed_dim),
            self.policy.param_dtype,
        )
        row, column = jnp.moveaxis(jnp.minimum(positions, config.learned_grid - 1), -1, 0)
        return table[row, column]


def _by_block(images: ImagePatches) -> ImagePatches:
    """Each block of a row as a row of its own: what patches of other blocks would be asked, they never answer."""
    if not images.block:
        return images
    return jax.tree.map(lambda array: array.reshape(-1, images.block, *array.shape[2:]), images)


def _vision(policy: PolicyConfig) -> VisionConfig:
    assert policy.vision is not None
    return policy.vision


def _norm(policy: PolicyConfig, name: str) -> nn.Module:
    kind = RMSNorm if _vision(policy).gated else LayerNorm
    return kind(EPSILON, policy.param_dtype, name=name)


def _linear(policy: PolicyConfig, name: str, features: int, *, use_bias: bool) -> Projection:
    make = functools.partial(Projection, lora_alpha=_vision(policy).lora_alpha, lora_dropout=policy.lora_dropout)
    return make(features, use_bias, policy.param_dtype, name=name)
