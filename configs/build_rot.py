"""Executed RoT records from the compact ToolRepair suite: near misses that really failed, and what repaired them.

python -m regrpo_jax.main --config=configs/build_rot.py --workdir=runs/rot --config.data.source=toolrepair

2,000 records on 2 cores; then an audit that plays every one of them again. Other sources: a JSON file of clean
MAT-Agent / MM-Traj trajectories, or the folder of an evaluation run (--config.engine.natural=1: only what the policy
itself got wrong).
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("data", "audit")
    config.data.source = "toolrepair"
    config.engine.records = 2000
    config.audit.replay = True
    return config
