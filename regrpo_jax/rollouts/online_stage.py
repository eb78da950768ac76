"""The online stage: play, judge, update, in turn; the policy learns from what it did itself.

Everything in an update is a function of (config, number of the update, policy), so that a run which was stopped goes on
exactly where it was, and a seed decides it all.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from regrpo_jax.agent.loop_settings import LoopSettings
from regrpo_jax.agent.prompt import system_text
from regrpo_jax.agent.rollout import RolloutGroup
from regrpo_jax.data.examples import ConversationReader
from regrpo_jax.data.online_batches import OnlineBatch, collate_rollouts
from regrpo_jax.data.rollout_buffer import GroupKey, RolloutBuffer
from regrpo_jax.data.rollout_credit import CreditSettings, is_learnable
from regrpo_jax.engine.tool_shapes import loaded_tools
from regrpo_jax.environments.environment import Environment
from regrpo_jax.environments.starting import start_environment
from regrpo_jax.environments.task import Task
from regrpo_jax.environments.toolrepair import LOADERS, make_suite
from regrpo_jax.models.sharding import place
from regrpo_jax.rollouts.collect import CollectSettings, Expected, collect_groups
from regrpo_jax.rollouts.rollout_metrics import alarms, rollout_metrics, rollouts_of
from regrpo_jax.rollouts.sampler_policy import SamplerPolicy
from regrpo_jax.rollouts.states import with_forced_failures
from regrpo_jax.training.checkpoints import StageCheckpoints
from regrpo_jax.training.loop import RunContext, check_same_start, check_values
from regrpo_jax.training.metrics import StageProgress
from regrpo_jax.training.online_step import OnlineSettings, online_scorer, online_step, online_update
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.parallel import shard_batch
from regrpo_jax.training.state import TrainState, adapter_settings, initial_state, split_variables

Tree = dict[str, Any]
_TRAINING_SEEDS = 1_000_000  # suites of updates; far from the seeds that people type for evaluation


def run_online(context: RunContext, variables: Tree, reader: ConversationReader, *, after: Mapping[str, int]) -> Tree:
    """Trains the policy on its own episodes; returns its variables.

    Args:
      variables: the policy before it, which is the reference as well.
      after: the stages before this one, and their updates.
    Raises:
      UserError: the checkpoint is of another run, the suite cannot be played, or a number is not finite.
    """
    config, online = context.config, context.config.online
    trainable, frozen = split_variables(
        variables, online.trainable, context.key(5), context.functions.config, adapter_settings(config.lora)
    )
    optimizer = make_optimizer(online, steps=online.steps * online.epochs)
    state, frozen = place((initial_state(jax.tree.map(jnp.copy, trainable), optimizer), frozen), context.mesh)
    folder = context.workdir / "checkpoints" / "online"
    with contextlib.closing(StageCheckpoints(folder, keep=config.checkpoint.keep)) as checkpoints:
        if checkpoints.latest_step() is not None:
            state, position = checkpoints.restore(state)
            check_same_start("online", context.workdir, position["after"], after)
        if int(state.step) >= online.steps:
            print(f"online: complete at step {int(state.step)}", flush=True)
            return {**frozen, **state.trainable}
        with playing(config) as environment, RolloutBuffer(context.workdir / "rollouts") as buffer:
            run = _Online(context, reader, environment, buffer, optimizer, {**frozen, **trainable})
            state = run.train(state, frozen, lambda now: checkpoints.save(now, {"after": dict(after)}))
    return {**frozen, **state.trainable}


def playing(config: ConfigDict) -> Environment:
    """The environment of `config.online`'s suite, to be closed by the caller."""
    loader = LOADERS[config.online.profile]
    return start_environment(config.environment, loader, max_steps=config.agent.max_steps + 1)


def loop_settings(config: ConfigDict) -> LoopSettings:
    """The rules of an episode; a bare retry never opens the gate."""
    gate = "never" if config.online.algorithm == "grpo" else config.agent.gate
    return LoopSettings(**dict(config.agent.items()) | {"gate": gate})


def collect_settings(config: ConfigDict, workdir: Any, *, branches: int) -> CollectSettings:
    """How groups are played."""
    profile = config.online.profile
    system = system_text(loaded_tools(LOADERS[profile]), brief=profile == "compact")
    return CollectSettings(loop_settings(config), branches, system, workdir / "rollouts" / "images")


def sampler_policy(
    context: RunContext, reader: ConversationReader, variables: Tree, *, temperature: float, version: int = 0
) -> SamplerPolicy:
    """The policy as a player of episodes."""
    data = context.config.data
    return SamplerPolicy(
        context.functions,
        variables,
        reader,
        prefix_buckets=tuple(data.prefix_buckets),
        branch_tokens=max(data.branch_buckets),
        temperature=temperature,
        version=version,
    )


class _Online:
    """What the updates of a stage share."""

    def __init__(
        self,
        context: RunContext,
        reader: ConversationReader,
        environment: Environment,
        buffer: RolloutBuffer,
        optimizer: Any,
        reference: Tree,
    ) -> None:
        self._context, self._reader, self._environment, self._buffer = context, reader, environment, buffer
        self._config, online = context.config, context.config.online
        self._settings = collect_settings(context.config, context.workdir, branches=online.branches)
        self._credit = credit_settings(online)
        self._expected: Expected = {}
        weight_cap = online.weight_cap
        settings = OnlineSettings(
            online.beta, online.kl_estimator, online.clip_low, online.clip_high, weight_cap, online.zero_variance
        )
        parts = {"microbatches": online.microbatches, "chunk_size": context.logprob_chunk}
        self._update = online_update(
            online_step(context.functions, optimizer, context.mesh, settings, **parts),
            online_scorer(context.functions, context.mesh, **parts),
            reference,
            epochs=online.epochs,
            recompute_stale=weight_cap is not None,
        )

    def train(self, state: TrainState, frozen: Tree, save: Any) -> TrainState:
        """The updates that are left, with their lines and checkpoints."""
        config, online, done = self._config, self._config.online, int(state.step)
        self._context.writer.drop_after("online", done)
        with StageProgress("online", online.steps, done=done) as progress:
            for number in range(done + 1, online.steps + 1):
                begun = time.monotonic()
                groups, seen, counts = self._groups(number, {**frozen, **state.trainable})
                played = time.monotonic()
                state, metrics = self._update(
                    state, frozen, shard_batch(self._batch(groups, number), self._context.mesh)
                )
                values = {name: float(value) for name, value in jax.device_get(metrics).items()}
                values |= {f"rollouts/{name}": value for name, value in seen.items() if value is not None}
                values |= {"seconds": time.monotonic() - begun, "seconds/play": played - begun}
                values |= {"rollouts/sampled_tokens": float(counts)}
                check_values("online", number, values)
                self._context.writer.write("online", number, values)
                progress.advance(1, _note(seen))
                if number % config.checkpoint.every == 0 or number == online.steps:
                    save(state)
        return state

    def _groups(self, number: int, variables: Tree) -> tuple[list[RolloutGroup], dict[str, float | None], int]:
        """The groups of an update, metrics of all that was played for it, and how many tokens that took.

        Groups that prefer nothing are refilled from further rounds, as many as `config.online.refills` allows.
        """
        online = self._config.online
        policy = sampler_policy(self._context, self._reader, variables, temperature=1.0, version=number - 1)
        chosen: list[RolloutGroup] = []
        played: list[RolloutGroup] = []
        tokens = 0
        for round_number in range(online.refills + 1):
            states = with_forced_failures(self._tasks(number, round_number), online.forced_failures, self._config.seed)
            found, counts = collect_groups(
                self._environment,
                policy,
                states,
                self._settings,
                seed=_seed(self._config.seed, number, round_number),
                first_group=round_number * online.tasks,
                expected=self._expected,
            )
            played += found
            tokens += counts.sampled_tokens
            self._write_down(number, found)
            chosen += [group for group in found if group.counted and is_learnable(group, self._credit)]
            if len(chosen) >= online.tasks:
                break
        values = rollout_metrics(rollouts_of(group for group in played if not group.forced))
        forced = [group for group in played if group.forced]
        if forced:
            values["forced_recovery"] = rollout_metrics(rollouts_of(forced))["success"]
        values["useful_groups"] = len(chosen) / len(played)
        for words in alarms(values):
            print(f"online step {number}: {words}", flush=True)
        rest = [group for group in played if all(group is not other for other in chosen)]
        used = (chosen + rest)[: online.tasks]
        self._buffer.add_update(number, [GroupKey(number, group.group) for group in used])
        return used, values, tokens

    def _tasks(self, number: int, round_number: int) -> list[Task]:
        online = self._config.online
        return make_suite(
            "train",
            online.tasks,
            _TRAINING_SEEDS + _seed(self._config.seed, number, round_number),
            online.profile,
            surprises=online.surprises,
            difficulties=online.difficulties,
            chosen=online.families,
        )

    def _write_down(self, number: int, groups: Sequence[RolloutGroup]) -> None:
        for group in groups:
            self._buffer.add_group(number, group, planned=len(group.rollouts))
            for rollout in group.rollouts:
                self._buffer.add_rollout(number, rollout)

    def _batch(self, groups: Sequence[RolloutGroup], number: int) -> OnlineBatch:
        online, data = self._config.online, self._config.data
        return collate_rollouts(
            groups,
            rows=online.tasks,
            branches=online.branches,
            credit=self._credit,
            policy_version=number - 1,
            image_token_id=self._context.image_token_id,
            prefix_buckets=data.prefix_buckets,
            branch_buckets=data.branch_buckets,
        )


def credit_settings(online: ConfigDict) -> CreditSettings:
    """How rollouts are judged; without reflections there is no cost."""
    return CreditSettings(
        success=online.success,
        lambda_exec=online.lambda_exec,
        eta=online.eta,
        lambda_val=online.lambda_val,
        baseline=online.baseline,
        normalize=online.normalize_advantages,
        clip_range=online.advantage_clip,
    )


def _seed(seed: int, number: int, round_number: int) -> int:
    return (seed * 10_007 + number) * 101 + round_number


def _note(values: Mapping[str, float | None]) -> str:
    def shown(name: str) -> str:
        value = values.get(name)
        return "-" if value is None else f"{value:.0%}"

    return (
        f"success {shown('success')}  first try {shown('first_attempt_success')}  recovery {shown('recovery')}  "
        f"needless {shown('needless')}  useful groups {shown('useful_groups')}"
    )
