"""The Qwen2-VL vision tower over packed patches: rows and columns come from the host, images never see each other."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from regrpo_jax.models.config import PolicyConfig, VisionConfig
from regrpo_jax.models.inputs import ImagePatches
from regrpo_jax.models.layers import Projection, at_least_float32, grouped_query_attention, rotate

Array = jax.Array


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
    """Pre-norm attention within one image, then a quick-GELU MLP."""

    config: VisionConfig
    param_dtype: str
    lora_alpha: float

    @nn.compact
    def __call__(self, hidden: Array, context: tuple[Array, Array]) -> tuple[Array, None]:
        angles, mask = context
        config = self.config
        heads = (config.num_heads, config.head_dim)
        normed = LayerNorm(self.param_dtype, name="norm1")(hidden)
        qkv = self._linear("qkv", 3 * config.embed_dim)(normed)
        queries, keys, values = jnp.split(qkv.reshape(*qkv.shape[:2], 3 * heads[0], heads[1]), 3, axis=2)
        queries, keys = rotate(queries, angles), rotate(keys, angles)
        mixed = grouped_query_attention(queries[:, None], keys[:, None], values[:, None], mask[:, None], None)[:, 0]
        hidden = hidden + self._linear("proj", config.embed_dim)(mixed)
        normed = LayerNorm(self.param_dtype, name="norm2")(hidden)
        width = int(config.embed_dim * config.mlp_ratio)
        inner = self._linear("fc1", width)(normed)
        inner = inner * jax.nn.sigmoid(1.702 * inner)
        outer = self._linear("fc2", config.embed_dim)(inner)
        return hidden + outer, None

    def _linear(self, name: str, features: int) -> Projection:
        return Projection(features, True, self.param_dtype, self.lora_alpha, name=name)


class VisionTower(nn.Module):
    """Patches to features of the decoder's width, one per `spatial_merge_size`^2 patches."""

    config: PolicyConfig

    @nn.compact
    def __call__(self, images: ImagePatches) -> Array:
        """Returns merged features.  # [group, patch / merge^2, hidden]"""
        policy, config = self.config, self.config.vision
        assert config is not None
        linear = functools.partial(Projection, param_dtype=policy.param_dtype, lora_alpha=policy.lora_alpha)
        patches = images.patches.astype(policy.dtype)
        hidden = linear(config.embed_dim, use_bias=False, name="patch_embed")(patches)
        if config.learned_grid:
            table = self.param(
                "position_embedding",
                nn.initializers.normal(0.5),
                (config.learned_grid, config.learned_grid, config.embed_dim),
                policy.param_dtype,
            )
            row, column = jnp.moveaxis(jnp.minimum(images.positions, config.learned_grid - 1), -1, 0)
            hidden = hidden + table[row, column].astype(hidden.dtype)
        same_image = images.segment_ids[:, :, None] == images.segment_ids[:, None, :]
        mask = same_image & (images.segment_ids > 0)[:, None, :]  # [group, patch, patch]
        context = (vision_angles(images.positions, config.head_dim), mask)
        blocks = nn.scan(
            nn.remat(VisionBlock, prevent_cse=False) if policy.remat == "full" else VisionBlock,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=config.depth,
        )
        hidden, _ = blocks(config, policy.param_dtype, policy.lora_alpha, name="blocks")(hidden, context)
        merged_width = config.embed_dim * config.spatial_merge_size**2
        normed = LayerNorm(policy.param_dtype, name="merger_norm")(hidden)
        merged = normed.reshape(hidden.shape[0], -1, merged_width)
        inner = jax.nn.gelu(linear(merged_width, use_bias=True, name="merger_fc1")(merged), approximate=False)
        return linear(policy.hidden_size, use_bias=True, name="merger_fc2")(inner)


class LayerNorm(nn.Module):
    """LayerNorm in at least float32, as the reference implementation computes it."""

    param_dtype: str

    @nn.compact
    def __call__(self, hidden: Array) -> Array:
        scale = self.param("scale", nn.initializers.ones, (hidden.shape[-1],), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (hidden.shape[-1],), self.param_dtype)
        wide = hidden.astype(at_least_float32(hidden.dtype))
        centred = wide - jnp.mean(wide, axis=-1, keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + 1e-6)
        return (normed * scale + bias).astype(hidden.dtype)
