"""The policy network: a decoder of Qwen2's kind that runs a shared prefix once and many branches against it."""

import functools
import itertools
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from regrpo_jax.models import play_sharding
from regrpo_jax.models.attention import branch_attention, self_attention
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.decode_attention import cached_attention
from regrpo_jax.models.inputs import BranchCache, ImagePatches, PrefixCache, PrefixLayers, TokenBlock
from regrpo_jax.models.layers import Projection, RMSNorm, parameter, rematerialised, rotary_angles, rotate
from regrpo_jax.models.matmul import matmul
from regrpo_jax.models.qwen2_vl.vision import VisionTower
from regrpo_jax.models.sharding import vocabulary_rows

Array = jax.Array


class DecoderLayer(nn.Module):
    """Pre-norm attention over `[prefix | own tokens]`, then SwiGLU."""

    config: PolicyConfig

    @nn.compact
    def __call__(self, hidden: Array, layer_caches: dict[str, Any], context: dict[str, Any]) -> tuple[Array, Any]:
        """hidden: [group, branch, token, hidden]; returns it with the (keys, values) of its tokens.

        With caches of its own tokens, as in decoding, the keys and values are those buffers, of a whole run of layers,
        with the tokens written.
        """
        config = self.config
        normed = RMSNorm(config.rms_norm_eps, config.param_dtype, name="input_norm")(hidden)
        queries = rotate(self._normed("q_norm", self._heads("q_proj", config.num_heads, normed)), context["angles"])
        keys = self._heads("k_proj", config.num_key_value_heads, normed)
        keys = rotate(self._normed("k_norm", keys), context["angles"])
        values = self._heads("v_proj", config.num_key_value_heads, normed)
        if "own_keys" in layer_caches:
            mixed, keys, values = _decoding_attention(queries, keys, values, layer_caches, context)
        elif "prefix_keys" in layer_caches:
            prefix = (layer_caches["prefix_keys"], layer_caches["prefix_values"], context["prefix_valid"])
            mixed = branch_attention(queries, keys, values, context["mask"], prefix)
        else:
            one = (queries[:, 0], keys[:, 0], values[:, 0], context["segment_ids"])
            mixed = self_attention(*one, causal=True, backend=config.attention)[:, None]
        hidden = hidden + self._linear("o_proj", config.hidden_size)(mixed)
        normed = RMSNorm(config.rms_norm_eps, config.param_dtype, name="post_attention_norm")(hidden)
        gate = self._linear("gate_proj", config.intermediate_size)(normed)
        inner = jax.nn.silu(gate) * self._linear("up_proj", config.intermediate_size)(normed)
        hidden = hidden + self._linear("down_proj", config.hidden_size)(inner)
        if "deepstack" in context:
            hidden = hidden + _added_behind(layer_caches["layer"], context["deepstack"])
        return hidden, (keys, values)

    def _linear(self, name: str, features: int, use_bias: bool = False) -> Projection:
        config, stack = self.config, () if self.path else ("layers",)
        sizes = (features, use_bias, config.param_dtype, config.lora_alpha, config.lora_dropout)
        return Projection(*sizes, stack=stack, name=name)

    def _heads(self, name: str, heads: int, inputs: Array) -> Array:
        """inputs: [.., token, hidden]; returns [.., token, head, head_dim]."""
        flat = self._linear(name, heads * self.config.head_dim, self.config.attention_bias)(inputs)
        return flat.reshape(*flat.shape[:-1], heads, self.config.head_dim)

    def _normed(self, name: str, heads: Array) -> Array:
        """Each head's vector normalised where the family does that.  # [.., token, head, head_dim]"""
        config = self.config
        return RMSNorm(config.rms_norm_eps, config.param_dtype, name=name)(heads) if config.query_key_norm else heads


class Policy(nn.Module):
    """The vision-language policy. Use it through `policy.PolicyFunctions`, which hides the module."""

    config: PolicyConfig

    def setup(self) -> None:
        config = self.config
        vocabulary = (
            nn.initializers.normal(config.hidden_size**-0.5),
            (config.vocab_size, config.hidden_size),
            config.param_dtype,
        )
        self.embedding = parameter(self, "embedding", *vocabulary)
        if not config.tie_word_embeddings:
            self.lm_head = parameter(self, "lm_head", *vocabulary)
        if config.token_mixing_width:
            self.token_mixing = self.param(
                "token_mixing",
                nn.initializers.normal(0.5 * config.hidden_size**-0.5),
                (config.token_mixing_width, config.hidden_size, config.hidden_size),
                config.param_dtype,
            )
        if config.vision is not None:
            self.vision = VisionTower(config)
        self.layers = nn.scan(
            rematerialised(DecoderLayer, config.remat),
            variable_axes={"params": 0, "lora": 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),
            length=config.num_layers,
        )(config)
        self.norm = RMSNorm(config.rms_norm_eps, config.param_dtype)

    def run_prefix(self, prefix: TokenBlock, images: ImagePatches | None) -> tuple[Array, PrefixCache]:
        """Runs [group, prefix] tokens; returns normalised hidden states and the cache that branches attend to.

        Args:
          images: those of the prefix, and after them those of the group's branches.
        """
        features = None if images is None else self.encode_images(images)
        hidden, deepstack = self._embed(prefix, _no_preceding_tokens(prefix.tokens, self.config), features)
        context = {"angles": self._angles(prefix)[:, None], "segment_ids": prefix.segment_ids}
        context |= {name: array[:, :, None] for name, array in deepstack.items()}
        hidden, (keys, values) = self.layers(hidden[:, None], self._layer_numbers(), context)
        valid = prefix.segment_ids > 0  # [group, prefix]
        nothing = _no_preceding_tokens(prefix.tokens, self.config)  # a prefix may be shorter than the mixing
        tokens = jnp.concatenate([nothing, jnp.where(valid, prefix.tokens, -1)], axis=-1)
        last_tokens = tokens[:, prefix.tokens.shape[1] :]  # [group, mixing]
        return self.norm(hidden[:, 0]), PrefixCache(keys[:, :, 0], values[:, :, 0], valid, last_tokens, features)

    def run_branches(self, branches: TokenBlock, prefix: PrefixCache) -> Array:
        """Runs whole branches [group, branch, token] against their group's prefix; normalised hidden states."""
        preceding = jnp.broadcast_to(
            prefix.last_tokens[:, None], (*branches.tokens.shape[:2], prefix.last_tokens.shape[-1])
        )
        hidden, deepstack = self._embed(branches, preceding, prefix.features)
        order = jnp.arange(branches.tokens.shape[-1])
        valid = branches.segment_ids > 0  # [group, branch, token]
        mask = valid[..., None, :] & (order[:, None] >= order[None, :])  # [group, branch, token, token]
        context = {"angles": self._angles(branches), "mask": mask, "prefix_valid": prefix.valid} | deepstack
        caches = {"prefix_keys": prefix.keys, "prefix_values": prefix.values} | self._layer_numbers()
        hidden, _ = self.layers(hidden, caches, context)
        return self.norm(hidden)

    def decode_branches(
        self,
        branches: TokenBlock,
        prefix: PrefixLayers,
        cache: BranchCache,
        weights: Sequence[dict[str, Any]],
        features: Array | None = None,
    ) -> tuple[Array, BranchCache]:
        """Appends tokens, padded on the right, to live branches; returns their hidden states and the longer cache.

        The layers are taken in the runs that the caches are laid out in.

        Args:
          weights: the variables of each run, see `layer_weights`.
          features: of the images among these tokens, which all groups share.  # [feature, width]
        """
        hidden, deepstack = self._embed(branches, cache.last_tokens, features)
        new = branches.tokens.shape[-1]
        is_token = branches.segment_ids > 0  # [group, branch, token]
        valid = _written_at(cache.length, cache.valid, is_token, axis=2)
        written = jnp.arange(valid.shape[-1]) <= (cache.length + jnp.arange(new))[:, None]  # [token, source]
        context = {
            "angles": self._angles(branches),
            "mask": valid[:, :, None] & written,  # [group, branch, token, source]
            "prefix_valid": prefix.valid,
            "length": cache.length,
            **deepstack,
        }
        first, longer_keys, longer_values = 0, [], []
        arrays = zip(prefix.keys, prefix.values, cache.keys, cache.values, strict=True)
        for own_weights, held in zip(weights, arrays, strict=True):
            hidden, keys, values = _decoded(self.config, own_weights, held, first, hidden, context)
            first += len(keys)
            longer_keys.append(keys)
            longer_values.append(values)
        tokens = jnp.concatenate([cache.last_tokens, branches.tokens], axis=-1)  # [group, branch, mixing + token]
        last = jnp.sum(is_token, axis=-1, keepdims=True) + jnp.arange(cache.last_tokens.shape[-1])
        last_tokens = jnp.take_along_axis(tokens, last, axis=-1)  # [group, branch, mixing]
        longer = BranchCache(tuple(longer_keys), tuple(longer_values), valid, last_tokens, cache.length + new)
        return self.norm(hidden), longer

    def head(self) -> Array:
        """Output embedding.  # [vocab, hidden]"""
        return self.embedding if self.config.tie_word_embeddings else self.lm_head

    def initialise(self, prefix: TokenBlock, images: ImagePatches | None) -> Array:
        """Touches every parameter once, for `init`."""
        hidden, _ = self.run_prefix(prefix, images)
        return hidden @ self.head().T

    def _angles(self, block: TokenBlock) -> Array:
        config = self.config
        return rotary_angles(block.positions, config.rope_theta, config.rotary_axes, config.rope_scaling)

    def _layer_numbers(self) -> dict[str, Array]:
        return {"layer": jnp.arange(self.config.num_layers)}  # [layer]

    def encode_images(self, images: ImagePatches) -> Array | None:
        """Features as `VisionTower` gives them; None for a text-only policy.  # [group, feature, width]"""
        return None if self.config.vision is None else self.vision(images)

    def _embed(self, block: TokenBlock, preceding: Array, features: Array | None) -> tuple[Array, dict[str, Array]]:
        """Token embeddings, mixed with preceding ones where the preset says so, images in their places.

        And, where the tower has DeepStack and there are images, what is added at their places behind the first layers.
          # {"deepstack": [deepstack, .., token, hidden]}
        """
        config = self.config
        hidden = self._vectors(block.tokens)  # [.., token, hidden]
        if config.token_mixing_width:
            hidden = hidden + self._mixed_preceding(block, preceding)
        if features is None:
            return hidden, {}
        is_image = (block.image_index >= 0)[..., None]
        placed = _placed(features, jnp.maximum(block.image_index, 0)).astype(hidden.dtype)
        hidden = jnp.where(is_image, placed[..., : config.hidden_size], hidden)
        if not config.deepstack_blocks:
            return hidden, {}
        added = jnp.where(is_image, placed[..., config.hidden_size :], 0)  # [.., token, deepstack * hidden]
        added = added.reshape(*added.shape[:-1], len(config.deepstack_blocks), config.hidden_size)
        return hidden, {"deepstack": jnp.moveaxis(added, -2, 0)}

    def _vectors(self, tokens: Array) -> Array:
        rows = play_sharding.vocabulary_rows(self.embedding, tokens)
        if rows is None:
            rows = vocabulary_rows(self.embedding, tokens, self.config.vocab_size)
        return rows.astype(self.config.dtype) * self.config.embedding_scale

    def _mixed_preceding(self, block: TokenBlock, preceding: Array) -> Array:
        """sum_j W_j e_{t-j} over the `token_mixing_width` tokens before t in the same segment."""
        width, length = self.config.token_mixing_width, block.tokens.shape[-1]
        tokens = jnp.concatenate([preceding, block.tokens], axis=-1)  # [.., width + token]
        first = block.segment_ids[..., :1]
        segments = jnp.concatenate([jnp.broadcast_to(first, preceding.shape), block.segment_ids], axis=-1)
        mixed = jnp.zeros((), self.config.dtype)
        for offset in range(1, width + 1):
            earlier = slice(width - offset, width - offset + length)
            seen = (tokens[..., earlier] >= 0) & (segments[..., earlier] == block.segment_ids)
            vectors = self._vectors(jnp.maximum(tokens[..., earlier], 0)) * seen[..., None]
            mixed = mixed + matmul(vectors, self.token_mixing[offset - 1])
        return mixed


def layer_weights(variables: dict[str, Any], runs: Sequence[int]) -> tuple[dict[str, Any], ...]:
    """The variables of runs of so many decoder layers each, out of the stacked ones.  # each [layer of run, ..]"""
    stacked = {name: held["layers"] for name, held in variables.items() if "layers" in held}
    ends = itertools.accumulate(runs)
    return tuple(
        jax.tree.map(operator.itemgetter(slice(end - length, end)), stacked)
        for length, end in zip(runs, ends, strict=True)
    )


def _decoded(
    config: PolicyConfig,
    weights: dict[str, Any],
    held: tuple[Array, Array, Array, Array],
    first: int,
    hidden: Array,
    context: dict[str, Any],
) -> tuple[Array, Array, Array]:
    """A run of layers, of which the first has that number: their output, and the longer keys and values.

    Args:
      held: keys and values of the prefix and of the branches.  # each [layer of run, ..]
    """
    layer, (prefix_keys, prefix_values, *_) = DecoderLayer(config, parent=None), held

    def of_layer(index: Array | int, loop: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        hidden, keys, values = loop
        at = functools.partial(_at, index)
        caches = {
            "prefix_keys": at(prefix_keys),
            "prefix_values": at(prefix_values),
            "own_keys": keys,
            "own_values": values,
            "index": index,
            "layer": first + index,
        }
        found: Any = layer.apply(jax.tree.map(at, weights), hidden, caches, context)
        return found[0], *found[1]

    loop = (hidden, held[2], held[3])
    return of_layer(0, loop) if len(prefix_keys) == 1 else jax.lax.fori_loop(0, len(prefix_keys), of_layer, loop)


def _decoding_attention(
    queries: Array, keys: Array, values: Array, caches: dict[str, Any], context: dict[str, Any]
) -> tuple[Array, Array, Array]:
    """Attention of branches to the prefix, to what they wrote earlier and to themselves; with the longer buffers.

    The tokens are written into the buffers of the whole run, where they stay: no layer's buffer is taken out of it.
    """
    index, slot = caches["index"], context["length"]

    def by_row(new: Array) -> Array:
        return new.reshape(-1, *new.shape[2:])  # [group * branch, token, kv_head, head_dim]

    def written(buffer: Array, new: Array, *place: Any) -> Array:
        return jax.lax.dynamic_update_slice(buffer, new[None], [jnp.asarray(at, slot.dtype) for at in place])

    own_keys = written(caches["own_keys"], by_row(keys).transpose(0, 2, 3, 1), index, 0, 0, 0, slot)
    own_values = written(caches["own_values"], by_row(values).transpose(0, 2, 1, 3), index, 0, 0, slot, 0)
    prefix = (caches["prefix_keys"], caches["prefix_values"], context["prefix_valid"])
    seen = (_at(index, own_keys), _at(index, own_values), context["mask"])
    return cached_attention(queries, *seen, prefix), own_keys, own_values


def _at(index: Array | int, array: Array) -> Array:
    return jax.lax.dynamic_index_in_dim(array, index, keepdims=False)


def _added_behind(layer: Array | int, deepstack: Array) -> Array:
    """What is added to the output of a layer: the feature of its number, nothing behind later layers.

    Args:
      deepstack: # [deepstack, group, branch, token, hidden]
    """
    return jnp.where(layer < len(deepstack), deepstack[jnp.minimum(layer, len(deepstack) - 1)], 0)


def _placed(features: Array, index: Array) -> Array:
    """features [feature, width] for all groups, or [group, feature, width]; index [group, .., token]."""
    return features[index] if features.ndim == 2 else jax.vmap(lambda own, at: own[at])(features, index)


def _written_at(start: Array, buffer: Array, new: Array, *, axis: int) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(buffer, new, start, axis)


def _no_preceding_tokens(tokens: Array, config: PolicyConfig) -> Array:
    return jnp.full((*tokens.shape[:-1], config.token_mixing_width), -1, tokens.dtype)
