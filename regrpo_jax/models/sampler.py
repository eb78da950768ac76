"""Batched decoding on the prefix cache that training uses: a conversation that tokens are appended to and drawn from.

    decoding = start(functions, variables, prompt, key, branches=8, capacity=512)
    decoding, _ = append(functions, variables, decoding, tokens, lengths)     # an opening, a tool's observation
    samples, decoding = generate(functions, variables, decoding, sampling)    # the policy's own turn

The prefix is run once per group and its branches share it. The last token of a branch is always kept back (`fed`), so
that every log-prob, the first one after an append included, comes from a branch position as it does in a scoring pass.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from regrpo_jax.models.decode_attention import prefix_layers
from regrpo_jax.models.decoding_state import (
    APART,
    Decoding,
    Pictures,
    Prompt,
    Samples,
    check_room,
    last_place,
    on_their_rows,
)
from regrpo_jax.models.drawing import draw, finished_samples, new_turn
from regrpo_jax.models.inputs import Array, BranchCache, ImagePatches, PrefixCache, TokenBlock
from regrpo_jax.models.logprobs import token_logprobs
from regrpo_jax.models.play_sharding import rows_apart
from regrpo_jax.models.policy import PolicyFunctions, empty_branch_cache
from regrpo_jax.models.token_choice import Sampling

Variables = dict[str, Any]

SCORED_CHUNK = 256  # appended tokens that meet the vocabulary at once


def layers_together(platform: str) -> bool:
    """Whether decoding goes through the layers in a loop: what is best on devices of a platform.

    A TPU reads a layer's weights and caches where they lie in the stack, and 12 unrolled layers took 2.6 times as long
    to compile for it as a loop. A CPU copies them out in a loop. On a GPU neither was measured.
    """
    return platform == "tpu"


@functools.partial(jax.jit, static_argnames=("functions", "branches", "capacity", "parts", "layers_together"))
def start(
    functions: PolicyFunctions,
    variables: Variables,
    prompt: Prompt,
    key: Array,
    *,
    branches: int,
    capacity: int,
    parts: int = 1,
    layers_together: bool = False,
) -> Decoding:
    """Runs the prefixes; every group gets `branches` branches with room for `capacity` tokens each.

    Args:
      key: random key of all draws.
      capacity: slots of the branch cache: the sum of the widths of all appends and the `max_tokens` of all turns.
      parts: that the groups are run in, one after the other, for what a prefix takes beside its cache; their number
        divides by it.
      layers_together: how the caches are laid out, see `PrefixLayers`.
    """
    cache = _run_prefixes(functions, variables, rows_apart(prompt), parts)
    prefix = prefix_layers(cache, layers_together=layers_together)
    shape = (prompt.last_token.shape[0], branches)
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    keys = jax.vmap(fold, in_axes=(0, None))(fold(key, prompt.draw_ids), jnp.arange(branches))
    position = jnp.broadcast_to(prompt.next_position[:, None, None] - 1, (*shape, 3))
    decoding = Decoding(
        prefix=prefix,
        cache=empty_branch_cache(prefix, branches, capacity),
        fed=jnp.broadcast_to(prompt.last_token[:, None], shape).astype(jnp.int32),
        fed_image=jnp.full(shape, -1, jnp.int32),
        position=position.astype(jnp.int32),
        done=jnp.zeros(shape, bool),
        keys=keys,
    )
    return on_their_rows(decoding)


def _run_prefixes(functions: PolicyFunctions, variables: Variables, prompt: Prompt, parts: int) -> PrefixCache:
    def run(part: tuple[TokenBlock, ImagePatches | None]) -> PrefixCache:
        return dataclasses.replace(functions.run_prefix(variables, *part)[1], features=None)

    groups = (prompt.prefix, prompt.images)
    if parts == 1:
        return run(groups)
    # A part takes every so manieth group, so that groups which lie on several devices stay there.
    count = len(prompt.last_token)
    split = jax.tree.map(lambda array: array.reshape(count // parts, parts, *array.shape[1:]).swapaxes(0, 1), groups)
    found = jax.lax.map(
        run, split
    )  # keys and values [part, layer, group / part, ..], the others [part, group / part, ..]

    def together(array: Array, axis: int) -> Array:
        array = jnp.moveaxis(array, 0, axis + 1)
        return array.reshape(*array.shape[:axis], count, *array.shape[axis + 2 :])

    rest = jax.tree.map(lambda array: together(array, 0), dataclasses.replace(found, keys=None, values=None))
    return dataclasses.replace(rest, keys=together(found.keys, 1), values=together(found.values, 1))


def append(
    functions: PolicyFunctions,
    variables: Variables,
    decoding: Decoding,
    tokens: Array,
    lengths: Array,
    pictures: Pictures | None = None,
    *,
    scored: bool = False,
) -> tuple[Decoding, Array]:
    """Puts given tokens at the end of the branches, as one block; a branch that gets any is no longer done.

    An image may be cut between two blocks. What is drawn next must follow text.

    Args:
      tokens: int32, right-padded.  # [group, branch, token]
      lengths: int32, how many of them are real; a branch may get none.  # [group, branch]
      pictures: where images are among them; None where all are text.
      scored: whether log-probs are wanted; without, nothing meets the vocabulary.
    Returns:
      the longer branches, and log pi of the appended tokens, 0 at padding or where not scored.
        # [group, branch, token]
    Raises:
      ValueError: the block does not fit into the cache, or a length is longer than the block.
    """
    width = tokens.shape[-1]
    check_room(decoding, width, "appending")
    if np.min(lengths) < 0 or np.max(lengths) > width:
        raise ValueError(f"the lengths to append go from {np.min(lengths)} to {np.max(lengths)}; the width is {width}")
    return append_compiled(
        functions,
        variables,
        decoding.cache,
        dataclasses.replace(decoding, cache=APART),
        tokens,
        lengths,
        pictures,
        jnp.asarray(scored),
    )


def generate(
    functions: PolicyFunctions,
    variables: Variables,
    decoding: Decoding,
    sampling: Sampling,
    budget: Array | None = None,
) -> tuple[Samples, Decoding]:
    """Draws until every branch has stopped or spent its budget, all at the shape that they have.

    `rollouts/sampler_policy.py` calls it for a few tokens at a time and drops finished branches in between.

    Args:
      budget: int32, tokens that each branch may draw, `sampling.max_tokens` when None.  # [group, branch]
    Raises:
      ValueError: `sampling.max_tokens` tokens do not fit into the cache.
    """
    turn = new_turn(decoding, sampling, budget)
    turn, decoding = draw(functions, variables, decoding, turn, sampling, sampling.max_tokens)
    return finished_samples(turn, sampling), decoding


@functools.partial(jax.jit, static_argnames="functions")
def encode_images(functions: PolicyFunctions, variables: Variables, images: ImagePatches) -> Array:
    """The features of images, for `Pictures`.  # [row, feature, width]"""
    return functions.encode_images(variables, images)


@functools.partial(jax.jit, static_argnames="functions", donate_argnames="cache")
def append_compiled(
    functions: PolicyFunctions,
    variables: Variables,
    cache: BranchCache,
    rest: Decoding,
    tokens: Array,
    lengths: Array,
    pictures: Pictures | None,
    scored: Array,
) -> tuple[Decoding, Array]:
    order = jnp.arange(tokens.shape[-1])
    real = order < lengths[..., None]  # [group, branch, token]
    if pictures is None:
        places = last_place(rest.position)[..., None] + 1 + order  # [group, branch, token]
        positions, image_index = jnp.repeat(places[..., None], 3, axis=-1), jnp.full_like(tokens, -1)
    else:
        positions, image_index = pictures.positions, pictures.image_index
    block = TokenBlock(
        tokens=_led_by(rest.fed, tokens),
        segment_ids=real.astype(jnp.int32),
        positions=_led_by(rest.position, positions),
        image_index=_led_by(rest.fed_image, image_index),
    )
    weights, features = (
        functions.layer_weights(variables, rest.prefix.runs),
        None if pictures is None else pictures.features,
    )
    hidden, cache = functions.decode_branches(variables, block, rest.prefix, cache, weights, features)
    logprobs = token_logprobs(hidden, functions.head(variables), tokens, real & scored, chunk_size=SCORED_CHUNK)
    given = lengths > 0  # [group, branch]

    def last(values: Array, before: Array) -> Array:
        at = jnp.maximum(lengths - 1, 0).reshape(*lengths.shape, *[1] * (values.ndim - 2))
        found = jnp.take_along_axis(values, at, axis=2)[:, :, 0]
        return jnp.where(given.reshape(*given.shape, *[1] * (found.ndim - 2)), found, before)

    longer = dataclasses.replace(
        rest,
        cache=cache,
        fed=last(tokens, rest.fed),
        fed_image=last(image_index, rest.fed_image),
        position=last(positions, rest.position),
        done=rest.done & ~given,
    )
    return on_their_rows(longer), rows_apart(logprobs)


def _led_by(first: Array, values: Array) -> Array:
    """The values moved on by one token, with the one that was kept back in front.  # [group, branch, token, ..]"""
    return jnp.concatenate([first[:, :, None], values[:, :, :-1]], axis=2)
