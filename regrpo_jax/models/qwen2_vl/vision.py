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
        """SwiGLU in Qwen2.5-VL; in Qwen2-VL quick GELU, x sigmoid(1.702 x); in Qwen3-VL the tanh form of GELU."""
        if config.gated:
            gate = jax.nn.silu(self._linear("gate_proj", config.intermediate_size)(normed))
            inner = gate * self._linear("up_proj", config.intermediate_size)(normed)
            return self._linear("down_proj", config.embed_dim)(inner)
        inner = self._linear("fc1", config.intermediate_size)(normed)
        active = inner * jax.nn.sigmoid(1.702 * inner) if config.activation == "quick_gelu" else jax.nn.gelu(inner)
        return self._linear("fc2", config.embed_dim)(active)

    def _linear(self, name: str, features: int) -> Projection:
        return _linear(self.policy, name, features, use_bias=True)


class DeepStackMerger(nn.Module):
    """What lies within one block, merged: as at the tower's end, but that whole merge groups are normalised."""

    policy: PolicyConfig

    @nn.compact
    def __call__(self, hidden: Array) -> Array:
        """hidden: [row, patch, embed]; returns [row, patch / merge^2, hidden]."""
        config = _vision(self.policy)
        groups = _norm(self.policy, "norm")(_grouped(hidden, config))
        inner = jax.nn.gelu(_linear(self.policy, "fc1", groups.shape[-1], use_bias=True)(groups), approximate=False)
        return _linear(self.policy, "fc2", self.policy.hidden_size, use_bias=True)(inner)


class VisionTower(nn.Module):
    """Patches to features for the decoder, one per `spatial_merge_size`^2 patches.

    A feature is as wide as the decoder, and with DeepStack once more for each block that is merged: first what takes
    the embedding's place, then what is added behind each of the first layers.
    """

    policy: PolicyConfig

    @nn.compact
    def __call__(self, images: ImagePatches) -> Array:
        """Returns merged features.  # [row, patch / merge^2, hidden * (1 + DeepStack)]"""
        policy, config = self.policy, _vision(self.policy)
        rows = images.patches.shape[0]
        grid_places = between_grid_points(images, config.interpolated_grid) if config.interpolated_grid else None
        images = _by_block(images)
        patches = images.patches.astype(policy.dtype)
        hidden = _linear(policy, "patch_embed", config.embed_dim, use_bias=config.patch_bias)(patches)
        if config.learned_grid:
            hidden = hidden + self._learned_positions(config, images.positions).astype(hidden.dtype)
        if grid_places is not None:
            hidden = hidden + self._interpolated_positions(config, *grid_places).reshape(hidden.shape).astype(
                hidden.dtype
            )
        context: dict[str, Any] = {
            "angles": vision_angles(images.positions, config.head_dim),
            "segment_ids": images.segment_ids,
            "window_ids": images.window_ids,
        }
        hidden, taken = self._blocks(hidden, context)
        merged = _grouped(_norm(policy, "merger_norm")(hidden), config)
        inner = jax.nn.gelu(_linear(policy, "merger_fc1", merged.shape[-1], use_bias=True)(merged), approximate=False)
        features = _linear(policy, "merger_fc2", policy.hidden_size, use_bias=True)(inner)[None]
        if config.deepstack_blocks:
            merge_each = nn.vmap(
                DeepStackMerger, variable_axes={"params": 0, "lora": 0}, split_rngs={"params": True, "dropout": True}
            )
            features = jnp.concatenate([features, merge_each(policy, name="deepstack")(taken)])
        features = features.reshape(len(features), rows, -1, policy.hidden_size)
        return jnp.moveaxis(features, 0, -2).reshape(rows, features.shape[2], -1)

    def _blocks(self, hidden: Array, context: dict[str, Array]) -> tuple[Array, Array]:
        """All blocks; what comes out of the last one, and of those of DeepStack.  # [deepstack, row, patch, embed]"""
        config = _vision(self.policy)
        order, count = np.arange(config.depth), len(config.deepstack_blocks)
        sees_image = np.isin(order, config.full_attention_blocks)  # [block]
        slots = np.full(config.depth, count)  # where the output of a block is put; the last slot is never read
        slots[list(config.deepstack_blocks)] = np.arange(count)

        def run(block: nn.Module, carry: tuple[Array, Array], which: tuple[Array, Array]) -> tuple[Any, None]:
            hidden, taken = carry
            hidden, _ = block(hidden, which[0], context)
            if count:  # outside of what is recomputed: the backward pass needs the slot and no copy of `taken`
                taken = jax.lax.dynamic_update_index_in_dim(taken, hidden, which[1], axis=0)
            return (hidden, taken), None

        scan = nn.scan(
            run,
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "dropout": True},
            length=config.depth,
        )
        block = rematerialised(VisionBlock, self.policy.remat)(self.policy, name="blocks")
        taken = jnp.zeros((count + 1 if count else 0, *hidden.shape), hidden.dtype)
        (hidden, taken), _ = scan(block, (hidden, taken), (jnp.array(sees_image), jnp.array(slots)))
        return hidden, taken[:count]

    def _learned_positions(self, config: VisionConfig, positions: Array) -> Array:
        table = self.param(
            "position_embedding",
            nn.initializers.normal(0.5),
            (config.learned_grid, config.learned_grid, config.embed_dim),
            self.policy.param_dtype,
        )
        row, column = jnp.moveaxis(jnp.minimum(positions, config.learned_grid - 1), -1, 0)
        return table[row, column]

    def _interpolated_positions(self, config: VisionConfig, corners: Array, weights: Array) -> Array:
        """The mean of the four grid points around each patch, weighted by nearness.  # [row, patch, embed]"""
        table = self.param(
            "position_grid",
            nn.initializers.normal(0.02),
            (config.interpolated_grid**2, config.embed_dim),
            self.policy.param_dtype,
        )
        return jnp.sum(table[corners] * weights[..., None], axis=-2)


def between_grid_points(images: ImagePatches, side: int) -> tuple[Array, ...]:
    """Where patches lie on a square grid of points whose corners are those of their image: bilinear interpolation.

    A patch in row r of R lies at r (side - 1) / (R - 1), which is 0 for a single row; columns likewise.

    Args:
      images: of rows that are not cut into blocks, so that segment ids are below the number of patches.
      side: points of the grid in a row.
    Returns:
      int32 indices of the four points around each patch, and their weights, which add up to 1.  # [row, patch, 4]
    """

    def sizes(positions: Array, segment_ids: Array) -> Array:
        largest = jax.ops.segment_max(positions, segment_ids, num_segments=len(segment_ids) + 1)
        return largest[segment_ids]  # [patch, 2]

    last = jnp.maximum(jax.vmap(sizes)(images.positions, images.segment_ids), 1)  # [row, patch, 2]
    places = images.positions * jnp.float32(side - 1) / last  # [row, patch, 2]
    before = jnp.clip(jnp.floor(places).astype(jnp.int32), 0, side - 1)
    share = places - before  # of the point after it
    points = jnp.stack([before, jnp.minimum(before + 1, side - 1)], axis=-1)  # [row, patch, 2, 2]
    weights = jnp.stack([1 - share, share], axis=-1)
    corners = points[..., 0, :, None] * side + points[..., 1, None, :]  # [row, patch, 2, 2]
    weights = weights[..., 0, :, None] * weights[..., 1, None, :]
    return tuple(array.reshape(*places.shape[:2], 4) for array in (corners, weights))


def _grouped(patches: Array, config: VisionConfig) -> Array:
    """The patches of each merge group, which are neighbours, in one.  # [row, patch / merge^2, embed * merge^2]"""
    return patches.reshape(len(patches), -1, config.embed_dim * config.spatial_merge_size**2)


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
