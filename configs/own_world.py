"""A world of your own that has a state, on a CPU: the lift of examples/lift, learnt from demonstrations with detours.

PYTHONPATH=examples/lift python -m regrpo_jax.main --config=configs/own_world.py --workdir=runs/lift

About 15 minutes of one CPU core; success after SFT should be near .7. experiments/own_world says what online training
did.
"""

from pathlib import Path

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("data", "sft", "recovery", "online", "recovery")
    config.suite.name = "lift_tasks:make_suite"
    config.tools.builtin = ("final_answer",)
    config.model.path = str(Path(__file__).parents[1] / "experiments" / "recovery" / "policy")
    config.data.source = "suite"
    config.data.prefix_buckets = (128, 256)
    config.data.branch_buckets = (256, 384)
    config.engine.records = 40
    config.engine.clean = 70
    config.optimizer.warmup_steps = 5
    config.sft.steps = 120
    config.sft.learning_rate = 1e-3
    config.sft.clean_ratio = 0.75
    config.sft.batch_rows = 6
    config.sft.row_length = 512
    config.agent.turn_tokens = 48
    config.agent.episode_tokens = 320
    config.online.steps = 30
    config.online.tasks = 8
    config.online.branches = 8
    config.recovery.tasks = 20
    config.recovery.episodes = 4
    return config
