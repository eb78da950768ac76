"""Your own tasks and tools on a CPU: a folder, two functions and an MCP server, from the data engine to the report.

PYTHONPATH=examples/shop python -m regrpo_jax.main --config=configs/own_tasks.py --workdir=runs/shop

The ten tasks of examples/shop show how it goes; seven tasks and 40 updates teach a policy from scratch nothing that
holds. What to change for tasks of your own: docs/your_own_task.md.
"""

import sys
from pathlib import Path

from ml_collections import ConfigDict

from regrpo_jax.config.base_config import base_config

SHOP = Path(__file__).parents[1] / "examples" / "shop"


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = base_config()
    config.stages = ("data", "sft", "online", "recovery")
    config.suite.name = str(SHOP / "tasks")
    config.suite.brief = True
    config.tools.builtin = ("image_description",)
    config.tools.user = ("shop_tools:price_of", "shop_tools:in_stock")
    config.tools.mcp = (f"shop={sys.executable} {SHOP / 'shop_server.py'}",)
    config.data.source = "suite"
    config.data.prefix_buckets = (192, 384)
    config.data.branch_buckets = (128, 256)
    config.engine.records = 24
    config.engine.clean = 7
    config.model.vocab_size = 600
    config.sft.clean_ratio = 0.5
    config.sft.steps = 40
    config.sft.batch_rows = 8
    config.sft.row_length = 512
    config.agent.turn_tokens = 64
    config.agent.episode_tokens = 192
    config.online.steps = 4
    config.online.tasks = 4
    config.online.branches = 4
    config.recovery.tasks = 3
    return config
