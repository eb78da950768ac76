"""A tiny policy with the skills that recovery needs, from nothing: demonstrations over real tools, then supervised.

python -m regrpo_jax.main --config=configs/warm_start.py --workdir=runs/warm_start

The demonstrating agent's skills are right and its decisions often are not, see `engine/demonstrations.py`; what is left
to learn is what configs/recovery.py learns. experiments/recovery/policy is its `model/` for seed 0. The loss should end
near 0.023, success on unseen tasks near .73; about 50 minutes of one slow CPU core, 12 of them for the data engine.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("data", "sft", "recovery")
    config.log_every = 25
    config.export_weights = True
    config.checkpoint.every = 300
    config.data.source = "toolrepair"
    config.data.prefix_buckets = (128, 192)
    config.data.branch_buckets = (128, 192, 256)
    config.data.failed_turns = "train"  # the demonstrations fail on purpose: there would be nothing to reflect on
    config.engine.records = 0
    config.engine.demonstrations = 10_000
    config.suite.families = ("moved", "service", "search", "region", "colour", "sheet")
    config.model.vocab_size = 1300
    config.model.dtype = "bfloat16"
    config.sft.clean_ratio = 1.0
    config.sft.steps = 900
    config.optimizer.warmup_steps = 50
    config.optimizer.weight_decay = 0.01
    config.optimizer.final_learning_rate_share = 0.05
    config.sft.batch_rows = 28
    config.sft.row_length = 256
    config.sft.row_patches = 96
    config.agent.turn_tokens = 80
    config.agent.episode_tokens = 240
    config.suite.families = config.suite.families  # whose unseen tasks are played
    config.recovery.bare_control = True
    return config
