"""A world of your own that has a state, on a CPU: the safe of examples/safe, learnt from a policy that never met one.

PYTHONPATH=examples/safe python -m regrpo_jax.main --config=configs/own_world.py --workdir=runs/safe
"""

from pathlib import Path

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("data", "sft", "recovery", "online", "recovery")
    config.suite.name = "safe_tasks:make_suite"
    config.tools.builtin = ("final_answer",)
    config.model.path = str(Path(__file__).parents[1] / "experiments" / "recovery" / "policy")
    config.data.source = "suite"
    config.data.prefix_buckets = (128, 192)
    config.data.branch_buckets = (128, 192, 256)
    config.engine.records = 40
    config.engine.clean = 24
    config.sft.steps = 120
    config.sft.learning_rate = 1e-3
    config.optimizer.warmup_steps = 5
    config.sft.batch_rows = 6
    config.sft.row_length = 512
    config.agent.turn_tokens = 64
    config.agent.episode_tokens = 240
    config.online.steps = 20
    config.online.learning_rate = 1e-4
    config.online.tasks = 8
    config.online.branches = 8
    config.optimizer.warmup_steps = 2
    config.recovery.tasks = 18
    return config
