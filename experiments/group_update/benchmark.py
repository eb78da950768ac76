"""How much a shared prefix and scored-tokens-only vocabulary work save: one group update, ours against the naive form.

    python experiments/group_update/benchmark.py [--repeats=5] [--trainable=lora|full]

Naive form, as the authors' trainer computes it: each of the five candidates is a full sequence of its own, run
through the policy and through the reference, with full-vocabulary log-probs at every position. Ours: the prefix once,
five short branches against it, vocabulary only at scored tokens (`training.steps`). Same weights, group, loss and
process; the two gradients are compared before anything is timed. Compilation is excluded.
"""

import json
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from regrpo_jax.core.losses import regrpo_loss
from regrpo_jax.data.batches import GroupBatch
from regrpo_jax.models.config import PolicyConfig
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.lora import AdapterSettings, init_adapter
from regrpo_jax.models.policy import PolicyFunctions, policy_functions
from regrpo_jax.training.steps import group_logprobs

_REPEATS = flags.DEFINE_integer("repeats", 5, "Timed repetitions of each form; the median is reported.")
_TRAINABLE = flags.DEFINE_enum("trainable", "lora", ["lora", "full"], "What is updated.")
_PREFIX = flags.DEFINE_integer("prefix", 1000, "Tokens of the shared prefix.")
_BRANCH = flags.DEFINE_integer("branch", 80, "Tokens of a branch.")
_VOCABULARY = flags.DEFINE_integer("vocabulary", 151_936, "Size of the vocabulary (Qwen2: 151,936).")

BRANCHES = 5
BETA = 0.04
Tree = dict[str, Any]


def make_group(rng: np.random.Generator, prefix: int, branch: int, vocabulary: int) -> GroupBatch:
    """One group of random tokens; the second half of every branch is a reflection (first half of it) and an action."""
    shape = (1, BRANCHES, branch)
    last = rng.integers(0, vocabulary)
    targets = rng.integers(0, vocabulary, shape)
    fed = np.concatenate([np.full((1, BRANCHES, 1), last), targets[..., :-1]], axis=-1)
    positions = np.broadcast_to(np.arange(prefix - 1)[:, None], (1, prefix - 1, 3))
    branch_positions = np.broadcast_to(prefix - 1 + np.arange(branch)[:, None], (*shape, 3))
    segments = np.broadcast_to(np.where(np.arange(branch) < branch // 2, 1, 2), shape)
    tokens = rng.integers(0, vocabulary, (1, prefix - 1))
    block = TokenBlock(tokens, np.ones_like(tokens), positions, np.full_like(tokens, -1))
    branches = TokenBlock(fed, np.ones_like(fed), branch_positions, np.full_like(fed, -1))
    success = np.array([[True, False, True, True, False]])
    return GroupBatch(
        block, None, branches, targets, segments, success, np.zeros((1, BRANCHES)), np.zeros(shape, np.float32)
    )


def shared_prefix_update(functions: PolicyFunctions) -> Callable[..., tuple[jax.Array, Tree]]:
    """Loss and gradient with the prefix run once, the reference included."""

    def loss(trainable: Tree, frozen: Tree, reference: Tree, batch: GroupBatch, advantages: jax.Array) -> jax.Array:
        reference_logprobs = group_logprobs(functions, reference, batch, chunk_size=512)
        logprobs = group_logprobs(functions, {**frozen, **trainable}, batch, chunk_size=512)
        return regrpo_loss(
            logprobs, reference_logprobs, batch.segments == 1, batch.segments == 2, advantages, beta=BETA
        )[0]

    return jax.jit(jax.value_and_grad(loss))


def naive_update(functions: PolicyFunctions) -> Callable[..., tuple[jax.Array, Tree]]:
    """Loss and gradient of five full sequences, one after another, full-vocabulary log-probs at every position."""

    def sequence_logprobs(variables: Tree, block: TokenBlock) -> jax.Array:
        hidden, _ = functions.run_prefix(variables, block, None)  # [1, token, hidden]
        logits = hidden @ functions.head(variables).T  # [1, token, vocab]
        logprobs = jax.nn.log_softmax(logits[:, :-1], axis=-1)
        return jnp.take_along_axis(logprobs, block.tokens[:, 1:, None], axis=-1)[..., 0]  # [1, token - 1]

    def loss(
        trainable: Tree, frozen: Tree, reference: Tree, block: TokenBlock, segments: jax.Array, advantage: jax.Array
    ) -> jax.Array:
        reference_logprobs = sequence_logprobs(reference, block)
        logprobs = sequence_logprobs({**frozen, **trainable}, block)
        value, _ = regrpo_loss(
            logprobs[:, None],
            reference_logprobs[:, None],
            (segments == 1)[:, None],
            (segments == 2)[:, None],
            advantage[None, None],
            beta=BETA,
            denominator=BRANCHES,
        )
        return value

    gradient = jax.jit(jax.value_and_grad(loss))
    add = jax.jit(lambda first, second: jax.tree.map(jnp.add, first, second))

    def update(
        trainable: Tree, frozen: Tree, reference: Tree, batch: GroupBatch, advantages: jax.Array
    ) -> tuple[jax.Array, Tree]:
        total = None
        for branch in range(BRANCHES):
            block, segments = full_sequence(batch, branch)
            part = gradient(trainable, frozen, reference, block, segments, advantages[0, branch])
            total = part if total is None else add(total, part)
        assert total is not None
        return total

    return update


def full_sequence(batch: GroupBatch, branch: int) -> tuple[TokenBlock, np.ndarray]:
    """Prefix and one branch as a sequence of its own, and the segment of each predicted token [1, token - 1]."""
    tokens = np.concatenate(
        [batch.prefix.tokens, batch.branches.tokens[:, branch], batch.targets[:, branch, -1:]], axis=1
    )
    positions = np.broadcast_to(np.arange(tokens.shape[1])[:, None], (*tokens.shape, 3))
    segments = np.zeros((1, tokens.shape[1] - 1), np.int32)
    segments[:, -batch.segments.shape[-1] :] = batch.segments[:, branch]
    return TokenBlock(tokens, np.ones_like(tokens), positions, np.full_like(tokens, -1)), segments


def timed(update: Callable[..., Any], arguments: tuple, repeats: int) -> float:
    """Median seconds of a call, results awaited."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(update(*arguments))
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def main(_: list[str]) -> None:
    """Compares, then times, then prints one JSON line."""
    config = PolicyConfig(
        vocab_size=_VOCABULARY.value,
        hidden_size=256,
        intermediate_size=688,
        num_layers=4,
        num_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        remat="none",
    )
    functions = policy_functions(config)
    reference = functions.init(jax.random.key(0))
    if _TRAINABLE.value == "lora":
        adapter = init_adapter(jax.random.key(1), reference["params"], AdapterSettings(rank=8))
        adapter = jax.tree.map(lambda x: x + 0.01, adapter)  # away from zero, so that every gradient matters
        trainable, frozen = {"lora": adapter}, reference
    else:
        trainable, frozen = {"params": jax.tree.map(lambda x: x * 1.01, reference["params"])}, {}
    batch = make_group(np.random.default_rng(0), _PREFIX.value, _BRANCH.value, _VOCABULARY.value)
    advantages = jnp.array([[0.4, -0.6, 0.37, 0.4, -0.57]])
    arguments = (trainable, frozen, reference, batch, advantages)
    ours, naive = shared_prefix_update(functions), naive_update(functions)
    (loss_a, gradient_a), (loss_b, gradient_b) = ours(*arguments), naive(*arguments)
    difference = max(
        float(jnp.max(jnp.abs(a - b)) / (jnp.max(jnp.abs(b)) + 1e-12))
        for a, b in zip(jax.tree.leaves(gradient_a), jax.tree.leaves(gradient_b), strict=True)
    )
    del gradient_a, gradient_b
    ours_seconds = timed(ours, arguments, _REPEATS.value)
    naive_seconds = timed(naive, arguments, _REPEATS.value)
    print(
        json.dumps(
            {
                "trainable": _TRAINABLE.value,
                "prefix": _PREFIX.value,
                "branch": _BRANCH.value,
                "vocabulary": _VOCABULARY.value,
                "loss_ours": float(loss_a),
                "loss_naive": float(loss_b),
                "largest_relative_gradient_difference": difference,
                "ours_seconds": ours_seconds,
                "naive_seconds": naive_seconds,
                "ratio": naive_seconds / ours_seconds,
            }
        )
    )


if __name__ == "__main__":
    app.run(main)
