"""The programs of a run as its stages compile them, on shapes in the place of arrays."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from regrpo_jax.config.base_config import PLANNED, stage_section
from regrpo_jax.data.batches import GroupBatch
from regrpo_jax.data.online_batches import OnlineBatch
from regrpo_jax.models.decoding_state import APART, with_row_axes
from regrpo_jax.models.drawing import draw_compiled, empty_turn
from regrpo_jax.models.flops import (
    Trained,
    Work,
    branch,
    forward_flops,
    pictures,
    recomputed_flops,
    sequence,
    training_flops,
)
from regrpo_jax.models.inputs import ImagePatches
from regrpo_jax.models.logprobs import default_chunk
from regrpo_jax.models.play_sharding import row_sharding
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.models.sampler import layers_together, start
from regrpo_jax.models.sharding import param_shardings
from regrpo_jax.models.token_choice import sampling_controls
from regrpo_jax.plan.arrays import group_shapes, online_shapes, prompt_shapes, sft_shapes
from regrpo_jax.rollouts.live_rows import slot_count
from regrpo_jax.rollouts.sampler_policy import CHUNK, SamplerPolicy
from regrpo_jax.training.online_step import ScoredBatch, online_settings, online_step
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.parallel import ROWS, mesh_in_context
from regrpo_jax.training.scoring import logprob_scorer
from regrpo_jax.training.state import adapter_settings, frozen_part, initial_state, split_variables, trained_policy
from regrpo_jax.training.steps import regrpo_settings, regrpo_step, sft_step

Tree = Any


@dataclasses.dataclass(frozen=True)
class Program:
    """One compiled step, before it is compiled.

    Attributes:
      name: one of `config.plan.steps`.
      lower: traces it.
      weights, optimizer, batch: bytes of a device that its arguments take; a batch of play is its caches.
      beside: bytes of a device that lie there meanwhile and are no argument.
      model_flops: that its work asks for, all devices together, of a decoded token for a decode step.
      extra_flops: that the backward pass computes again.
    """

    name: str
    lower: Callable[[], jax.stages.Lowered]
    weights: float
    optimizer: float
    batch: float
    beside: float
    model_flops: int
    extra_flops: int


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What all programs of a configuration share."""

    config: ConfigDict
    functions: PolicyFunctions
    mesh: Mesh
    platform: str

    def placed(self, tree: Tree) -> Tree:
        """Weights and states, split by the rules."""
        return jax.tree.map(_with_sharding, tree, param_shardings(tree, self.mesh))

    def rows(self, tree: Tree) -> Tree:
        """A batch, its rows split over the devices."""
        return jax.tree.map(lambda array: _with_sharding(array, NamedSharding(self.mesh, ROWS)), tree)

    def played_rows(self, tree: Tree) -> Tree:
        """What play holds, each row on its devices."""
        return jax.tree.map(lambda array: _with_sharding(array, row_sharding(array, self.mesh)), tree)

    @functools.cached_property
    def base(self) -> Tree:
        """The policy as it is loaded."""
        return self.placed(jax.eval_shape(self.functions.init, jax.random.key(0)))

    @property
    def dropout_key(self) -> Any:
        """What an adapter's dropout is drawn from, where there is any."""
        return jax.random.key(0) if self.functions.config.lora_dropout else None

    def played(self, stage: str) -> Tree:
        """The policy as a stage scores and plays it, with its adapter where it trains one."""
        state, frozen, _ = self.state(stage)
        policy = functools.partial(trained_policy, config=self.functions.config)
        return self.placed(jax.eval_shape(policy, state.trainable, frozen))

    def state(self, stage: str) -> tuple[Tree, Tree, Any]:
        """(train state, frozen weights, optimizer) of a stage."""
        section = stage_section(self.config, stage)
        optimizer = make_optimizer(section, steps=max(section.steps, 1))
        settings, policy = adapter_settings(self.config.lora), self.functions.config

        def make(variables: Tree) -> Tree:
            return split_variables(variables, section.trainable, jax.random.key(0), policy, settings)[0]

        trainable = jax.eval_shape(make, self.base)
        state = jax.eval_shape(lambda tree: initial_state(tree, optimizer), trainable)
        return self.placed(state), self.placed(frozen_part(self.base, section.trainable)), optimizer

    def trained(self, state: Any) -> Trained:
        """What an update trains, for the count of its operations."""
        if "params" in state.trainable:
            return Trained()
        towers = state.trainable["lora"].get("vision", {})
        both = [sum(math.prod(array.shape) for array in jax.tree.leaves(tree)) for tree in (state.trainable, towers)]
        return Trained(weights=False, adapter=both[0] - both[1], tower_adapter=both[1])


def programs(
    config: ConfigDict, functions: PolicyFunctions, mesh: Mesh, platform: str, steps: tuple[str, ...]
) -> list[Program]:
    """The programs of `steps`.

    Args:
      config: "auto" is decided in it.
      platform: that they are compiled for.
    """
    parts = _Parts(config, functions, mesh, platform)
    makers: dict[str, Callable[[_Parts], Program]] = {
        "sft": _sft,
        "rl": _rl,
        "score": _score,
        "online": _online,
        "prefill": _prefill,
        "decode": _decode,
    }
    return [makers[name](parts) for name in PLANNED if name in steps]


def _sft(parts: _Parts) -> Program:
    config, functions = parts.config, parts.functions
    state, frozen, optimizer = parts.state("sft")
    batch = sft_shapes(config, functions.config)
    microbatches = stage_section(config, "sft").microbatches
    shared = {"microbatches": microbatches, "chunk_size": _chunk(functions), "dropout_key": parts.dropout_key}
    step = sft_step(functions, optimizer, parts.mesh, **shared)
    rows, length = batch.block.tokens.shape
    work = _times(rows, sequence(length, scored=length // 4)) + _seen(batch.images)
    return _update("sft", parts, step, state, frozen, batch, work)


def _rl(parts: _Parts) -> Program:
    config, functions = parts.config, parts.functions
    state, frozen, optimizer = parts.state("rl")
    section = stage_section(config, "rl")
    shared = {
        "microbatches": section.microbatches,
        "chunk_size": _chunk(functions),
        "dropout_key": parts.dropout_key,
    }
    step = regrpo_step(functions, optimizer, parts.mesh, regrpo_settings(section), **shared)
    batch = group_shapes(config, functions.config)
    return _update("rl", parts, step, state, frozen, batch, _group_work(batch))


def _online(parts: _Parts) -> Program:
    config, functions = parts.config, parts.functions
    state, frozen, optimizer = parts.state("online")
    shared = {"microbatches": stage_section(config, "online").microbatches, "chunk_size": _chunk(functions)}
    step = online_step(functions, optimizer, parts.mesh, online_settings(config), **shared)
    rollouts = online_shapes(config, functions.config)
    batch = ScoredBatch(rollouts, rollouts.behaviour_logprobs, rollouts.behaviour_logprobs)
    program = _update("online", parts, step, state, frozen, batch, _group_work(rollouts))
    full = "params" in state.trainable  # the reference is a whole policy of its own then
    return dataclasses.replace(program, beside=_bytes(parts.base) if full else 0.0)


def _score(parts: _Parts) -> Program:
    config, functions = parts.config, parts.functions
    shared = {"microbatches": stage_section(config, "online").microbatches, "chunk_size": _chunk(functions)}
    score: Any = logprob_scorer(functions, parts.mesh, **shared)
    variables, batch = parts.played("online"), online_shapes(config, functions.config)
    rows = parts.rows(batch)
    return _forward("score", parts, lambda: score.lower(variables, rows), variables, rows, _group_work(batch))


def _prefill(parts: _Parts) -> Program:
    config, functions = parts.config, parts.functions
    prompts = parts.played_rows(prompt_shapes(config, functions.config, config.online.tasks))
    key, variables = parts.played_rows(jax.eval_shape(jax.random.key, 0)), parts.played("online")

    def lower() -> jax.stages.Lowered:
        with mesh_in_context(parts.mesh):
            return start.lower(
                functions,
                variables,
                prompts,
                key,
                branches=config.online.branches,
                capacity=slot_count(1),
                parts=math.gcd(config.online.tasks, stage_section(config, "online").microbatches),
                layers_together=layers_together(parts.platform),
            )

    rows, length = prompts.prefix.tokens.shape
    work = _times(rows, sequence(length)) + _seen(prompts.images)
    return _forward("prefill", parts, lower, variables, prompts, work)


def _decode(parts: _Parts) -> Program:
    """One turn of the loop that draws, all branches of an update live, with a branch's tokens already in the cache."""
    config, functions = parts.config, parts.functions
    lanes, online = SamplerPolicy.lanes, config.online
    rows = online.tasks * -(-online.branches // lanes)
    capacity = slot_count(max(config.data.branch_buckets))
    together = layers_together(parts.platform)
    make = functools.partial(start, branches=lanes, capacity=capacity, layers_together=together)
    prompts = prompt_shapes(config, functions.config, rows)
    key, variables = jax.eval_shape(jax.random.key, 0), parts.played("online")
    decoding = jax.eval_shape(functools.partial(make, functions), variables, prompts, key)
    decoding = with_row_axes(lambda array, axis: _with_sharding(array, row_sharding(array, parts.mesh, axis)), decoding)
    sampling = parts.played_rows(jax.eval_shape(lambda: sampling_controls(max_tokens=CHUNK, stops=((0,),))))
    budget = jax.ShapeDtypeStruct((rows, lanes), jnp.int32)
    turn = parts.played_rows(jax.eval_shape(functools.partial(empty_turn, dtype=jnp.float32), budget, sampling))
    until = parts.played_rows(jax.ShapeDtypeStruct((), jnp.int32))
    rest = dataclasses.replace(decoding, cache=APART)

    def lower() -> jax.stages.Lowered:
        with mesh_in_context(parts.mesh):
            return draw_compiled.lower(
                functions, variables, decoding.cache, rest, turn, sampling, until, slots=capacity
            )

    seen = max(config.data.prefix_buckets) + max(config.data.branch_buckets)
    work = _times(rows * lanes, branch(1, prefix=seen - 1, scored=1))
    return _forward("decode", parts, lower, variables, decoding, work)


def _forward(
    name: str, parts: _Parts, lower: Callable[[], jax.stages.Lowered], variables: Tree, held: Tree, work: Work
) -> Program:
    """Of the stage `online`, whose moments lie beside it; held: its rows, prompts or caches."""
    state, _, _ = parts.state("online")
    return Program(
        name,
        lower,
        weights=_bytes(variables),
        optimizer=0.0,
        batch=_bytes(held),
        beside=_bytes(state.optimizer_state),
        model_flops=forward_flops(parts.functions.config, work).total,
        extra_flops=0,
    )


def _update(name: str, parts: _Parts, step: Any, state: Any, frozen: Tree, batch: Tree, work: Work) -> Program:
    rows, policy, trained = parts.rows(batch), parts.functions.config, parts.trained(state)
    return Program(
        name,
        lambda: step.lower(state, frozen, rows),
        weights=_bytes((state.trainable, frozen)),
        optimizer=_bytes(state.optimizer_state),
        batch=_bytes(rows),
        beside=0.0,
        model_flops=training_flops(forward_flops(policy, work, trained), trained),
        extra_flops=recomputed_flops(policy, work, trained),
    )


def _group_work(batch: GroupBatch | OnlineBatch) -> Work:
    groups, branches, length = batch.targets.shape
    prefix = batch.prefix.tokens.shape[1]
    one = sequence(prefix) + _times(branches, branch(length, prefix=prefix, scored=length))
    return _times(groups, one) + _seen(batch.images)


def _seen(images: ImagePatches | None) -> Work:
    """Of patches that fill their blocks."""
    if images is None:
        return Work()
    rows, patches = images.patches.shape[:2]
    block = images.block or patches
    return pictures([block] * (rows * patches // block))


def _times(count: int, work: Work) -> Work:
    return Work(*(count * part for part in dataclasses.astuple(work)))


def _chunk(functions: PolicyFunctions) -> int:
    return default_chunk(functions.config.vocab_size)


def _bytes(tree: Tree) -> float:
    """Of a device."""
    return float(
        sum(
            math.prod(array.sharding.shard_shape(array.shape)) * jnp.dtype(array.dtype).itemsize
            if not jnp.issubdtype(array.dtype, jax.dtypes.extended)
            else 0
            for array in jax.tree.leaves(tree)
        )
    )


def _with_sharding(array: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=sharding)
