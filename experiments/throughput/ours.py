"""What is timed of ours: the update of the stage `rl`, its reference, prefill and decode, and an update's parts."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.group_update.benchmark import BRANCHES
from regrpo_jax.config.base_config import base_config, stage_section
from regrpo_jax.data.batches import GroupBatch
from regrpo_jax.models.attention import CAUSAL_BLOCK
from regrpo_jax.models.flops import ForwardFlops, Trained, Work, branch, forward_flops, sequence
from regrpo_jax.models.inputs import TokenBlock
from regrpo_jax.models.logprobs import default_chunk, token_logprobs
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.sampler import Prompt, generate, start
from regrpo_jax.models.token_choice import sampling_controls
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.parallel import device_mesh
from regrpo_jax.training.scoring import logprob_scorer
from regrpo_jax.training.state import initial_state
from regrpo_jax.training.steps import RegrpoSettings, regrpo_settings, regrpo_step, rewards_and_advantages

Tree = dict[str, Any]
Call = Callable[[], Any]


@dataclasses.dataclass(frozen=True)
class Policy:
    """A policy and what is trained of it: {"lora": ..} over frozen weights, or {"params": ..}."""

    functions: PolicyFunctions
    trainable: Tree
    frozen: Tree

    @property
    def variables(self) -> Tree:
        return {**self.frozen, **self.trainable}

    @property
    def trained(self) -> Trained:
        numbers = sum(array.size for array in jax.tree.leaves(self.trainable.get("lora", {})))
        return Trained(weights="params" in self.trainable, adapter=numbers)


def settings() -> RegrpoSettings:
    """The objective as `config.rl` has it, with the authors' estimator of the KL."""
    config = base_config()
    config.objective.kl_estimator = "k1"
    return regrpo_settings(stage_section(config, "rl"))


def group_work(prefix: int, length: int, *, padded: bool = False) -> Work:
    """Of a group of `make_group`; padded: with the pairs that masks remove, which our reference attention visits."""
    if not padded:
        branches = [branch(length, prefix=prefix - 1, scored=length)] * BRANCHES
        return sum(branches, sequence(prefix - 1))
    ends = [*range(CAUSAL_BLOCK, prefix - 1, CAUSAL_BLOCK), prefix - 1]
    pairs = sum((end - start) * end for start, end in itertools.pairwise([0, *ends])) + BRANCHES * length * (
        prefix - 1 + length
    )
    return Work(prefix - 1 + BRANCHES * length, pairs, BRANCHES * length)


def advantages_of(batch: GroupBatch) -> np.ndarray:
    """As the update computes them.  # [group, branch]"""
    return np.asarray(rewards_and_advantages(jax.tree.map(jnp.asarray, batch), settings())[1])


def reference_pass(policy: Policy, batch: GroupBatch) -> Callable[[], jax.Array]:
    """() -> log pi_ref of a group, the policy without its adapter."""
    chunk = default_chunk(policy.functions.config.vocab_size)
    score = logprob_scorer(policy.functions, device_mesh(), microbatches=1, chunk_size=chunk)
    reference = policy.frozen or policy.trainable
    return lambda: score(reference, batch)


def update(policy: Policy, batch: GroupBatch) -> Callable[[], jax.Array]:
    """() -> loss of one more update, optimizer included; the reference's log-probs are in the batch."""
    config = base_config()
    config.optimizer.warmup_steps = 0
    rl = stage_section(config, "rl")
    optimizer = make_optimizer(rl, steps=rl.steps)
    chunk = default_chunk(policy.functions.config.vocab_size)
    step = regrpo_step(policy.functions, optimizer, device_mesh(), settings(), microbatches=1, chunk_size=chunk)
    state = initial_state(policy.trainable, optimizer)

    def run() -> jax.Array:
        nonlocal state
        state, metrics = step(state, policy.frozen, batch)
        return metrics["loss"]

    return run


def prompt_of(batch: GroupBatch) -> Prompt:
    """The group's prefix, to be gone on with."""
    prefix = batch.prefix.tokens.shape[1]
    return Prompt(
        prefix=batch.prefix,
        images=None,
        last_token=batch.branches.tokens[:, 0, 0].astype(np.int32),
        next_position=np.full(1, prefix + 1, np.int32),
        draw_ids=np.arange(1, dtype=np.int32),
    )


def prefill_and_decode(policy: Policy, batch: GroupBatch, new: int) -> tuple[Call, Call]:
    """() -> a session after its prefix; () -> one prefix and `new` tokens of each branch, drawn greedily."""
    prompt, variables, key = prompt_of(batch), policy.variables, jax.random.key(0)
    greedy = sampling_controls(max_tokens=new, stops=(), temperature=0.0)

    def prefill() -> Any:
        return start(policy.functions, variables, prompt, key, branches=BRANCHES, capacity=new)

    def both() -> Any:
        return generate(policy.functions, variables, prefill(), greedy)[0].tokens

    return prefill, both


def parts(policy: Policy, batch: GroupBatch) -> dict[str, tuple[Call, ForwardFlops]]:
    """Name -> (a call, its forward FLOPs) of what a forward pass consists of."""
    functions, config, variables = policy.functions, policy.functions.config, policy.variables
    prefix, length = batch.prefix.tokens.shape[1], batch.targets.shape[-1]
    work = {
        "prefix": sequence(prefix),
        "branches": sum([branch(length, prefix=prefix)] * BRANCHES, Work()),
        "head": Work(scored=BRANCHES * length),
    }
    run_prefix = jax.jit(lambda variables, block: functions.run_prefix(variables, block, None))
    run_branches = jax.jit(functions.run_branches)
    score = jax.jit(
        lambda variables, hidden, targets: token_logprobs(
            hidden, functions.head(variables), targets, targets >= 0, chunk_size=default_chunk(config.vocab_size)
        )
    )
    block = jax.tree.map(jnp.asarray, batch.prefix)
    branches: TokenBlock = jax.tree.map(jnp.asarray, batch.branches)
    cache = functools.cache(lambda: run_prefix(variables, block)[1])
    hidden = functools.cache(lambda: run_branches(variables, branches, cache()))
    calls: dict[str, Call] = {
        "prefix": lambda: run_prefix(variables, block),
        "branches": lambda: run_branches(variables, branches, cache()),
        "head": lambda: score(variables, hidden(), batch.targets),
    }
    return {name: (call, forward_flops(config, work[name], policy.trained)) for name, call in calls.items()}
