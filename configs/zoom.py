"""A tiny policy learns to look at what its tools make: it enlarges a place of a picture, sees what is there, repairs.

python -m regrpo_jax.main --config=configs/zoom.py --workdir=runs/zoom

The card that is asked for is too small to be seen in the task's picture, and the place that is told first may be empty.
No text says so: the tool returns a picture. experiments/zoom has what was learnt, and what black pictures leave of it.
"""

from pathlib import Path

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("data", "sft", "recovery", "online", "recovery")
    config.log_every = 25
    config.export_weights = True
    config.model.path = str(Path(__file__).parents[1] / "experiments" / "recovery" / "policy")
    config.suite.families = ("zoom",)
    config.suite.difficulties = (1, 2)
    config.suite.surprises = 0.7
    config.data.source = "toolrepair"
    config.data.pixels = (784, 3136)  # a picture of 448 x 448 is seen as one of 56 x 56
    config.data.failed_turns = "train"  # the demonstrations look at the wrong place on purpose
    config.data.prefix_buckets = (128, 192)
    config.data.branch_buckets = (128, 192, 256)
    config.engine.records = 0
    config.engine.demonstrations = 3000
    config.sft.clean_ratio = 1.0
    config.sft.steps = 200
    config.sft.batch_rows = 16
    config.sft.row_length = 384
    config.sft.row_patches = 192
    config.sft.learning_rate = 1e-3
    config.optimizer.warmup_steps = 10
    config.optimizer.final_learning_rate_share = 1.0
    config.agent.turn_tokens = 80
    config.agent.episode_tokens = 240
    config.online.steps = 24
    config.online.learning_rate = 2e-4
    return config
