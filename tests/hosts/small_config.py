"""A supervised, an offline and an online stage of a few updates each, whose batches split over four devices."""

from ml_collections import ConfigDict

from tests.tiny_config import get_config as tiny_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = tiny_config()
    config.stages = ("sft", "rl", "online")
    config.log_every = 1
    config.checkpoint.every = 2
    config.optimizer.trainable = "full"  # an adapter is float32 whatever the policy computes in
    config.rl.optimizer = ConfigDict({})
    config.sft.batch_rows = config.rl.groups_per_batch = config.online.tasks = 4
    config.sft.steps, config.rl.steps, config.online.steps = 8, 1, 1
    config.online.branches = 4
    config.suite.families = ("moved", "service")
    config.agent.episode_tokens = 96
    config.hosts.heartbeat = 20.0
    return config
