"""GAIA with a policy of yours: played whole, written down for the leaderboard, scored by its rule.

python -m regrpo_jax.main --config=configs/eval_gaia.py --workdir=runs/gaia \\
    --config.suite.path=GAIA_FOLDER --config.model.path=MODEL --config.tools.search=CORPUS_OR_ENGINE

GAIA_FOLDER holds `metadata.jsonl` or its parquet files, with the attachments beside it. GAIA may not be passed on: it
comes from its authors. A run that is stopped goes on. Files that were made elsewhere, as the leaderboard takes them:
--config.eval.score_only=FILE. Behind a server, in place of MODEL: --config.player.server='http://localhost:8000/v1 M'.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("benchmark",)
    config.suite.name = "gaia"
    config.played_at_once = 16
    config.data.prefix_buckets = (2048, 4096, 8192)
    config.data.branch_buckets = (4096, 12288)
    config.agent.max_steps = 16
    config.agent.turn_tokens = 768
    config.agent.episode_tokens = 8192
    config.environment.wall_seconds = 60.0
    return config
