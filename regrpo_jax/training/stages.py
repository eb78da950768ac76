"""The stages `sft` and `rl`: data in; updates, metrics and checkpoints out; a second start resumes."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh

from regrpo_jax.data.batches import collate_groups
from regrpo_jax.data.examples import Example
from regrpo_jax.data.groups import Group
from regrpo_jax.data.loader import group_batches, sft_batches
from regrpo_jax.errors import UserError
from regrpo_jax.models.policy import PolicyFunctions
from regrpo_jax.records.candidates import GROUP_LABELS
from regrpo_jax.training.checkpoints import StageCheckpoints
from regrpo_jax.training.metrics import MetricsWriter, StageProgress
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.parallel import check_divisible, replicate, shard_batch
from regrpo_jax.training.state import TrainState, initial_state, split_variables
from regrpo_jax.training.steps import RegrpoSettings, Step, group_logprobs, regrpo_step, sft_step

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class RunContext:
    """What every stage needs.

    Attributes:
      config: the whole configuration.
      workdir: the run's folder.
      functions: the policy.
      mesh: devices for data parallelism.
      image_token_id: the id that stands for image features, -1 without images.
      writer: the run's metrics.
    """

    config: ml_collections.ConfigDict
    workdir: Path
    functions: PolicyFunctions
    mesh: Mesh
    image_token_id: int
    writer: MetricsWriter

    def key(self, purpose: int) -> jax.Array:
        """A random key of its own for each purpose, all from the one seed."""
        return jax.random.fold_in(jax.random.key(self.config.seed), purpose)


def run_sft(context: RunContext, variables: Tree, examples: Callable[[], tuple[list[Example], list[Example]]]) -> Tree:
    """Warm start by supervised fine-tuning; returns the policy's variables after it.

    Args:
      variables: the policy before it.
      examples: makes the clean and the RoT examples; called only if there is something left to train.
    """
    config, sft = context.config, context.config.sft
    check_divisible(sft.batch_rows, sft.microbatches, context.mesh, key="config.sft.batch_rows")

    def batches() -> grain.DatasetIterator:
        clean, rot = examples()
        return sft_batches(
            clean,
            rot,
            clean_ratio=sft.clean_ratio,
            batch_rows=sft.batch_rows,
            row_length=sft.row_length,
            row_patches=sft.row_patches if context.functions.config.vision else 0,
            image_token_id=context.image_token_id,
            seed=config.seed,
        )

    optimizer = make_optimizer(sft, steps=sft.steps)
    step = sft_step(
        context.functions,
        optimizer,
        context.mesh,
        microbatches=sft.microbatches,
        chunk_size=config.model.logprob_chunk,
    )
    return _train(context, "sft", sft, variables, optimizer, step, batches, _sft_note)


def run_rl(context: RunContext, variables: Tree, groups: Callable[[], list[Group]]) -> Tree:
    """Offline ReGRPO on contrastive groups; the reference is the policy as it comes in. Returns its variables.

    Args:
      variables: the policy before it.
      groups: makes the groups; called only if there is something left to train.
    """
    config, rl = context.config, context.config.rl
    check_divisible(rl.groups_per_batch, rl.microbatches, context.mesh, key="config.rl.groups_per_batch")

    def batches() -> grain.DatasetIterator:
        built = groups()
        return group_batches(
            built,
            reference_logprobs(context, variables, built),
            groups_per_batch=rl.groups_per_batch,
            image_token_id=context.image_token_id,
            prefix_buckets=config.data.prefix_buckets,
            branch_buckets=config.data.branch_buckets,
            seed=config.seed,
        )

    optimizer = make_optimizer(rl, steps=rl.steps)
    step = regrpo_step(
        context.functions,
        optimizer,
        context.mesh,
        regrpo_settings(rl),
        microbatches=rl.microbatches,
        chunk_size=config.model.logprob_chunk,
    )

    def named(step: Step) -> Step:
        def run(state: TrainState, frozen: Tree, batch: Any) -> tuple[TrainState, dict[str, Any]]:
            state, metrics = step(state, frozen, batch)
            per_branch = metrics.pop("branch/action_logprob")
            metrics |= {f"action_logprob/{label}": per_branch[index] for index, label in enumerate(GROUP_LABELS)}
            return state, metrics

        return run

    return _train(context, "rl", rl, variables, optimizer, named(step), batches, _rl_note)


def regrpo_settings(rl: ml_collections.ConfigDict) -> RegrpoSettings:
    """The objective's numbers from `config.rl`.

    Raises:
      UserError: a choice that does not exist.
    """
    if rl.zero_variance not in ("skip", "keep_kl"):
        raise UserError(f"config.rl.zero_variance is {rl.zero_variance!r}; choose 'skip' or 'keep_kl'")
    if rl.kl_estimator not in ("k1", "k2", "k3", "k3_release"):
        raise UserError(f"config.rl.kl_estimator is {rl.kl_estimator!r}; choose k1, k2, k3 or k3_release")
    if rl.baseline not in ("mean", "leave_one_out"):
        raise UserError(f"config.rl.baseline is {rl.baseline!r}; choose 'mean' or 'leave_one_out'")
    return RegrpoSettings(
        lambda_exec=rl.lambda_exec,
        eta=rl.eta,
        lambda_val=rl.lambda_val,
        beta=rl.beta,
        kl_estimator=rl.kl_estimator,
        baseline=rl.baseline,
        normalize_advantages=rl.normalize_advantages,
        advantage_clip=rl.advantage_clip,
        two_stream_alpha=rl.two_stream_alpha,
        length_normalize=rl.length_normalize,
        zero_variance=rl.zero_variance,
    )


def reference_logprobs(context: RunContext, variables: Tree, groups: Sequence[Group]) -> list[np.ndarray]:
    """log pi_ref of every group, computed once: offline they are constants.  # per group [branch, token]"""
    data, size = context.config.data, context.config.rl.groups_per_batch
    score = jax.jit(
        lambda variables, batch: group_logprobs(
            context.functions, variables, batch, chunk_size=context.config.model.logprob_chunk
        )
    )
    # Groups of like length share a batch, so that short ones are not padded to the longest.
    order = sorted(range(len(groups)), key=lambda i: (len(groups[i].prefix), groups[i].record_id))
    scored: list[np.ndarray] = [np.zeros((0, 0))] * len(groups)
    with StageProgress("reference", len(groups)) as progress:
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            padded = (chosen * size)[:size]
            batch = collate_groups(
                [groups[index] for index in padded],
                [np.zeros((len(groups[index].branches), 0), np.float32) for index in padded],
                image_token_id=context.image_token_id,
                prefix_buckets=data.prefix_buckets,
                branch_buckets=data.branch_buckets,
            )
            logprobs = np.asarray(score(variables, shard_batch(batch, context.mesh)))
            for row, index in enumerate(chosen):
                longest = max(len(branch.tokens) for branch in groups[index].branches)
                scored[index] = logprobs[row, :, :longest]
            progress.advance(len(chosen), "log-probs of the frozen reference")
    return scored


def _train(
    context: RunContext,
    name: str,
    stage: ml_collections.ConfigDict,
    variables: Tree,
    optimizer: optax.GradientTransformation,
    step: Step,
    make_batches: Callable[[], grain.DatasetIterator],
    note: Callable[[dict[str, float], float], str],
) -> Tree:
    """The loop of a stage; returns the policy's variables after it."""
    config = context.config
    if config.checkpoint.every % config.log_every:
        raise UserError(
            f"config.checkpoint.every={config.checkpoint.every} must be a multiple of config.log_every="
            f"{config.log_every}, so that a resumed run writes the same lines as an uninterrupted one"
        )
    trainable, frozen = split_variables(
        variables,
        stage.trainable,
        context.key(1 if name == "sft" else 2),
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        targets=tuple(config.lora.targets),
    )
    state, frozen = replicate((initial_state(trainable, optimizer), frozen), context.mesh)
    checkpoints = StageCheckpoints(context.workdir / "checkpoints" / name, keep=config.checkpoint.keep)
    data_state = None
    if checkpoints.latest_step() is not None:
        state, data_state = checkpoints.restore(state)
    done = int(state.step)
    if done >= stage.steps:
        print(f"{name}: complete at step {done}", flush=True)
        checkpoints.close()
        return {**frozen, **state.trainable}
    batches = make_batches()
    if data_state is not None:
        batches.set_state(data_state)
        print(f"{name}: resuming at step {done} of {stage.steps}", flush=True)
    context.writer.drop_after(name, done)
    since = _Interval()
    with StageProgress(name, stage.steps, done=done) as progress:
        for number in range(done + 1, stage.steps + 1):
            state, metrics = step(state, frozen, shard_batch(next(batches), context.mesh))
            since.add(metrics)
            shown = ""
            if number % config.log_every == 0 or number == stage.steps:
                values, seconds = since.flush()
                _check_finite(name, number, values)
                context.writer.write(name, number, values | {"seconds": seconds})
                shown = note(values, seconds)
            progress.advance(1, shown)
            if number % config.checkpoint.every == 0 or number == stage.steps:
                checkpoints.save(state, batches.get_state())
    checkpoints.close()
    return {**frozen, **state.trainable}


class _Interval:
    """Means of metrics since the last line, and the time they took; arrays are fetched only when a line is due."""

    def __init__(self) -> None:
        self._metrics: list[dict[str, Any]] = []
        self._last = time.monotonic()

    def add(self, metrics: dict[str, Any]) -> None:
        self._metrics.append(metrics)

    def flush(self) -> tuple[dict[str, float], float]:
        fetched = jax.device_get(self._metrics)
        self._metrics = []
        now = time.monotonic()
        seconds, self._last = max(now - self._last, 1e-9), now
        means = {name: float(np.mean([entry[name] for entry in fetched])) for name in fetched[0]}
        means["tokens_per_second"] = means.pop("tokens") * len(fetched) / seconds
        return means, seconds


def _check_finite(name: str, step: int, values: dict[str, float]) -> None:
    broken = [key for key, value in values.items() if not np.isfinite(value)]
    if broken:
        raise UserError(
            f"{name} step {step}: {', '.join(broken)} is not finite; lower config.{name}.learning_rate. "
            "The last checkpoint is from before this step."
        )
    if name == "rl" and values.get("groups/dropped_share", 0.0) == 1.0:
        print(
            f"rl step {step}: every group since the last line had zero reward variance: nothing was learnt",
            flush=True,
        )


def _sft_note(values: dict[str, float], seconds: float) -> str:
    return f"loss {values['loss']:.3f}  {values['tokens_per_second']:.0f} tokens/s"


def _rl_note(values: dict[str, float], seconds: float) -> str:
    kl = values["action/kl"]
    return (
        f"reward {values['reward']:.3f}  KL {kl:.4f}  zero-variance groups {values['groups/dropped_share']:.0%}  "
        f"{values['tokens_per_second']:.0f} tokens/s"
    )
