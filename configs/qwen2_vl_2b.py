from pathlib import Path

from ml_collections import ConfigDict

from regrpo_jax.config.command_line import load_config


def get_config() -> ConfigDict:
    """See the module docstring."""
    config = load_config(Path(__file__).with_name("qwen2_vl_7b.py"))
    config.mesh.fsdp = 1
    return config
