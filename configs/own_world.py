"""A world of your own that has a state, on a CPU: the lift of examples/lift, learnt from demonstrations with detours.

PYTHONPATH=examples/lift python -m regrpo_jax.main --config=configs/own_world.py --workdir=runs/lift

About 30 minutes of one CPU core; success should rise from about .55 after SFT to .9. experiments/own_world says what
was learnt, and what was not.
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
    config.engine.records = 120
    config.engine.error_types = ("ArgInvalid=0.35", "InfoInsufficient=0.65")
    config.engine.clean = 80
    config.optimizer.warmup_steps = 5
    config.sft.steps = 130
    config.sft.learning_rate = 1e-3
    config.sft.clean_ratio = 0.4
    config.sft.batch_rows = 6
    config.sft.row_length = 512
    config.agent.turn_tokens = 48
    config.agent.episode_tokens = 320
    config.online.steps = 40
    config.online.learning_rate = 1e-4
    config.online.credit = "apart"  # few repairs succeed at first
    config.objective.eta = 0.02
    config.optimizer.final_learning_rate_share = 1.0
    config.online.tasks = 16
    config.online.branches = 8
    config.recovery.tasks = 20
    config.recovery.episodes = 6
    return config
