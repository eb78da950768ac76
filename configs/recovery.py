"""Online ReGRPO on a CPU: a tiny warm-started policy plays real tools, reflects after failures, and learns to repair.

python -m regrpo_jax.main --config=configs/recovery.py --workdir=runs/regrpo
python -m regrpo_jax.main --config=configs/recovery.py --workdir=runs/grpo --config.online.algorithm=grpo

The second is a control: the same budget, but a bare retry in place of a reflection. Each plays unseen tasks before and
after; `python -m regrpo_jax.evaluation.compare` puts them side by side. The policy that they start from was made by
configs/warm_start.py. tools/quickstart does all of it, with a control that may think and has a policy of its own. About
11 minutes each on one slow CPU core; success on unseen tasks should rise from .73 to about .86 with reflections.
"""

from pathlib import Path

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("recovery", "online", "recovery")
    config.model.path = str(Path(__file__).parents[1] / "experiments" / "recovery" / "policy")
    config.data.prefix_buckets = (128, 192)
    config.data.branch_buckets = (128, 192, 256)
    config.agent.turn_tokens = 80
    config.agent.episode_tokens = 240
    config.suite.families = ("moved", "service", "search", "region", "colour", "sheet")
    config.suite.surprises = 0.7
    config.online.steps = 40
    config.online.learning_rate = 2e-4
    config.optimizer.final_learning_rate_share = 1.0  # so that a longer run begins with the updates of a shorter one
    config.optimizer.warmup_steps = 2
    return config
