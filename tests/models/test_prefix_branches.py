"""One shared prefix with many branches is exactly K whole sequences: values, gradients, decoding, packing, padding."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regrpo_jax.core.losses import regrpo_loss
from regrpo_jax.data.batches import GroupBatch, collate_groups, collate_images
from regrpo_jax.data.chat import Segment
from regrpo_jax.data.groups import Branch, Group
from regrpo_jax.data.images import PackedImages, PatchedImage, pack_images, patch_positions
from regrpo_jax.data.positions import rotary_positions
from regrpo_jax.models.config import PolicyConfig, RematPolicy
from regrpo_jax.models.decode_attention import prefix_layers
from regrpo_jax.models.inputs import ImagePatches, PrefixCache, TokenBlock
from regrpo_jax.models.policy import PolicyFunctions, empty_branch_cache, policy_functions
from regrpo_jax.training.steps import group_logprobs

IMAGE = 22  # the token that stands for one merged image feature
BETA = 0.3
ADVANTAGES = np.array([[1.0, -0.5, -0.75, 0.25], [-1.25, 0.5, 2.0, -0.25]])
# Chosen such that there are only two lengths of whole sequence (19 and 22) to compile.
PREFIX_LENGTHS = (15, 12)
BRANCH_LENGTHS = ((4, 7, 7, 4), (7, 10, 7, 10))
Variables = dict[str, Any]
VariablesOf = Callable[..., Variables]


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="module")
def wide_config(small_config: PolicyConfig) -> PolicyConfig:
    return dataclasses.replace(small_config, dtype="float64", param_dtype="float64")


def random_images(config: PolicyConfig, grids: list[tuple[int, int]], seed: int) -> PackedImages:
    """Images of noise, one of each merged grid."""
    assert config.vision is not None
    random = np.random.default_rng(seed)
    images = []
    for rows, columns in grids:
        positions = patch_positions(2 * rows, 2 * columns, 2)
        patches = random.normal(size=(len(positions), config.vision.patch_dim)).astype(np.float32)
        images.append(PatchedImage(patches, positions, (rows, columns)))
    return pack_images(images, config.vision)


def prompt_with_images(length: int, grids: list[tuple[int, int]], random: np.random.Generator) -> np.ndarray:
    """Text, an image, a word, the next image, ..., text.  # [token]"""
    pieces: list[np.ndarray] = [random.integers(0, IMAGE, 2)]
    for rows, columns in grids:
        pieces += [np.full(rows * columns, IMAGE), random.integers(0, IMAGE, 1)]
    body = np.concatenate(pieces)
    return np.concatenate([body, random.integers(0, IMAGE, length - len(body))]).astype(np.int32)


@functools.cache
def two_groups(config: PolicyConfig) -> tuple[Group, Group]:
    """Prefixes of different lengths with two images and one; branches of different lengths, some tokens unscored."""
    random = np.random.default_rng(5)
    groups = []
    for index, grids in enumerate(([(2, 3), (1, 2)], [(3, 2)])):
        prefix = prompt_with_images(PREFIX_LENGTHS[index], grids, random)
        branches = []
        for length in BRANCH_LENGTHS[index]:
            segments = random.choice([0, Segment.REFLECTION, Segment.ACTION], size=length, p=[0.3, 0.3, 0.4])
            segments[-1] = Segment.ACTION
            tokens = random.integers(0, IMAGE, length).astype(np.int32)
            branches.append(Branch("", tokens, segments.astype(np.int8), True, 0.0))
        positions = rotary_positions(prefix == IMAGE, grids)
        images = random_images(config, grids, seed=index)
        groups.append(Group(str(index), prefix, positions, images, tuple(branches)))
    return groups[0], groups[1]


@functools.cache
def group_batch(config: PolicyConfig) -> GroupBatch:
    """`two_groups` as the trainer sees them: prefixes padded on the left to 16, branches on the right to 12."""
    random = np.random.default_rng(6)
    groups = two_groups(config)
    reference = [random.uniform(-4, -1, (4, 10)) for _ in groups]
    return collate_groups(groups, reference, image_token_id=IMAGE, prefix_buckets=[16], branch_buckets=[12])


def whole_sequence(config: PolicyConfig, group: Group, branch: Branch) -> tuple[TokenBlock, ImagePatches | None]:
    """Prefix and branch as one sequence without any padding, positions counted over all of it."""
    tokens = np.concatenate([group.prefix, branch.tokens])
    is_image = tokens == IMAGE
    block = TokenBlock(
        tokens[None],
        np.ones((1, len(tokens)), np.int32),
        rotary_positions(is_image, group.images.merged_grids)[None],
        group.images.image_index(is_image)[None],
    )
    return block, collate_images([group.images])


def full_logprobs(
    functions: PolicyFunctions, variables: Variables, block: TokenBlock, images: ImagePatches | None
) -> jax.Array:
    """log pi of every token after the first, from a full-vocabulary log_softmax.  # [token - 1]"""
    hidden, _ = functions.run_prefix(variables, block, images)
    logits = hidden[0] @ functions.head(variables).T  # [token, vocab]
    return jax.nn.log_softmax(logits[:-1])[jnp.arange(block.tokens.shape[1] - 1), block.tokens[0, 1:]]


@dataclasses.dataclass(frozen=True)
class Naive:
    """The objective branch by branch, each a whole sequence of its own."""

    logprobs: list[list[np.ndarray]]  # per group and branch: [token]
    loss: float
    gradient: Variables


def naive_objective(config: PolicyConfig, variables: Variables) -> Naive:
    """Loss, gradient and log-probs from K separate sequences per group, written from the paper's equation."""
    functions = policy_functions(config)
    reference = np.asarray(group_batch(config).reference_logprobs, np.float64)

    def branch_loss(variables: Variables, block: Any, images: Any, row: dict[str, Any]) -> tuple[Any, Any]:
        logprobs = full_logprobs(functions, variables, block, images)  # [token - 1]
        drift = logprobs - row["reference"]
        objective = row["advantage"] * logprobs - BETA * (jnp.exp(-drift) + drift - 1)
        return -jnp.sum(row["trained"] * objective) / ADVANTAGES.size, logprobs

    value_and_gradient = jax.jit(jax.value_and_grad(branch_loss, has_aux=True))
    loss, gradient = 0.0, jax.tree.map(np.zeros_like, variables)
    scored: list[list[np.ndarray]] = []
    for g, group in enumerate(two_groups(config)):
        scored.append([])
        for k, branch in enumerate(group.branches):
            own = slice(len(group.prefix) - 1, None)  # what the branch's tokens are predicted from
            row: dict[str, Any] = {
                name: np.zeros(len(group.prefix) + len(branch.tokens) - 1) for name in ("trained", "reference")
            }
            row["trained"][own] = branch.segments > 0
            row["reference"][own] = reference[g, k, : len(branch.tokens)]
            row["advantage"] = ADVANTAGES[g, k]
            (value, logprobs), part = value_and_gradient(variables, *whole_sequence(config, group, branch), row)
            loss += float(value)
            gradient = jax.tree.map(np.add, gradient, part)
            scored[-1].append(np.asarray(logprobs)[own])
    return Naive(scored, loss, gradient)


def shared_prefix_objective(config: PolicyConfig, variables: Variables) -> tuple[jax.Array, jax.Array, Variables]:
    """Loss, log-probs and gradient as the train step computes them."""
    functions, batch = policy_functions(config), group_batch(config)

    def loss(variables: Variables, batch: GroupBatch) -> tuple[jax.Array, jax.Array]:
        logprobs = group_logprobs(functions, variables, batch, chunk_size=5)
        value, _ = regrpo_loss(
            logprobs,
            jnp.asarray(batch.reference_logprobs),
            batch.segments == Segment.REFLECTION,
            batch.segments == Segment.ACTION,
            jnp.asarray(ADVANTAGES),
            beta=BETA,
            kl_estimator="k3",
        )
        return value, logprobs

    (value, logprobs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables, batch)
    return value, logprobs, gradient


def largest_difference(ours: Variables, theirs: Variables) -> float:
    """Largest absolute difference of two trees, relative to the largest absolute number of the second."""
    pairs = list(zip(jax.tree.leaves(jax.device_get(ours)), jax.tree.leaves(theirs), strict=True))
    return max(np.max(np.abs(a - b)) for a, b in pairs) / max(np.max(np.abs(b)) for _, b in pairs)


@pytest.mark.parametrize(("mixing", "remats"), [(3, ["none", "full"]), (0, ["full"])])
def test_group_gradient_is_that_of_separate_sequences(
    wide_config: PolicyConfig, random_variables: VariablesOf, mixing: int, remats: list[RematPolicy]
) -> None:
    config = dataclasses.replace(wide_config, token_mixing_width=mixing)
    variables = random_variables(config, 3, rank=2)
    naive = naive_objective(config, variables)
    for leaf in jax.tree.leaves(naive.gradient):
        assert np.any(leaf != 0), "every parameter must matter, else this test proves nothing about it"
    for remat in remats:
        value, logprobs, gradient = shared_prefix_objective(dataclasses.replace(config, remat=remat), variables)
        assert logprobs.dtype == jnp.float64
        for g, group in enumerate(two_groups(config)):
            for k, branch in enumerate(group.branches):
                expected = np.where(branch.segments > 0, naive.logprobs[g][k], 0)
                np.testing.assert_allclose(logprobs[g, k, : len(branch.tokens)], expected, atol=1e-9)
                assert not np.any(logprobs[g, k, len(branch.tokens) :])
        np.testing.assert_allclose(value, naive.loss, rtol=1e-9)
        assert largest_difference(gradient, naive.gradient) <= 1e-9


def prefix_cache(config: PolicyConfig, variables: Variables) -> PrefixCache:
    batch = group_batch(config)
    return jax.jit(policy_functions(config).run_prefix)(variables, batch.prefix, batch.images)[1]


@pytest.mark.parametrize(("mixing", "together"), [(3, False), (3, True), (0, False)])
def test_decoding_token_by_token_is_running_branches(
    wide_config: PolicyConfig, random_variables: VariablesOf, mixing: int, together: bool
) -> None:
    config = dataclasses.replace(wide_config, token_mixing_width=mixing)
    variables = random_variables(config, 4, rank=2)
    functions, branches = policy_functions(config), group_batch(config).branches
    prefix = prefix_cache(config, variables)
    whole = jax.jit(functions.run_branches)(variables, branches, prefix)  # [group, branch, token, hidden]
    decode = jax.jit(functions.decode_branches)
    laid_out = prefix_layers(prefix, layers_together=together)
    weights = functions.layer_weights(variables, laid_out.runs)
    assert len(weights) == (1 if together else config.num_layers)
    cache = empty_branch_cache(laid_out, branches.tokens.shape[1], branches.tokens.shape[2] + 2)
    pieces, start = [], 0
    for width in (5, 1, 1, 1, 1, 1, 1, 1):  # what a tool returns is appended at once, what is sampled one by one
        part = jax.tree.map(lambda array, here=slice(start, start + width): array[:, :, here], branches)
        hidden, cache = decode(variables, part, laid_out, cache, weights)
        pieces.append(hidden)
        start += width
    decoded = np.concatenate(pieces, axis=2)
    real = np.asarray(branches.segment_ids) > 0
    np.testing.assert_allclose(decoded[real], np.asarray(whole)[real], atol=1e-9)
    assert int(cache.length) == branches.tokens.shape[2] == start


def test_branches_do_not_see_each_other(wide_config: PolicyConfig, random_variables: VariablesOf) -> None:
    variables = random_variables(wide_config, 4, rank=2)
    run, branches = jax.jit(policy_functions(wide_config).run_branches), group_batch(wide_config).branches
    prefix = prefix_cache(wide_config, variables)
    changed = np.array(branches.tokens)
    changed[:, 1] = (changed[:, 1] + 1) % IMAGE
    before, after = (
        run(variables, branches, prefix),
        run(variables, dataclasses.replace(branches, tokens=changed), prefix),
    )
    np.testing.assert_array_equal(np.delete(before, 1, axis=1), np.delete(after, 1, axis=1))
    assert np.max(np.abs(before[:, 1] - after[:, 1])) > 1e-3


def test_prefixes_shorter_than_the_mixing_window(wide_config: PolicyConfig, random_variables: VariablesOf) -> None:
    variables, functions = random_variables(wide_config, 4), policy_functions(wide_config)
    tokens = np.array([[3, 7, 1, 20, 11, 4]], np.int32)
    positions = np.repeat(np.arange(6, dtype=np.int32)[None, :, None], 3, axis=-1)
    block = TokenBlock(tokens, np.ones_like(tokens), positions, np.full_like(tokens, -1))

    @jax.jit
    def whole_and_split(variables: Variables, block: TokenBlock) -> tuple[jax.Array, list[jax.Array]]:
        whole, _ = functions.run_prefix(variables, block, None)
        parts = []
        for length in (1, 2):
            _, cache = functions.run_prefix(variables, jax.tree.map(lambda array: array[:, :length], block), None)  # noqa: B023
            tail = jax.tree.map(lambda array: array[:, None, length:], block)  # noqa: B023
            parts.append(functions.run_branches(variables, tail, cache)[:, 0])
        return whole, parts

    whole, parts = whole_and_split(variables, block)
    for length, part in zip((1, 2), parts, strict=True):
        np.testing.assert_allclose(part, whole[:, length:], atol=1e-9)


def test_packed_conversations_are_each_alone(wide_config: PolicyConfig, random_variables: VariablesOf) -> None:
    variables = random_variables(wide_config, 8)
    run = jax.jit(policy_functions(wide_config).run_prefix)
    first, second = two_groups(wide_config)
    sequences = [group.prefix for group in (first, second)]
    tokens = np.concatenate([*sequences, np.zeros(3, np.int32)])
    is_image = tokens == IMAGE
    segment_ids = np.concatenate([np.full(15, 1), np.full(12, 2), np.zeros(3, int)]).astype(np.int32)
    positions = np.concatenate([first.positions, second.positions, np.zeros((3, 3), np.int32)])
    images = PackedImages(
        np.concatenate([first.images.patches, second.images.patches]),
        np.concatenate([first.images.positions, second.images.positions]),
        *[np.concatenate([first.images.segment_ids, second.images.segment_ids + 2])] * 2,
        first.images.merged_grids + second.images.merged_grids,
    )
    block = TokenBlock(tokens[None], segment_ids[None], positions[None], images.image_index(is_image)[None])
    packed, _ = run(variables, block, collate_images([images]))
    for group, here in ((first, slice(0, 15)), (second, slice(15, 27))):
        alone = TokenBlock(
            group.prefix[None],
            np.ones((1, len(group.prefix)), np.int32),
            group.positions[None],
            group.images.image_index(group.prefix == IMAGE)[None],
        )
        hidden, _ = run(variables, alone, collate_images([group.images]))
        np.testing.assert_allclose(packed[0, here], hidden[0], atol=1e-9)


@pytest.fixture(scope="module")
def branch_runner(wide_config: PolicyConfig, random_variables: VariablesOf) -> Callable[..., jax.Array]:
    """(prefix, images, branches) -> hidden states of the branches, compiled once for all padding examples."""
    functions, variables = policy_functions(wide_config), random_variables(wide_config, 9, rank=2)

    @jax.jit
    def run(prefix: TokenBlock, images: ImagePatches, branches: TokenBlock) -> jax.Array:
        _, cache = functions.run_prefix(variables, prefix, images)
        return functions.run_branches(variables, branches, cache)

    return run


def with_garbage(block: TokenBlock, random: np.random.Generator) -> TokenBlock:
    """The same block with noise in everything that padding should hide."""
    padding = np.asarray(block.segment_ids) == 0
    return dataclasses.replace(
        block,
        tokens=np.where(padding, random.integers(0, IMAGE + 1, padding.shape), block.tokens),
        positions=np.where(padding[..., None], random.integers(0, 99, (*padding.shape, 3)), block.positions),
        image_index=np.where(padding, random.integers(-1, 6, padding.shape), block.image_index),
    )


@settings(max_examples=15, deadline=None)
@given(
    kept=st.integers(1, 11),
    lengths=st.lists(st.integers(1, 12), min_size=4, max_size=4),
    seed=st.integers(0, 2**31),
)
def test_padding_never_matters(
    wide_config: PolicyConfig,
    branch_runner: Callable[..., jax.Array],
    kept: int,
    lengths: list[int],
    seed: int,
) -> None:
    """Prefixes of any length from 1, branches of any length from 1: what stands at padding has no influence."""
    random = np.random.default_rng(seed)
    batch = group_batch(wide_config)
    assert batch.images is not None
    prefix_valid = np.asarray(batch.prefix.segment_ids) * (np.arange(16) >= 16 - kept)
    branch_valid = np.broadcast_to(np.arange(12) < np.array(lengths)[:, None], (2, 4, 12)).astype(np.int32)
    prefix = dataclasses.replace(batch.prefix, segment_ids=prefix_valid.astype(np.int32))
    branches = dataclasses.replace(
        batch.branches, tokens=random.integers(0, IMAGE, (2, 4, 12)).astype(np.int32), segment_ids=branch_valid
    )
    clean = branch_runner(prefix, batch.images, branches)
    hidden_patches = (np.asarray(batch.images.segment_ids) == 0)[..., None]
    noise = random.normal(scale=50, size=batch.images.patches.shape)
    noisy_images = dataclasses.replace(batch.images, patches=np.where(hidden_patches, noise, batch.images.patches))
    noisy = branch_runner(with_garbage(prefix, random), noisy_images, with_garbage(branches, random))
    real = branch_valid > 0
    np.testing.assert_allclose(np.asarray(noisy)[real], np.asarray(clean)[real], atol=1e-9)
    assert np.all(np.isfinite(noisy))
