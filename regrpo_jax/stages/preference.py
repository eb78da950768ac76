"""The stage `preference`: direct preference optimisation on recorded failures, a baseline that plays no episode."""

from collections.abc import Callable, Mapping
from typing import Any

from regrpo_jax.config.base_config import stage_section
from regrpo_jax.data.corpus import groups_to_visit
from regrpo_jax.data.groups import Group
from regrpo_jax.data.loader import Batches, group_batches
from regrpo_jax.data.preference_pairs import preference_pairs
from regrpo_jax.errors import UserError
from regrpo_jax.run.learner import Learner
from regrpo_jax.run.run import Run
from regrpo_jax.training.loop import RunContext, recorded, train_stage
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.parallel import rows_here
from regrpo_jax.training.preference_step import preference_step
from regrpo_jax.training.reference import kept_reference_logprobs

Tree = dict[str, Any]


def run(run: Run) -> None:
    """Trains the policy on the RoT records of the run."""
    learner = run.learner
    learner.variables = run_preference(learner.context, learner.variables, lambda: _groups(learner), after=run.trained)


def _groups(learner: Learner) -> list[Group]:
    """As many as the stage visits, of those that prefer something."""
    config = learner.context.config
    visits = config.preference.steps * config.preference.pairs_per_batch
    return groups_to_visit(
        learner.corpus.rot, learner.reader, config, most=visits, keep=lambda group: bool(preference_pairs([group]))
    )


def run_preference(
    context: RunContext, variables: Tree, groups: Callable[[], list[Group]], *, after: Mapping[str, int]
) -> Tree:
    """Prefers corrected actions to failed ones; the reference is the policy as it comes in. Returns its variables.

    Args:
      variables: the policy before it.
      groups: makes the groups; called only if there is something left to train.
      after: the stages before this one, and their updates.
    Raises:
      UserError: the checkpoint is of another run, there are no pairs, or the loss is not finite.
    """
    config, preference = context.config, stage_section(context.config, "preference")

    def batches() -> Batches:
        pairs = preference_pairs(groups())
        if not pairs:
            raise UserError(
                "there are no pairs to prefer one side of: config.data.rot holds no usable record whose corrected "
                "action differs from the failed one"
            )
        return group_batches(
            pairs,
            kept_reference_logprobs(
                context,
                "preference",
                variables,
                pairs,
                at_once=preference.pairs_per_batch,
                microbatches=preference.microbatches,
            ),
            groups_per_batch=preference.pairs_per_batch,
            image_token_id=context.image_token_id,
            prefix_buckets=config.data.prefix_buckets,
            branch_buckets=config.data.branch_buckets,
            seed=config.seed,
            rows=rows_here(context.mesh, preference.pairs_per_batch),
        )

    optimizer = make_optimizer(preference, steps=preference.steps)
    step = preference_step(
        context.functions,
        optimizer,
        context.mesh,
        beta=preference.beta,
        microbatches=preference.microbatches,
        chunk_size=context.logprob_chunk,
        dropout_key=context.dropout_key("preference"),
    )
    return train_stage(context, "preference", variables, optimizer, recorded(step, batches), _note, after)


def _note(values: dict[str, float]) -> str:
    margin, accuracy = values["preference/margin"], values["preference/accuracy"]
    return f"loss {values['loss']:.3f}  margin {margin:.3f}  right {accuracy:.0%}"
