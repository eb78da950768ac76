"""Quickstart."""

from regrpo_jax.base_config import base_config


def get_config():
    config = base_config()
    config.stages = ("eval", "sft", "eval", "rl", "eval")
    config.data.compact.train_records = 6000
    config.data.compact.test_records = 400
    config.data.prefix_buckets = (128, 256)
    config.data.branch_buckets = (192,)
    config.sft.steps = 200
    config.sft.batch_rows = 16
    config.sft.row_length = 256
    config.sft.row_patches = 64
    config.rl.steps = 40
    config.rl.learning_rate = 1e-3
    config.eval.records = 200
    config.eval.batch = 100
    config.eval.max_new_tokens = 96
    return config
