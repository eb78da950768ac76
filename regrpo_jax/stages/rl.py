"""The stage `rl`: offline ReGRPO on groups of recorded candidates, for a policy that plays nothing."""

from collections.abc import Callable, Mapping
from typing import Any

from regrpo_jax.config.base_config import stage_section
from regrpo_jax.data.corpus import groups_to_visit
from regrpo_jax.data.groups import Group
from regrpo_jax.data.loader import Batches, group_batches
from regrpo_jax.records.candidates import GROUP_LABELS
from regrpo_jax.run.learner import Learner
from regrpo_jax.run.run import Run
from regrpo_jax.training.batch_flops import ONE_PASS, Passes
from regrpo_jax.training.loop import RunContext, recorded, train_stage
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.pacing import paced, ranking, stage_pacer
from regrpo_jax.training.parallel import rows_here
from regrpo_jax.training.reference import kept_reference_logprobs, scorer
from regrpo_jax.training.state import TrainState
from regrpo_jax.training.steps import regrpo_settings, regrpo_step
from regrpo_jax.training.train_step import Step

Tree = dict[str, Any]


def run(run: Run) -> None:
    """Trains the policy on the RoT records of the run."""
    learner = run.learner
    learner.variables = run_rl(learner.context, learner.variables, lambda: _groups(learner), after=run.trained)


def _groups(learner: Learner) -> list[Group]:
    """As many as the stage visits; all of them where a curriculum orders them first."""
    config = learner.context.config
    visits = config.rl.steps * config.rl.groups_per_batch
    most = visits if config.data.curriculum == "none" else None
    return groups_to_visit(learner.corpus.rot, learner.reader, config, most=most)


def run_rl(
    context: RunContext, variables: Tree, groups: Callable[[], list[Group]], *, after: Mapping[str, int]
) -> Tree:
    """Offline ReGRPO on contrastive groups; the reference is the policy as it comes in. Returns its variables.

    Args:
      variables: the policy before it.
      groups: makes the groups; called only if there is something left to train.
      after: the stages before this one, and their updates.
    Raises:
      UserError: the checkpoint is of another run, or the loss is not finite.
    """
    config, rl = context.config, stage_section(context.config, "rl")
    pacer = stage_pacer(config.data, updates=rl.steps)

    def batches() -> Batches:
        built = groups()
        return group_batches(
            built,
            kept_reference_logprobs(
                context, "rl", variables, built, at_once=rl.groups_per_batch, microbatches=rl.microbatches
            ),
            groups_per_batch=rl.groups_per_batch,
            image_token_id=context.image_token_id,
            prefix_buckets=config.data.prefix_buckets,
            branch_buckets=config.data.branch_buckets,
            seed=config.seed,
            pacer=pacer,
            rows=rows_here(context.mesh, rl.groups_per_batch),
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

    step, passes = named(step), ONE_PASS
    if pacer is not None and pacer.needs_success:
        passes = Passes(scored=1)
        step = ranking(step, scorer(context, rl.microbatches), regrpo_settings(rl))
        step = paced(step, pacer, lambda metrics: (metrics["groups/recovery_first"], rl.groups_per_batch))
    elif pacer is not None:
        step = paced(step, pacer, None)
    return train_stage(context, "rl", variables, optimizer, recorded(step, batches), _note, after, passes=passes)


def _note(values: dict[str, float]) -> str:
    kl = values["action/kl"]
    return (
        f"reward {values['reward']:.3f}  KL {kl:.4f}  zero-variance groups {values['groups/dropped_share']:.0%}  "
        f"{values['tokens_per_second']:.0f} tokens/s"
    )
