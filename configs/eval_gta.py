"""GTA with a policy of yours: played whole, written down as its authors do, scored by everybody's rule.

python -m regrpo_jax.main --config=configs/eval_gta.py --workdir=runs/gta \\
    --config.suite.path=GTA_FOLDER --config.model.path=MODEL

GTA_FOLDER holds `dataset.json`, `toolmeta.json` and `image/`. Tools that need a model or a search engine are asked for
where one is named (--config.tools.endpoints, --config.tools.search, docs/tools.md); what the dialog itself recorded
answers in their place otherwise, and is marked. A run that is stopped goes on. Turn by turn after the recorded ones:
--config.eval.mode=steps. Files that were made elsewhere: --config.eval.score_only=FILE, in seconds, without a model.
Behind a server in place of MODEL: --config.player.server='http://localhost:8000/v1 NAME'.
"""

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("benchmark",)
    config.suite.name = "gta"
    config.played_at_once = 16
    config.data.prefix_buckets = (4096, 8192)
    config.data.branch_buckets = (2048, 6144)
    config.agent.max_steps = 10
    config.agent.turn_tokens = 512
    config.agent.episode_tokens = 4096
    config.environment.wall_seconds = 60.0
    return config
