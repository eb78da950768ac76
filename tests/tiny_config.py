"""The smallest run with all stages: a text policy of one layer, twenty records, a dozen updates.

Tests load it with `regrpo_jax.config.command_line.load_config` and pass it to `python -m regrpo_jax.main`.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config
from tests.compact_records import FEW


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("sft", "rl")
    config.log_every = 2
    config.checkpoint.every = 4
    config.data.rot, config.data.clean, config.data.eval_rot = map(str, (FEW.rot_train, FEW.clean_train, FEW.rot_test))
    config.data.prefix_buckets = (64, 256)
    config.data.branch_buckets = (192,)
    config.model.images = False
    config.model.vocab_size = 600
    config.model.hidden_size = 32
    config.model.num_layers = 1
    config.lora.rank = 2
    for stage in (config.sft, config.rl):
        stage.steps = 12
    config.optimizer.warmup_steps = 2
    config.sft.batch_rows = 2
    config.sft.row_length = 256
    config.rl.groups_per_batch = 2
    for stage in (config.rl, config.preference):
        stage.optimizer = ConfigDict({"trainable": "lora"})
    config.eval.records = 2
    config.agent.turn_tokens = 48
    config.played_at_once = 2
    return config
