"""The whole of offline ReGRPO on a CPU, from nothing: a generated corpus, a tiny policy, a table at the end.

python -m regrpo_jax.main --config=configs/offline_compact.py --workdir=runs/offline_compact
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("eval", "sft", "eval", "rl", "eval")
    config.data.compact.train_records = 6000
    config.data.compact.test_records = 200
    config.data.prefix_buckets = (128, 256)
    config.data.branch_buckets = (192,)
    config.sft.steps = 340
    config.sft.learning_rate = 3e-3
    config.sft.batch_rows = 16
    config.sft.row_length = 256
    config.sft.row_patches = 64
    config.lora.targets = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    config.rl.steps = 30
    config.rl.learning_rate = 1e-3
    config.rl.beta = 0.3  # of the paper's range: holds candidates that are already improbable
    config.eval.records = 100
    config.eval.batch = 50
    config.eval.max_new_tokens = 96
    return config
