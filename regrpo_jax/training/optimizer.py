"""AdamW with warm-up, cosine decay and clipping by the global norm."""

import ml_collections
import optax


def make_optimizer(config: ml_collections.ConfigDict, *, steps: int) -> optax.GradientTransformation:
    """The optimizer of one stage.

    Args:
      config: a `stage_section`: learning_rate, warmup_steps, final_learning_rate_share, weight_decay,
        beta2, clip_norm.
      steps: length of the stage, in updates.
    """
    return optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(
            learning_rate_schedule(config, steps=steps),
            b2=config.beta2,
            weight_decay=config.weight_decay,
        ),
    )


def learning_rate_schedule(config: ml_collections.ConfigDict, *, steps: int) -> optax.Schedule:
    """Linear warm-up to `learning_rate`, then a cosine down to `final_learning_rate_share` of it."""
    return optax.warmup_cosine_decay_schedule(
        init_value=0.0 if config.warmup_steps else config.learning_rate,
        peak_value=config.learning_rate,
        warmup_steps=config.warmup_steps,
        decay_steps=max(steps, config.warmup_steps + 1),
        end_value=config.learning_rate * config.final_learning_rate_share,
    )
