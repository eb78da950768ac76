"""The ToolRepair suite on a CPU: generated tasks over real tools, most of which meet a surprise, and a baseline policy.

python -m regrpo_jax.main --config=configs/toolrepair.py --workdir=runs/toolrepair

9 s on 2 cores that others used as well. Success on these 270 tasks, 39 % of which have no surprise: oracle 100.0 %,
never_repairs 41.9 %, random 2.2 %. experiments/toolrepair_baselines has 1,000 tasks, both profiles, test and held-out.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("baselines",)
    config.baselines.policy = "oracle"  # or never_repairs, random
    config.suite.profile = "compact"  # or full
    config.recovery.splits = ("test",)  # or train, validation, held_out
    config.recovery.tasks = 270
    config.recovery.seed = 0
    config.agent.max_steps = 10
    return config
