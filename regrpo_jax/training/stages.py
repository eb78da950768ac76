"""The stages `sft` and `rl`: what each of them trains on, and how; `loop` does the training."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from regrpo_jax.data.batches import collate_groups, padded_shape
from regrpo_jax.data.examples import Example
from regrpo_jax.data.groups import Group
from regrpo_jax.data.loader import Batches, group_batches, sft_batches
from regrpo_jax.records.candidates import GROUP_LABELS
from regrpo_jax.training.loop import RunContext, train_stage
from regrpo_jax.training.metrics import StageProgress
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.pacing import paced, ranking, reflection_confidence, stage_pacer
from regrpo_jax.training.parallel import DATA_AXIS, shard_batch
from regrpo_jax.training.scoring import Scorer, logprob_scorer
from regrpo_jax.training.state import TrainState
from regrpo_jax.training.steps import RegrpoSettings, Step, regrpo_step, sft_step

Tree = dict[str, Any]


def run_sft(
    context: RunContext,
    variables: Tree,
    examples: Callable[[], tuple[list[Example], list[Example]]],
    *,
    after: Mapping[str, int],
) -> Tree:
    """Warm start by supervised fine-tuning; returns the policy's variables after it.

    Args:
      variables: the policy before it.
      examples: makes the clean and the RoT examples; called only if there is something left to train.
      after: the stages before this one, and their updates.
    Raises:
      UserError: the checkpoint is of another run, or the loss is not finite.
    """
    config, sft = context.config, context.config.sft
    pacer = stage_pacer(config.data, updates=sft.steps) if sft.clean_ratio < 1 else None

    def batches() -> Batches:
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
            pacer=pacer,
        )

    optimizer = make_optimizer(sft, steps=sft.steps)
    step = sft_step(
        context.functions,
        optimizer,
        context.mesh,
        microbatches=sft.microbatches,
        chunk_size=context.logprob_chunk,
        dropout_key=context.dropout_key("sft"),
    )
    if pacer is not None:
        step = paced(step, pacer, reflection_confidence if pacer.needs_success else None)
    return train_stage(context, "sft", sft, variables, optimizer, step, batches, _sft_note, after)


def run_rl(
    context: RunContext, variables: Tree, groups: Callable[[], list[Group]], *, after: Mapping[str, int]
) -> Tree:
    """Offline ReGRPO on contrastive groups; the reference is the policy as it comes in. Returns its variables.

    Args:
      variables: the policy before it.
      groups: makes the groups; called only if there is something left to train.
      after: the stages before this one, and their updates.
    Raises:
      UserError: as `run_sft`.
    """
    config, rl = context.config, context.config.rl
    pacer = stage_pacer(config.data, updates=rl.steps)

    def batches() -> Batches:
        built = groups()
        return group_batches(
            built,
            reference_logprobs(context, variables, built, at_once=rl.groups_per_batch, microbatches=rl.microbatches),
            groups_per_batch=rl.groups_per_batch,
            image_token_id=context.image_token_id,
            prefix_buckets=config.data.prefix_buckets,
            branch_buckets=config.data.branch_buckets,
            seed=config.seed,
            pacer=pacer,
        )

    optimizer = make_optimizer(rl, steps=rl.steps)
    step = regrpo_step(
        context.functions,
        optimizer,
        context.mesh,
        regrpo_settings(rl),
        microbatches=rl.microbatches,
        chunk_size=context.logprob_chunk,
        dropout_key=context.dropout_key("rl"),
    )

    def named(step: Step) -> Step:
        def run(state: TrainState, frozen: Tree, batch: Any) -> tuple[TrainState, dict[str, Any]]:
            state, metrics = step(state, frozen, batch)
            per_branch = metrics.pop("branch/action_logprob")
            metrics |= {f"action_logprob/{label}": per_branch[index] for index, label in enumerate(GROUP_LABELS)}
            return state, metrics

        return run

    step = named(step)
    if pacer is not None and pacer.needs_success:
        step = ranking(step, _scorer(context, rl.microbatches), regrpo_settings(rl))
        step = paced(step, pacer, lambda metrics: (metrics["groups/recovery_first"], rl.groups_per_batch))
    elif pacer is not None:
        step = paced(step, pacer, None)
    return train_stage(context, "rl", rl, variables, optimizer, step, batches, _rl_note, after)


def regrpo_settings(rl: ml_collections.ConfigDict) -> RegrpoSettings:
    """The objective's numbers from `config.rl`."""
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


def reference_logprobs(
    context: RunContext, variables: Tree, groups: Sequence[Group], *, at_once: int, microbatches: int
) -> list[np.ndarray]:
    """log pi_ref of every group, computed once: offline they are constants.  # per group [branch, token]

    Only groups that are padded alike share a pass. So a group's log-probs do not depend on which others there are, and
    a stage that is given more updates goes on with the numbers that it had.

    Args:
      at_once: groups of a pass, or a few more where the devices and microbatches want it.
      microbatches: parts that each device visits one after another, as the stage's updates do.
    """
    buckets = {name: context.config.data[name] for name in ("prefix_buckets", "branch_buckets")}
    score = _scorer(context, microbatches)
    share = context.mesh.shape[DATA_AXIS] * microbatches
    rows = -(-at_once // share) * share
    shapes = [padded_shape(group, **buckets) for group in groups]
    scored: list[np.ndarray] = [np.zeros((0, 0))] * len(groups)
    with StageProgress("reference", len(groups)) as progress:
        for chosen in _alike(shapes, rows):
            padded = (chosen * rows)[:rows]
            batch = collate_groups(
                [groups[index] for index in padded],
                [np.zeros((len(groups[index].branches), 0), np.float32) for index in padded],
                image_token_id=context.image_token_id,
                **buckets,
            )
            logprobs = np.asarray(score(variables, shard_batch(batch, context.mesh)))
            for row, index in enumerate(chosen):
                longest = max(len(branch.tokens) for branch in groups[index].branches)
                scored[index] = logprobs[row, :, :longest]
            progress.advance(len(chosen), "log-probs of the frozen reference")
    return scored


def _alike(shapes: Sequence[tuple[int, ...]], most: int) -> Iterator[list[int]]:
    """The indices of equal shapes, at most so many at a time."""
    order = sorted(range(len(shapes)), key=lambda index: shapes[index])
    for _, members in itertools.groupby(order, key=lambda index: shapes[index]):
        together = list(members)
        yield from (together[start : start + most] for start in range(0, len(together), most))


def _scorer(context: RunContext, microbatches: int) -> Scorer:
    return logprob_scorer(context.functions, context.mesh, microbatches=microbatches, chunk_size=context.logprob_chunk)


def _sft_note(values: dict[str, float], seconds: float) -> str:
    return f"loss {values['loss']:.3f}  {values['tokens_per_second']:.0f} tokens/s"


def _rl_note(values: dict[str, float], seconds: float) -> str:
    kl = values["action/kl"]
    return (
        f"reward {values['reward']:.3f}  KL {kl:.4f}  zero-variance groups {values['groups/dropped_share']:.0%}  "
        f"{values['tokens_per_second']:.0f} tokens/s"
    )
