"""The stage `sft`: a warm start, supervised, on clean trajectories and reflections that a repair followed."""

from collections.abc import Callable, Mapping
from typing import Any

from regrpo_jax.config.base_config import stage_section
from regrpo_jax.data.corpus import clean_examples, rot_examples, told_failures
from regrpo_jax.data.examples import Example
from regrpo_jax.data.loader import Batches, sft_batches
from regrpo_jax.run.learner import Learner
from regrpo_jax.run.run import Run
from regrpo_jax.training.loop import RunContext, recorded, train_stage
from regrpo_jax.training.optimizer import make_optimizer
from regrpo_jax.training.pacing import paced, reflection_confidence, stage_pacer
from regrpo_jax.training.parallel import rows_here
from regrpo_jax.training.steps import sft_step

Tree = dict[str, Any]


def run(run: Run) -> None:
    """Trains the policy on the records of the run."""
    learner = run.learner
    learner.variables = run_sft(learner.context, learner.variables, lambda: _examples(learner), after=run.trained)


def _examples(learner: Learner) -> tuple[list[Example], list[Example]]:
    """Clean and RoT examples, as far as `clean_ratio` asks for them."""
    config, corpus = learner.context.config, learner.corpus
    ratio = config.sft.clean_ratio
    if told := told_failures(corpus.clean, config.data.failed_turns):
        print(f"sft: {told}", flush=True)
    clean = clean_examples(corpus.clean, learner.reader, config) if ratio > 0 else []
    rot = rot_examples(corpus.rot, learner.reader, config) if ratio < 1 else []
    return clean, rot


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
    config, sft = context.config, stage_section(context.config, "sft")
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
            rows=rows_here(context.mesh, sft.batch_rows),
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
    return train_stage(context, "sft", variables, optimizer, recorded(step, batches), _note, after)


def _note(values: dict[str, float]) -> str:
    return f"loss {values['loss']:.3f}  {values['tokens_per_second']:.0f} tokens/s"
