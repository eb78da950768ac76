"""Quickstart."""
from regrpo_jax.base_config import base_config
def get_config():
    config = base_config()
    config.stages = ("eval", "sft", "eval", "rl", "eval")
    config.data.compact.train_records = 400
    config.data.compact.test_records = 40
    config.data.prefix_buckets = (128, 256)
    config.data.branch_buckets = (128, 192)
    config.sft.steps = 30
    config.rl.steps = 10
    config.eval.records = 20
    config.eval.batch = 20
    config.eval.max_new_tokens = 96
    return config
